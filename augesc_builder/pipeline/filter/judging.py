"""Generations to sessions and rejected rows, shard by shard, and the reports of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from augesc_builder.errors import InputError
from augesc_builder.executors import Executor
from augesc_builder.readers.records import USUAL, BadLines, Limits
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from augesc_builder.run.workers import WORTH_PROCESSES, cores

if TYPE_CHECKING:
    from augesc_builder.pipeline.filter.filter import Filter, Filtered
    from augesc_builder.pipeline.filter.job import FilterJob


@dataclass(frozen=True)
class Asked:
    """What is to be filtered, and where it goes.

    ``sessions`` is where the sessions go that are chosen from, and not yet the corpus.
    What is measured goes to ``measured/``, row for row. ``measured`` is a folder of such tables,
    where the same generations were measured before.
    """

    judge: Filter
    files: Sequence[Path]
    place: str
    sessions: str | None = None
    limits: Limits = USUAL
    measured: Path | None = None
    num_proc: int | None = None

    def job(self, shards: Shards, progress: Progress) -> FilterJob:
        """Return the job; ``shards`` has looked up what the sessions are made from.

        Raises :class:`~augesc_builder.errors.InputError` where there is nothing to filter.
        """
        from augesc_builder.pipeline.filter.job import STAGE, FilterJob
        from augesc_builder.pipeline.filter.parts import Parts

        parts = Parts(self.files, self.limits)
        if not len(parts):
            raise InputError("no generations to filter", self.files[0])
        many = parts.n_rows > WORTH_PROCESSES
        return FilterJob(
            folder=shards.path.absolute(),
            run_id=read_manifest(shards.path)["run_id"],
            stage=STAGE,
            n_shards=len(parts),
            inputs=shards.inputs,
            judge=self.judge,
            parts=parts,
            place=self.place,
            sessions=self.sessions or f"{self.place}/{layout.DATA}",
            measured=self.measured,
            num_proc=1 if self.judge.classifier else self.num_proc or (cores() if many else 1),
            say=progress.say,
        )


def filter_files(
    folder: RunFolder,
    asked: Asked,
    executor: Executor,
    progress: Progress,
    *,
    seed: int,
    model: str = "ours",
    counted: str | None = None,
) -> None:
    """Have generations split into sessions and rejected rows, in shards of some 20,000.

    ``seed`` draws the sample of the report, whose rows are ``model``'s; ``counted`` says which text
    the tokens are of, where that is not the judge's to say.
    """
    job = asked.job(folder, progress)
    total = job.parts.n_rows
    done = total - sum(map(job.parts.n_rows_of, job.missing()))
    with progress.bar(total, "judging", "text", done=done) as bar:
        n_kept = n_judged = 0

        def see(n: int, judged: int, kept: int) -> None:
            nonlocal n_kept, n_judged
            n_kept, n_judged = n_kept + kept, n_judged + judged
            bar.update(n, kept=n_kept, judged=n_judged)

        def watch(part: Filtered) -> None:
            see(len(part), len(part), len(part.sessions))

        for number in executor.run(replace(job, watch=watch)):
            if not executor.alone:
                rows = folder.shard_fact(job.stage, number)["rows"]
                n_rows = job.parts.n_rows_of(number)
                see(n_rows, n_rows, rows[f"{job.sessions}/{layout.SPLIT}"])
    folder.settle()
    _report(folder, asked, job, progress, seed=seed, model=model, counted=counted)


def filter_share(shards: Shards, asked: Asked, executor: Executor, progress: Progress) -> None:
    """Judge what falls to this process, of several that are equal; return when all is judged."""
    job = asked.job(shards, progress)
    done = len(job.parts) - sum(1 for _ in job.missing())
    with progress.bar(len(job.parts), "judging", "shard", done=done) as bar:
        for _ in executor.run(job):
            bar.update(1)
    progress.say(f"  all {len(job.parts):,} shards of {job.stage} are made")


def _report(
    folder: RunFolder,
    asked: Asked,
    job: FilterJob,
    progress: Progress,
    *,
    seed: int,
    model: str,
    counted: str | None,
) -> None:
    """Add up what the shards' marks say, one after the other, and write the reports."""
    from augesc_builder.pipeline.filter.report import filter_report, filter_table, merge
    from augesc_builder.pipeline.filter.requirements import active
    from augesc_builder.pipeline.filter.sampled import sampled
    from augesc_builder.text.safety import merge_counts

    counts: Mapping[str, Mapping[str, int]] = {}
    flags, bad = merge_counts(()), BadLines()
    for number in range(job.n_shards):
        fact = folder.shard_fact(job.stage, number)
        counts = merge([counts, fact["counts"]])
        flags = merge_counts([flags, fact["safety"]])
        if "bad_lines" in fact:  # runs of before have none
            bad.merge(BadLines(**fact["bad_lines"]))
    limits, place = job.judge.limits, asked.place
    report = filter_report([counts], [requirement.name for requirement in active(limits)])
    report["bad_lines"] = bad.report()
    report["counted"] = counted or job.judge.counted
    folder.bring("filter")
    written = (folder.path / f"{layout.MEASURED}/{layout.SPLIT}").parent
    report["samples"] = sampled(parquet_files(written), report["by_source"], limits, seed)
    folder.write_json(f"{place}/{layout.FILTER_REPORT}", report)
    folder.write_text(f"{place}/{layout.FILTER_TABLE}", filter_table(report, model) + "\n")
    folder.write_json(f"{asked.sessions or place}/{layout.SAFETY_REPORT}", flags)
    bad.say(progress.say)
    if flags["flagged"]:
        progress.say(
            f"  safety: {flags['flagged']:,} of {flags['sessions']:,} sessions are flagged; "
            f"`augesc safety` shows them"
        )
    kept = "sessions" if asked.sessions is None else "candidates"
    rejected = report["total"] - report["retained"]
    folder.complete(job.stage, tables={kept: report["retained"], "rejected": rejected})
