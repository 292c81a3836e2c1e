"""What every backend is: tasks in, rows of the generations table out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from augesc_builder.config.generate import BackendSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.tasks import Row, Task, generation_row

OnStep = Callable[[int, int, float | None], None]
"""Called with ``(rows finished, tokens made, utilisation of the slots or None)``, for the bar."""


class Backend(ABC):
    """A way to make texts; an object serves one run of the stage.

    ``Settings`` is its section of a recipe, ``generate.backend``; the default of that section's
    ``type`` (or its only value) is the backend's name. ``about`` says in a line what it is.
    """

    Settings: ClassVar[type[BackendSettings]]
    about: ClassVar[str]

    def __init__(self, recipe: Recipe, checkpoint: Path) -> None:
        self.recipe, self.checkpoint = recipe, checkpoint

    @classmethod  # noqa: B027 - most have nothing to refuse
    def check(cls, recipe: Recipe) -> None:
        """Refuse what cannot work, before anything is written or trained.

        Raises an :class:`~augesc_builder.errors.AugescError`.
        """

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Get ready for so many tasks and shards; return what a resumed run must find again.

        ``known`` is what was returned when the run began, or empty. A line ``choice`` in it is
        shown to the user, also by ``augesc status``.
        """
        return known

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what is held, such as processes: called once at the end, also after errors."""

    @abstractmethod
    def stream(self, tasks: Sequence[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row of the generations table, in any order."""

    def row(self, task: Task, text: str, **facts: Any) -> Row:
        """Return the row of a task: its text behind the prompt, and facts of ``generation_row``."""
        return generation_row(task, text, self.recipe.seed, **facts)
