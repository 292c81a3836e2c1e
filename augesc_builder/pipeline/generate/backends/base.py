"""What every backend is: tasks in, rows of the generations table out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from augesc_builder.config.base import BackendSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.tasks import Row, Task, generation_row

OnStep = Callable[[int, int, float | None], None]
"""Called with ``(rows finished, tokens made, utilisation of the slots or None)``, for the bar."""


class Backend(ABC):
    """A way to make texts; an object serves one run of the stage.

    ``Settings`` is its section of a recipe, ``generate.backend``; the default of that section's
    ``type`` (or its only value) is the backend's name. ``about`` says in a line what it is.

    ``checkpoint`` is the fine-tuned model; nothing is there for a backend that needs none.
    ``folder`` is the run's, where a backend may keep files of its own, named in
    :mod:`~augesc_builder.run.layout`.
    """

    Settings: ClassVar[type[BackendSettings]]
    about: ClassVar[str]
    needs_checkpoint: ClassVar[bool] = True
    """Whether it decodes with the checkpoint; a build that does not is not fine-tuned."""
    reproducible: ClassVar[bool] = True
    """Whether the same recipe gives the same rows again; the card says where it does not."""

    def __init__(self, recipe: Recipe, checkpoint: Path, folder: Path) -> None:
        self.recipe, self.checkpoint, self.folder = recipe, checkpoint, folder
        self.is_done: Callable[[int], bool] | None = None
        """Whether a shard has all its rows; whoever makes whole shards says how that is told."""

    @classmethod  # noqa: B027 - most have nothing to refuse
    def check(cls, recipe: Recipe) -> None:
        """Refuse what cannot work, before anything is written or trained.

        Raises an :class:`~augesc_builder.errors.AugescError`.
        """

    @classmethod
    def label(cls, recipe: Recipe) -> str:
        """Name the model that writes the texts, as tables do."""
        return recipe.backbone.label if cls.needs_checkpoint else recipe.generate.backend.type

    @classmethod
    def model(cls, recipe: Recipe) -> str:
        """Say in Markdown which model writes the texts, where it is not the fine-tuned one."""
        return cls.about

    @classmethod
    def n_sessions(cls, recipe: Recipe) -> int:
        """Return how many sessions of ``finetune.sessions`` the model has seen: none may be."""
        return recipe.finetune.n_sessions if cls.needs_checkpoint else 0

    @classmethod
    def models(cls, recipe: Recipe) -> Mapping[str, Path]:
        """Return the local models that it loads beside the checkpoint, by the key that names each.

        A run knows them by their bytes.
        """
        return {}

    @classmethod
    def plan(cls, recipe: Recipe, n_tasks: int) -> list[str]:
        """Say in lines what so many texts would take, beyond time; nothing is asked of anybody."""
        return []

    @classmethod
    def settings_used(cls, recipe: Recipe) -> dict[str, Any]:
        """Return the recipe's plain values, without the sections that a build never comes to."""
        unused = set() if cls.needs_checkpoint else {"backbone", "finetune"}
        return {name: value for name, value in recipe.settings().items() if name not in unused}

    @classmethod
    def sampling(cls, recipe: Recipe) -> str:
        """Say how texts are sampled."""
        settings = recipe.generate
        how = f"top-p {settings.top_p}, temperature {settings.temperature}"
        if settings.greedy:
            how = "the most likely token each time"
        elif settings.top_k or settings.min_p:
            how += f", top-k {settings.top_k or 'none'}, min-p {settings.min_p}"
        return (
            f"{how}, repetition penalty {settings.repetition_penalty}, at most "
            f"{settings.max_tokens:,} tokens"
        )

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Get ready for so many tasks and shards; return what a resumed run must find again.

        ``known`` is what was returned when the run began, or empty. A line ``choice`` in it is
        shown to the user, also by ``augesc status``.
        """
        return known

    def kind(self) -> Mapping[str, Any]:
        """Return what makes its rows, once it is ready: the ``name`` of that, and what else.

        It is what rows, or their rounding, depend on that may differ between machines of one run.
        """
        return {"name": self.recipe.generate.backend.type}

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what is held, such as processes: called once at the end, also after errors."""

    def facts(self) -> Mapping[str, Any]:
        """Return what the texts took, for the manifest, once all are there."""
        return {}

    @abstractmethod
    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row of the generations table, in any order.

        Tasks are to be read as there is room for them: they may be a hundred million. It is called
        again, one stream after the other, where a row ended one, or others are to be made alone.
        """

    def row(self, task: Task, text: str, **facts: Any) -> Row:
        """Return the row of a task: its text behind the prompt, and facts of ``generation_row``."""
        return generation_row(task, text, self.recipe.seed, **facts)
