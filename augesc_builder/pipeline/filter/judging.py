"""Generations to sessions and rejected rows, shard by shard, and the reports of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.parquet import read_table
from augesc_builder.readers.records import USUAL, BadLines, Limits, merged
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.workers import WORTH_PROCESSES, cores, ordered_map
from augesc_builder.sources.generations import read_generations, shards_of

if TYPE_CHECKING:
    import pyarrow as pa

    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.readers.chunks import Chunk


def filter_files(
    folder: RunFolder,
    judge: Filter,
    files: Sequence[Path],
    place: str,
    progress: Progress,
    *,
    num_proc: int | None = None,
    measured: Path | None = None,
    limits: Limits = USUAL,
    sessions: str | None = None,
    seed: int,
    model: str = "ours",
    counted: str | None = None,
) -> None:
    """Split generations into sessions and rejected rows, in shards of some 20,000.

    ``sessions`` is where the sessions go that are chosen from, and not yet the corpus.
    What is measured goes to ``measured/``, row for row. ``measured`` is a folder of such tables,
    where the same generations were measured before, and ``counted`` says which text their tokens
    are of. ``seed`` draws the sample of the report, whose rows are ``model``'s.
    """
    import pyarrow as pa

    from augesc_builder.pipeline.filter.report import filter_report, filter_table, merge
    from augesc_builder.pipeline.filter.requirements import active
    from augesc_builder.pipeline.filter.sampled import sampled
    from augesc_builder.text.safety import merge_counts

    shards = shards_of([count_rows(file, limits) for file in files])
    if not shards:
        raise InputError("no generations to filter", files[0])
    missing = set(folder.shards("filter", len(shards)))
    total = sum(rows for _, rows in shards)
    numbers = (number for number, (chunks, _) in enumerate(shards) for _ in range(chunks))
    chunks = (
        p for n, p in zip(numbers, read_generations(files, limits), strict=True) if n in missing
    )
    work: Iterator[Any] = (
        chunks if measured is None else _beside(chunks, measured, shards, missing, judge)
    )
    results = ordered_map(
        judge.chunk if measured is None else judge.refilter,
        work,
        1 if judge.classifier else num_proc or (cores() if total > WORTH_PROCESSES else 1),
        preload="augesc_builder.pipeline.filter.filter",
    )
    done = sum(rows for number, (_, rows) in enumerate(shards) if number not in missing)
    n_kept = n_judged = 0
    with progress.bar(total, "judging", "text", done=done) as bar:
        for number in sorted(missing):
            parts = []
            for part in islice(results, shards[number][0]):
                parts.append(part)
                n_kept += len(part.sessions)
                n_judged += len(part)
                bar.update(len(part), kept=n_kept, judged=n_judged)
            bad = merged(part.bad for part in parts)
            if not number and not any(len(part.measured) for part in parts):
                raise InputError(
                    f"none of the first {bad.count:,} rows can be read; {bad.examples[0]}", files[0]
                )
            tables = {
                f"{sessions or f'{place}/{layout.DATA}'}/{layout.SPLIT}": [
                    part.sessions for part in parts
                ],
                f"{place}/{layout.REJECTED}/{layout.SPLIT}": [part.rejected for part in parts],
                f"{layout.MEASURED}/{layout.SPLIT}": [part.measured for part in parts],
            }
            folder.write_shard(
                "filter",
                number,
                len(shards),
                {name: pa.concat_tables(found) for name, found in tables.items()},
                counts=merge(part.counts for part in parts),
                safety=merge_counts(part.flags for part in parts),
                bad_lines=bad.report(),
            )
    facts = folder.shard_facts("filter", len(shards))
    names = [requirement.name for requirement in active(judge.limits)]
    report = filter_report((fact["counts"] for fact in facts), names)
    bad = merged(BadLines(**fact["bad_lines"]) for fact in facts if "bad_lines" in fact)
    report["bad_lines"] = bad.report()
    report["counted"] = counted or judge.counted
    written = (folder.path / f"{layout.MEASURED}/{layout.SPLIT}").parent
    report["samples"] = sampled(parquet_files(written), report["by_source"], judge.limits, seed)
    folder.write_json(f"{place}/{layout.FILTER_REPORT}", report)
    folder.write_text(f"{place}/{layout.FILTER_TABLE}", filter_table(report, model) + "\n")
    flags = merge_counts(fact["safety"] for fact in facts)
    folder.write_json(f"{sessions or place}/{layout.SAFETY_REPORT}", flags)
    bad.say(progress.say)
    if flags["flagged"]:
        progress.say(
            f"  safety: {flags['flagged']:,} of {flags['sessions']:,} sessions are flagged; "
            f"`augesc safety` shows them"
        )
    rejected = report["total"] - report["retained"]
    kept = "sessions" if sessions is None else "candidates"
    folder.complete("filter", tables={kept: report["retained"], "rejected": rejected})


def _beside(
    chunks: Iterator[Chunk],
    measured: Path,
    shards: Sequence[tuple[int, int]],
    wanted: set[int],
    judge: Filter,
) -> Iterator[tuple[Chunk, pa.Table]]:
    """Put the rows that were measured of each chunk beside it."""
    from augesc_builder.pipeline.filter.filter import measured_schema

    columns = measured_schema(judge.limits).names
    for number in sorted(wanted):
        name = layout.shard_path(layout.SPLIT, number, len(shards))
        table, start = read_table(measured / name, columns), 0
        whole = table.num_rows == shards[number][1]
        for chunk in islice(chunks, shards[number][0]):
            n_rows = len(chunk.rows) if whole else judge.n_good(chunk)
            yield chunk, table.slice(start, n_rows).combine_chunks()
            start += n_rows
