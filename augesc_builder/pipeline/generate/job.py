"""The stage ``generate`` as a job for executors: tasks of shards in, rows written, marks out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import CheckpointError
from augesc_builder.pipeline.generate.apart import Apart, RowFailed
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.draws import drawn
from augesc_builder.pipeline.generate.notes import Notes
from augesc_builder.pipeline.generate.order import Order
from augesc_builder.pipeline.generate.progress import Beside
from augesc_builder.pipeline.generate.tasks import Row, Task, with_personas
from augesc_builder.run import layout
from augesc_builder.run.attempts import MOST
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.kinds import note_kind
from augesc_builder.run.marks import shard_mark
from augesc_builder.run.shared import SharedRun, TellingWorker
from augesc_builder.sources.personas import read_personas
from augesc_builder.tables import FAILED, GENERATIONS, to_table

STAGE = "generate"

_LOOK = 5.0
"""Seconds between two looks whether others have finished what is at work here."""


class Watch:
    """Hears what a worker in this process does; this one is deaf."""

    def begun(self, facts: Mapping[str, Any]) -> None:
        """Hear what was chosen for the whole run."""

    def step(self, ended: int, made: int, utilisation: float | None) -> None:
        """Hear of a step: rows ended, tokens made, share of the slots at work."""

    def row(self, row: Row) -> None:
        """Hear of a finished row."""

    def say(self, text: str) -> None:
        """Hear a line for the user."""

    def ended(self, facts: Mapping[str, Any]) -> None:
        """Hear what the texts took, by the backend."""


@dataclass(frozen=True)
class GenerateJob(SharedRun):
    """What a worker needs to know, in whatever process; ``watch`` stays in this one.

    ``table`` is the path of the table below the folder.
    """

    recipe: Recipe
    checkpoint: Path
    queries: tuple[Path, ...]
    table: str
    n_tasks: int
    """How many rows are missing as the job begins."""
    watch: Watch = field(default_factory=Watch, compare=False)
    here: Path = field(default_factory=Path.cwd)
    """Where paths in the recipe begin."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"watch": Watch()}

    @property
    def gpus(self) -> int:
        """How many GPUs a worker computes on: one, as many as a model in parts has, or none."""
        return self.recipe.generate.backend.gpus

    def worker(self, *, alone: bool) -> Maker:
        """Make a worker in this process.

        Raises :class:`~augesc_builder.errors.ExecutorError` where this machine lacks something.
        """
        if not alone:
            backend = backend_of(self.recipe)
            models = [self.checkpoint] if backend.needs_checkpoint else []
            if self.here.is_dir():
                os.chdir(self.here)  # a process of its own, which may stand elsewhere
            models += (self.here / path for path in backend.models(self.recipe).values())
            self.check_worker([*self.queries, *models])
        return Maker(self, alone=alone)


