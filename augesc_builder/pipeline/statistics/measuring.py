"""The jobs of the stage, one after the other, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.errors import DamagedError, InputError
from augesc_builder.executors import Executor
from augesc_builder.pipeline.statistics.counting import Counted, Counting
from augesc_builder.pipeline.statistics.jobs import BANDS, RANGES, STAGE, Maker, PooledJob
from augesc_builder.pipeline.statistics.plan import Part, Plan
from augesc_builder.pipeline.statistics.ranges import Bands, Ranges, n_bands
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.records import Limits
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from augesc_builder.run.workers import WORTH_PROCESSES, cores


def part_of(
    name: str, files: Sequence[Path], what: Any, limits: Limits, *, beside: bool = False
) -> Part:
    """Return a set as a part of a plan; its rows are counted, and not looked at."""
    rows = tuple(count_rows(file, limits) for file in files)
    return Part(name, tuple(files), rows, what, beside)


def jobs_of(
    shards: Shards,
    plan: Plan,
    num_proc: int | None,
    say: Callable[[str], object],
    *,
    helps: bool = False,
) -> Iterator[PooledJob]:
    """Yield the jobs of a plan; each needs the shards of those before it."""

    def job(stage: str, n_shards: int, maker: Maker) -> PooledJob:
        return PooledJob(
            folder=shards.path.absolute(),
            run_id=read_manifest(shards.path)["run_id"],
            stage=stage,
            n_shards=n_shards,
            inputs=shards.inputs,
            maker=maker,
            needed=tuple(plan.here / file for part in plan.parts for file in part.files),
            num_proc=min(n_shards, wanted),
            helps=helps,
            say=say,
        )

    wanted = num_proc or (cores() if plan.n_rows > WORTH_PROCESSES else 1)
    yield job(STAGE, plan.n_shards, Counting(plan))
    if plan.keeps_rows:
        yield job(RANGES, plan.n_ranges, Ranges(plan))
    if plan.near is not None:
        yield job(BANDS, n_bands(plan) * plan.n_ranges, Bands(plan))


def measure(
    folder: RunFolder,
    plan: Plan,
    executor: Executor,
    progress: Progress,
    num_proc: int | None = None,
) -> Counted:
    """Have all sessions counted; merge what the shards were counted to, in order.

    Raises :class:`~augesc_builder.errors.InputError` for a file that cannot be read: then nothing
    that was counted is kept, as the file will be another.
    """
    counted, merged = Counted(), 0
    first, *others = jobs_of(folder, plan, num_proc, folder._say)
    if next(first.missing(), None) is not None:
        forget_shards(folder, (RANGES, BANDS))  # which were made of other shards, if there are any
    else:
        for stage in (RANGES, BANDS):
            folder.is_intact(stage)
    try:
        with progress.bar(plan.n_rows, "counting words", "session") as bar:
            for _ in executor.run(first):
                while merged < first.n_shards and first.is_done(merged):
                    counted.merge(folder, plan, merged)
                    bar.update(plan.rows_of(merged))
                    merged += 1
            for number in range(merged, first.n_shards):
                counted.merge(folder, plan, number)
                bar.update(plan.rows_of(number))
    except DamagedError:
        raise
    except InputError:
        forget_shards(folder)
        raise
    for job in others:
        what = "comparing sketches" if job.stage == BANDS else "comparing sessions"
        with progress.bar(job.n_shards, what, "range") as bar:
            for _ in executor.run(job):
                bar.update(1)
    return counted


def help_out(shards: Shards, plan: Plan, executor: Executor, progress: Progress) -> None:
    """Make what falls to this process, of several that are equal; return when all is made."""
    for job in jobs_of(shards, plan, 1, progress.say, helps=True):
        with progress.bar(job.n_shards, "counting", "shard") as bar:
            for _ in executor.run(job):
                bar.update(1)
    progress.say("  all shards of statistics are made")


def forget_shards(folder: RunFolder, stages: Sequence[str] = (STAGE, RANGES, BANDS)) -> None:
    """Remove the shards of stages, and their marks; what they were summed up to stays."""
    for stage in stages:
        for mark in folder.marks.names(stage):
            if mark != stage:
                folder.forget(mark)
