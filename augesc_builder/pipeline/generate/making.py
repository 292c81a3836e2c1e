"""Rows become shards up to the one that makes enough: the candidates of a lane."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.models.backbone import place_of
from augesc_builder.models.token_counter import load_counter
from augesc_builder.pipeline.filter.filter import Filter
from augesc_builder.pipeline.filter.overlap import with_tests_at_hand
from augesc_builder.pipeline.filter.tokens import build_counter
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.job import shard_facts
from augesc_builder.pipeline.generate.lanes import STAGE, Lane
from augesc_builder.pipeline.generate.progress import LiveLine
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.readers.parquet import read_table
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.tables import GENERATIONS, to_table
from augesc_builder.text.prompts import PromptTemplate


class Making:
    """Makes what is missing of lanes, in the run's folder, as the table at a path below it."""

    def __init__(
        self, folder: RunFolder, recipe: Recipe, checkpoint: Path, table: str, progress: Progress
    ) -> None:
        self.folder, self.recipe, self.checkpoint = folder, recipe, checkpoint
        self.table, self.progress = table, progress
        self.facts: Mapping[str, Any] = {}
        """What the texts took, by the backend, once a lane is made."""

    def make(self, lane: Lane) -> None:
        """Generate what is missing of a lane, up to its end.

        Raises :class:`~augesc_builder.errors.BudgetError` where all its candidates are not enough.
        """
        missing = lane.resume(self.folder)
        rows: dict[int, dict[int, Row]] = {number: {} for number in missing}
        tasks = [task for task in lane.tasks if task.shard in rows]
        with (
            self._line(lane) as line,
            closing(backend_of(self.recipe)(self.recipe, self.checkpoint, self.folder.path)) as at,
        ):
            for task, row in self._stream(at, tasks, len(missing), line.step):
                shard = rows[task.shard]
                shard[task.row] = row
                failed = self._failed(row)
                line.judged(not failed, lane.note(task, failed))
                if len(shard) == lane.shards[task.shard]:
                    self._write(lane, task.shard, rows.pop(task.shard))
                if lane.end is not None:
                    break
            self.facts = at.facts()
        self._end(lane, rows)

    def _end(self, lane: Lane, unfinished: Mapping[int, Mapping[int, Row]]) -> None:
        """Cut the last shard at the lane's end: it may be unfinished, or hold more than is needed.

        Shards beyond that are left to whoever knows all lanes.
        """
        if lane.end is None:
            raise lane.spent()
        for number in lane.written:
            n = lane.needed(number)
            if not self.folder.has_shard(STAGE, number):
                self._write(lane, number, {row: unfinished[number][row] for row in range(n)})
            elif len(self.folder.shard_fact(STAGE, number)["violations"]) > n:
                self.folder.bring(STAGE, number)
                at = self.folder.path / layout.shard_path(self.table, number, None)
                found = read_table(at, [], optional=GENERATIONS).slice(0, n).to_pylist()
                self._write(lane, number, dict(enumerate(found)))

    def _stream(
        self, at: Backend, tasks: Sequence[Task], n_shards: int, on_step: OnStep
    ) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row, in any order."""
        if not tasks:
            return
        begun = at.prepare(self.folder.manifest.get("generate", {}), len(tasks), n_shards)
        self.folder.add(generate=begun)
        if "choice" in begun:
            self.progress.say(f"  {begun['choice']}")
        found = at.stream(tasks, on_step)
        try:
            for task, row in found:
                if row["finish_reason"] == "not_finite":
                    self.progress.say(
                        f"  query {row['query_id']}, sample {row['sample']}: non-finite logits; "
                        f"its row is empty"
                    )
                yield task, row
        finally:
            if isinstance(found, Generator):
                found.close()  # now: what is under way is not waited for

    def _write(self, lane: Lane, number: int, rows: Mapping[int, Row]) -> None:
        """Write a shard of a lane, rows by their numbers from 0 on."""
        table = to_table((rows[row] for row in sorted(rows)), GENERATIONS)
        self.folder.replace_shard(
            STAGE,
            number,
            None,
            {self.table: table},
            **shard_facts(table, self.recipe, is_whole=len(rows) == lane.shards[number]),
            violations=lane.failed(number, len(rows)),
        )

    def _line(self, lane: Lane) -> LiveLine:
        """Return the line to show: over the sessions that are to be kept."""
        keep, limits = lane.quota.keep, self.recipe.requirements
        return LiveLine(self.progress, limits, keep, lane.n_kept, counts_kept=True)

    def _failed(self, row: Row) -> list[str]:
        """Return the requirements that a row fails, as the filter stage will find."""
        has_counts = None not in (row["n_tokens"], row["n_prompt_tokens"])
        judge = self._judge if has_counts else self._counting_judge
        return judge.violations(to_table([row], GENERATIONS))[0]

    @cached_property
    def _judge(self) -> Filter:
        counter, recount = build_counter(self.folder, self.recipe, self.checkpoint)
        return Filter(
            with_tests_at_hand(self.folder, self.recipe),
            template=PromptTemplate(self.recipe.prompt.instruction, background=True),
            counter=counter,
            recount=recount,
            strict=True,
        )

    @cached_property
    def _counting_judge(self) -> Filter:
        """Return the same with the backbone's tokenizer, where nothing else counts tokens."""
        backbone = self.recipe.backbone
        if self._judge.counter is not None or backbone.name is None:
            return self._judge
        counter = load_counter(place_of(backbone), backbone.revision)
        return replace(self._judge, counter=counter)