class Maker(TellingWorker):
    """A backend at work on shards. Rows of those under way are all that it holds."""

    def __init__(self, job: GenerateJob, *, alone: bool) -> None:
        from augesc_builder.pipeline.generate.processor import device

        self._job, self._alone = job, alone
        self.recipe = job.recipe if alone else by_one_process(job.recipe)
        self._order = Order(job.queries, self.recipe.generate, checked=alone)
        self._backend = backend_of(self.recipe)(self.recipe, job.checkpoint, job.folder)
        self._backend.is_done = job.is_done
        self._rows: dict[int, dict[int, Row]] = {}
        self._notes = Notes(job.folder, STAGE)
        self._is_ready, self._kind = False, ""
        self._beside = None if alone else Beside(self.recipe.requirements)
        super().__init__(job, "" if alone else device(), alone=alone)

    def close(self) -> None:
        """Free the model, end processes, and say how it ended."""
        self._backend.close()
        if self._beside is not None:
            self._beside.close(now=False)
            self._tell_judged()
        super().close()

    # -- inside ----------------------------------------------------------------------------------

    def _make(self, numbers: Iterator[int]) -> Iterator[int]:
        """Make shards together, but those alone that end whoever makes them."""
        while True:
            self._get_ready()
            try:
                yield from self._together(numbers)
            finally:
                self._notes.drop()
            if self._notes.is_over:
                break
            self._backend.close()  # what is loaded may be broken, or would be there twice
            self._is_ready = False
            if (number := self._notes.alone()) is not None:
                yield from self._apart(number)
            numbers = chain(self._notes.again(), numbers)
        self._job.watch.ended(self._backend.facts())

    def _together(self, numbers: Iterator[int]) -> Iterator[int]:
        """Make shards in one stream; what ends it is noted where it may be a row's fault."""
        found = iter(self._backend.stream(self._tasks(numbers), self._step))
        looked = time.monotonic()
        try:
            while True:
                try:
                    task, row = next(found)
                except StopIteration:
                    break
                except Exception as error:
                    if not self._notes.failed(error):
                        raise
                    self._job.say(f"  {self._notes.told}")
                    return
                self._notes.has_made = True
                yield from self._take(task, row)
                if not self._alone and time.monotonic() - looked > _LOOK:
                    if self._rows and all(map(self._job.is_done, self._rows)):
                        break
                    looked = time.monotonic()
            elsewhere = [number for number in self._rows if self._job.is_done(number)]
            self._rows = {n: rows for n, rows in self._rows.items() if n not in elsewhere}
            yield from elsewhere
        finally:
            if isinstance(found, Generator):
                found.close()  # now: what is under way is not waited for

    def _apart(self, number: int) -> Iterator[int]:
        """Make the rows of a shard one by one, and give up those that cannot be made."""
        job = self._job
        job.say(
            f"  shard {number:,} has ended what made it {MOST} times; its rows are made one by one"
        )
        failed: list[Row] = []
        known = read_manifest(job.folder).get(STAGE) or job.shards.agreed(STAGE) or {}
        recipe = by_one_process(self.recipe)
        with closing(Apart(recipe, job.checkpoint, job.folder, known)) as maker:
            for task in self._tasks_of(number):
                if not job.is_done(number):
                    try:
                        row = maker.make(task, f"{shard_mark(STAGE, number)}-{task.row}")
                    except RowFailed as error:
                        failed.append(error.row(task))
                        job.say(
                            f"  query {task.query['query_id']}, sample {task.sample}: given up, "
                            f"since each time it was made, what made it ended ({error})"
                        )
                    else:
                        self._step(1, row["n_tokens"] or 0, None)
                        self._note(task, row)
        if not job.is_done(number):
            self._write(number, failed)
        self._notes.done(number)
        del self._rows[number]
        yield number

    def _step(self, ended: int, made: int, utilisation: float | None) -> None:
        with self._notes.own():
            self._job.watch.step(ended, made, utilisation)
            if self.telling is not None:
                self.telling.step(ended, made, utilisation)
            self._tell_judged()

    def _tell_judged(self) -> None:
        if self.telling is not None and self._beside is not None:
            self._beside.look()
            self.telling.judged(self._beside.n_kept, self._beside.n_judged)

    def _get_ready(self) -> None:
        if self._is_ready:
            return
        job = self._job
        known = read_manifest(job.folder).get(STAGE) or job.shards.agreed(STAGE) or {}
        begun = self._backend.prepare(known, job.n_tasks, job.n_shards)
        if not known and not self._alone:  # the first of them chooses
            begun = self._backend.prepare(job.shards.agree(STAGE, begun), job.n_tasks, job.n_shards)
        job.watch.begun(begun)
        self._kind = note_kind(job.shards, STAGE, self._backend.kind())
        self._is_ready = True

    @cached_property
    def _bank(self) -> list[str] | None:
        where = self.recipe.prompt.personas
        return None if where is None else list(read_personas(where))

    def _tasks(self, numbers: Iterator[int]) -> Iterator[Task]:
        """Yield the tasks of one shard after the other, as the backend has room for them.

        It ends before a shard that is to be made apart.
        """
        with self._notes.own():
            for number in numbers:
                if self._job.is_done(number):
                    self._rows.pop(number, None)
                    continue
                if not self._notes.begin(number):
                    return
                yield from self._tasks_of(number)

    def _tasks_of(self, number: int) -> list[Task]:
        """Return the tasks of a shard whose rows are not there."""
        rows = self._rows.setdefault(number, {})
        some = [task for task in self._order.tasks(number) if task.row not in rows]
        if self._bank is not None:
            some = with_personas(some, self._bank, self.recipe.seed)
        return some

    def _take(self, task: Task, row: Row) -> Iterator[int]:
        """Put a row into its shard; write that, and yield its number, where it was the last."""
        self._note(task, row)
        number = task.shard
        if len(self._rows[number]) == self._order.n_rows(number):
            self._write(number)
            del self._rows[number]
            yield number

    def _note(self, task: Task, row: Row) -> None:
        if row["finish_reason"] == "not_finite":
            self._job.say(
                f"  query {row['query_id']}, sample {row['sample']}: non-finite logits; "
                f"its row is empty"
            )
        self._job.watch.row(row)
        if self._beside is not None:
            self._beside.row(row)
        self._rows[task.shard][task.row] = row

    def _write(self, number: int, failed: Sequence[Row] = ()) -> None:
        """Write a shard, and the rows of it that could not be made."""
        job, rows = self._job, self._rows[number]
        table = to_table((rows[n] for n in sorted(rows)), GENERATIONS)
        tables, facts = {job.table: table}, shard_facts(table, self.recipe)
        if failed:
            tables[layout.failed_table(job.table)] = to_table(failed, FAILED)
            facts["failed"] = len(failed)
        if not self._alone:
            job.check_run()
        job.shards.add_shard(STAGE, number, job.n_shards, tables, kind=self._kind, **facts)
        self.count()
        self._notes.done(number)


def shard_facts(table: pa.Table, recipe: Recipe, *, is_whole: bool = True) -> dict[str, Any]:
    """Return what the mark of a shard says of its rows.

    Raises :class:`~augesc_builder.errors.CheckpointError` where none of a whole one has numbers.
    """
    ended = Counter(table["finish_reason"].to_pylist())
    if is_whole and set(ended) == {"not_finite"}:
        raise CheckpointError(
            "non-finite logits, whatever the query; try "
            "--set generate.backend.dtype=float32, or train again"
        )
    return {
        "tokens": sum(n or 0 for n in table["n_tokens"].to_pylist()),
        "finish_reasons": dict(sorted(ended.items())),
        **drawn(table, recipe),
    }


def by_one_process(recipe: Recipe) -> Recipe:
    """Return the recipe of a worker that has others beside it on its machine."""
    settings = recipe.generate.backend
    if not isinstance(settings, LocalSettings) or settings.tensor_parallel > 1:
        return recipe
    backend = settings.model_copy(update={"workers": 1})
    generate = recipe.generate.model_copy(update={"backend": backend})
    return recipe.model_copy(update={"generate": generate})
