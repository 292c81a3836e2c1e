"""Backend ``local``: our own engine, on the GPUs or CPU cores of this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import RunFolderError
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.pipeline.generate.ways import Way, fastest, kept, noted, ways, worth_trying
from augesc_builder.run.workers import cores

if TYPE_CHECKING:
    from augesc_builder.pipeline.generate.workers import Crew

_LOOK, _MEASURE = 0.05, 1.0
"""Seconds to find out whether there is work enough to measure for, and to measure a way."""


class LocalBackend(Backend):
    """Decodes with the fine-tuned checkpoint, in one process or several."""

    Settings = LocalSettings
    about = "our own engine, on this machine's GPUs or CPU cores"

    def __init__(self, recipe: Recipe, checkpoint: Path, folder: Path) -> None:
        super().__init__(recipe, checkpoint, folder)
        self._slots, self._way = 1, Way(1, 1)
        self._crew: Crew | None = None

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse a model that cannot be cut into parts, or rounded, as it is asked for."""
        from augesc_builder.models.backbone import place_of
        from augesc_builder.models.causal_lm import check_tensor_parallel, config_of
        from augesc_builder.pipeline.generate import capacity
        from augesc_builder.pipeline.generate.processor import check_weights

        settings, origin = capacity.settings_of(recipe), recipe.backbone
        if settings.tensor_parallel == 1 and settings.weights is None:
            return
        config = config_of(origin.from_scratch, place_of(origin), origin.revision)
        if settings.tensor_parallel > 1:
            check_tensor_parallel(config, origin.label, settings.tensor_parallel)
        if settings.weights is not None:
            check_weights(config, origin.label, settings.weights)

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Choose the type of the weights, slots, processes and threads.

        Other types and numbers of slots or threads round otherwise: a resumed run keeps those it
        began with.
        """
        import torch

        from augesc_builder.pipeline.generate import capacity
        from augesc_builder.pipeline.generate.processor import facts_for

        settings = capacity.settings_of(self.recipe)
        facts = facts_for(settings.dtype, known)
        self.recipe = _with_dtype(self.recipe, settings, facts["dtype"])
        most = capacity.most_processes(self.recipe, self.checkpoint)
        self._slots = known.get("slots") or capacity.n_slots(self.recipe, self.checkpoint, most)
        weights = settings.weights or facts["dtype"]
        facts = {**known, "slots": self._slots, "weights": weights, **facts}
        if settings.tensor_parallel == 1:
            most = min(most, n_tasks)
        if torch.cuda.is_available() or settings.tensor_parallel > 1:
            self._way = Way(most, max(1, torch.get_num_threads() // most))
        elif "threads" in known:
            begun = Way(known["processes"], known["threads"])
            self._way = _kept(begun, most, n_tasks, settings.workers)
        else:
            self._way, rates = self._measured(most, settings.workers, n_tasks)
            facts |= noted(self._way, rates)
        return facts

    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield rows as they end; tasks of all shards go through the engine in one stream."""
        crew = self._of(self._way.processes)
        try:
            yield from crew.stream(tasks, on_step, self._way)
        finally:
            if crew.size > 1:  # they have ended with their stream
                self._crew = None

    def kind(self) -> Mapping[str, Any]:
        """Return the processor or GPU, what computes on it, and the numbers it rounds by."""
        from augesc_builder.pipeline.generate.capacity import settings_of
        from augesc_builder.pipeline.generate.processor import machine

        numbers = {"dtype": settings_of(self.recipe).dtype, "slots": self._slots}
        return machine() | numbers | {"threads": self._way.threads}

    def close(self) -> None:
        """End the processes, and free the model."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None

    def _of(self, n: int) -> Crew:
        """Return a crew of at least ``n`` processes, in the place of a smaller one."""
        from augesc_builder.pipeline.generate.workers import crew_of

        if self._crew is None or self._crew.size < n:
            self.close()
            self._crew = crew_of(n, self.checkpoint, self.recipe, self._slots)
        return self._crew

    def _measured(
        self, most: int, workers: int | None, n_tasks: int
    ) -> tuple[Way, dict[Way, float]]:
        """Return the fastest way, and tokens a second of those that were worth trying."""
        import torch

        threads = min(cores(), torch.get_num_threads())
        simplest, *others = found = ways(most, threads, workers and most)
        if not others:
            return simplest, {}
        rate = self._of(simplest.processes).rate(simplest, _LOOK)
        n_tokens = n_tasks * self.recipe.generate.max_tokens / 2
        tried = worth_trying(found, n_tokens / rate)
        if len(tried) == 1:
            return simplest, {simplest: rate}
        try:
            crew = self._of(max(way.processes for way in tried))
            rates = {way: crew.rate(way, _MEASURE) for way in tried}
        except RunFolderError as error:
            self.close()
            warnings.warn(
                f"{simplest}: the trial of others failed ({error})", RuntimeWarning, stacklevel=2
            )
            return simplest, {simplest: rate}
        return fastest(rates), rates


def _kept(begun: Way, most: int, n_tasks: int, workers: int | None) -> Way:
    """Return the way to go on in; warn where it takes longer than in the way it was begun."""
    way = kept(begun, most, cores() if workers is None else most * begun.threads)
    if way.processes < min(begun.processes, n_tasks) or way.threads > cores():
        warnings.warn(
            f"this run was begun with {begun}; here, with room for {most:,} and {cores():,} cores, "
            f"it goes on with {way}: it takes longer, and no row changes by that",
            RuntimeWarning,
            stacklevel=2,
        )
    return way


def _with_dtype(recipe: Recipe, settings: LocalSettings, dtype: str) -> Recipe:
    backend = settings.model_copy(update={"dtype": dtype})
    generate = recipe.generate.model_copy(update={"backend": backend})
    return recipe.model_copy(update={"generate": generate})
