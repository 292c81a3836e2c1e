"""How the owner of a run has its conversations made: all by an executor, or until enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.executors import executor_of
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.job import STAGE, GenerateJob, Watch
from augesc_builder.pipeline.generate.lanes import lanes_of
from augesc_builder.pipeline.generate.making import Making
from augesc_builder.pipeline.generate.order import Order
from augesc_builder.pipeline.generate.progress import LiveLine
from augesc_builder.pipeline.generate.tasks import Row, read_queries, with_personas
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from augesc_builder.run.workers import ended_by_scheduler
from augesc_builder.sources.personas import read_personas


@dataclass
class Made:
    """What is there now: the numbers of the shards, sessions kept, and what the texts took."""

    shards: Collection[int]
    n_kept: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def make_all(
    folder: RunFolder,
    recipe: Recipe,
    queries: Sequence[Path],
    checkpoint: Path,
    table: str,
    progress: Progress,
) -> Made:
    """Have every sample of every query made, by the executor of the recipe."""
    order = Order(queries, recipe.generate, checked=True)
    n_missing = sum(map(order.n_rows, folder.shards(STAGE, order.n_shards)))
    limits, done = recipe.requirements, order.n_tasks - n_missing
    executor = executor_of(recipe.executor)
    with LiveLine(progress, limits, order.n_tasks, done) as line:
        watch = _Shown(folder, line, progress)
        job = job_of(folder, recipe, queries, checkpoint, table, order, n_missing, watch)
        for number in executor.run(job):
            if not executor.alone:
                line.step(order.n_rows(number), folder.shard_fact(STAGE, number)["tokens"], None)
        if not executor.alone:
            watch.begun(folder.agreed(STAGE) or folder.manifest.get(STAGE, {}))
            watch.ended(backend_of(recipe)(recipe, checkpoint, folder.path).facts())
    return Made(range(order.n_shards), facts=watch.facts)


def make_share(
    shards: Shards,
    recipe: Recipe,
    queries: Sequence[Path],
    checkpoint: Path,
    table: str,
    progress: Progress,
) -> None:
    """Make what falls to this process, of several that are equal; return when all is made."""
    order = Order(queries, recipe.generate, checked=False)
    watch = _Said(progress)
    job = job_of(shards, recipe, queries, checkpoint, table, order, order.n_tasks, watch)
    done = order.n_shards - sum(1 for _ in job.missing())
    with (
        ended_by_scheduler(),
        progress.bar(order.n_shards, "generating", "shard", done=done) as bar,
    ):
        for _ in executor_of(recipe.executor).run(job):
            bar.update(1)
    progress.say(f"  all {order.n_shards:,} shards of conversations are made")


def job_of(
    shards: Shards,
    recipe: Recipe,
    queries: Sequence[Path],
    checkpoint: Path,
    table: str,
    order: Order,
    n_missing: int,
    watch: Watch,
) -> GenerateJob:
    """Return the job of a run; ``shards`` has looked up what its rows are made from."""
    return GenerateJob(
        folder=shards.path.absolute(),
        run_id=read_manifest(shards.path)["run_id"],
        stage=STAGE,
        recipe=recipe,
        checkpoint=checkpoint.absolute(),
        queries=tuple(path.absolute() for path in queries),
        table=table,
        inputs=shards.inputs,
        n_shards=order.n_shards,
        n_tasks=n_missing,
        watch=watch,
        say=watch.say,
    )


def make_enough(
    folder: RunFolder,
    recipe: Recipe,
    queries: Sequence[Path],
    checkpoint: Path,
    table: str,
    progress: Progress,
) -> Made:
    """Make candidates until as many are kept as ``generate.keep`` says: in this process."""
    making = Making(folder, recipe, checkpoint, table, progress)
    lanes = lanes_of(read_queries(queries), recipe)
    if recipe.prompt.personas is not None:
        bank = read_personas(recipe.prompt.personas)
        for lane in lanes:
            lane.tasks = with_personas(lane.tasks, bank, recipe.seed)
    for lane in lanes:
        making.make(lane)
    shards = {shard for lane in lanes for shard in lane.written}
    return Made(shards, sum(lane.n_kept for lane in lanes), making.facts)


class _Said(Watch):
    """Prints what a worker in this process has to say."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def say(self, text: str) -> None:
        """Print a line."""
        self._progress.say(text)


class _Shown(_Said):
    """Shows what a worker in this process does, and keeps what it chose."""

    def __init__(self, folder: RunFolder, line: LiveLine, progress: Progress) -> None:
        super().__init__(progress)
        self._folder, self._line = folder, line
        self.facts: Mapping[str, Any] = {}

    def step(self, ended: int, made: int, utilisation: float | None) -> None:
        """Show what a step brought."""
        self._line.step(ended, made, utilisation)

    def row(self, row: Row) -> None:
        """Let it be judged, when there is time."""
        self._line.row(row)

    def begun(self, facts: Mapping[str, Any]) -> None:
        """Keep it in the manifest; a line of it is shown."""
        self._folder.add(generate=facts)
        if "choice" in facts:
            self._progress.say(f"  {facts['choice']}")

    def ended(self, facts: Mapping[str, Any]) -> None:
        """Keep what the texts took."""
        self.facts = facts
