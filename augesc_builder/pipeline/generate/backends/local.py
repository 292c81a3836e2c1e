"""Backend ``local``: our own engine, on the GPUs or CPU cores of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.tasks import Row, Task


class LocalBackend(Backend):
    """Decodes with the fine-tuned checkpoint, in one process or several."""

    Settings = LocalSettings
    about = "our own engine, on this machine's GPUs or CPU cores"

    def __init__(self, recipe: Recipe, checkpoint: Path, folder: Path) -> None:
        super().__init__(recipe, checkpoint, folder)
        self._n_workers = self._slots = 1

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse a model whose layers cannot be cut into the parts that are asked for."""
        from augesc_builder.models.backbone import place_of
        from augesc_builder.models.causal_lm import check_tensor_parallel, config_of
        from augesc_builder.pipeline.generate import capacity

        settings, origin = capacity.settings_of(recipe), recipe.backbone
        if settings.tensor_parallel > 1:
            config = config_of(origin.from_scratch, place_of(origin), origin.revision)
            check_tensor_parallel(config, origin.label, settings.tensor_parallel)

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Choose the type of the weights, processes and slots.

        Other types and numbers of slots round otherwise: a resumed run keeps those it began with.
        """
        from augesc_builder.pipeline.generate import capacity
        from augesc_builder.pipeline.generate.processor import facts_for

        settings = capacity.settings_of(self.recipe)
        facts = facts_for(settings.dtype, known)
        self.recipe = _with_dtype(self.recipe, settings, facts["dtype"])
        self._n_workers = capacity.n_workers(self.recipe, self.checkpoint, n_tasks, n_shards)
        self._slots = known.get("slots") or capacity.n_slots(
            self.recipe, self.checkpoint, self._n_workers
        )
        return {"slots": self._slots, **facts}

    def stream(self, tasks: Sequence[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield rows as they end; tasks of all shards go through the engine in one stream."""
        from augesc_builder.pipeline.generate import workers

        return workers.generate(
            self.checkpoint, self.recipe, self._slots, tasks, on_step, self._n_workers
        )


def _with_dtype(recipe: Recipe, settings: LocalSettings, dtype: str) -> Recipe:
    backend = settings.model_copy(update={"dtype": dtype})
    generate = recipe.generate.model_copy(update={"backend": backend})
    return recipe.model_copy(update={"generate": generate})
