"""Each stage with its files: what it reads, what it writes, and how it goes on after a kill.

The work itself is in the modules that the stages are named after. ``place`` is the folder, inside
the run's, that a stage's tables go to.
"""

from __future__ import annotations

import textwrap
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from augesc_builder.errors import CheckpointError, InputError
from augesc_builder.progress import Progress
from augesc_builder.run_folder import RunFolder, shard_path
from augesc_builder.settings import Queries, Recipe
from augesc_builder.workers import cores, in_order

if TYPE_CHECKING:
    from augesc_builder.filtering import Filter
    from augesc_builder.measuring import Counts, Measuring
    from augesc_builder.sources.pieces import Piece


def queries(
    run: RunFolder, settings: Queries, place: str, progress: Progress, num_proc: int = 1
) -> None:
    """Judge the posts of every source: queries to one table, the others with reasons to another."""
    from augesc_builder.funnel import funnel_table
    from augesc_builder.queries import Collected, collect_queries
    from augesc_builder.tables import QUERIES, REJECTED_POSTS, plain_schema, to_table

    collected = Collected({}, {})
    with (
        run.table_writer(shard_path(f"{place}/queries", 0, 1), plain_schema(QUERIES)) as keep,
        run.table_writer(f"{place}/rejected.parquet", plain_schema(REJECTED_POSTS)) as drop,
        progress.bar(None, "judging", "post") as bar,
    ):
        for kept, dropped in collect_queries(settings, collected, num_proc=num_proc):
            keep(to_table(kept, QUERIES))
            drop(to_table(dropped, REJECTED_POSTS))
            bar.update(len(kept) + len(dropped))
    report = {source: funnel.report() for source, funnel in collected.funnels.items()}
    run.write_json(f"{place}/queries_report.json", report)
    progress.say(textwrap.indent(funnel_table(report), "  "))
    for funnel in collected.funnels.values():
        for example in funnel.bad_examples[:3]:
            progress.say(f"  unreadable: {example}")
    run.add(revisions=collected.revisions)
    counts = {
        "queries": sum(part["queries"] for part in report.values()),
        "rejected_posts": sum(part["rejected"] for part in report.values()),
    }
    run.complete("queries", tables=counts, report=report)


def finetune(run: RunFolder, recipe: Recipe, place: str, progress: Progress) -> None:
    """Fine-tune the backbone; the checkpoint appears whole or not at all."""
    from augesc_builder.finetune import finetune as train
    from augesc_builder.sources.sessions import read_training_sessions

    recipe = pin_backbone(run, recipe)
    known = run.manifest.get("revisions", {})
    sessions, commit = read_training_sessions(
        recipe.finetune.sessions, known.get("sessions", recipe.finetune.revision)
    )
    if commit is not None:
        run.add(revisions={"sessions": commit})
    facts = train(
        recipe,
        sessions,
        out=lambda fill: run.write_folder(place, fill),
        state=run.work("finetune"),
        progress=progress,
    )
    progress.say(
        f"  {facts['steps']} steps on {len(facts['sessions'])} sessions; loss a token "
        f"{facts['first_loss']} at first, {facts['last_epoch_loss']} in the last epoch"
    )
    run.complete("finetune", **facts)


def generate(
    run: RunFolder,
    recipe: Recipe,
    queries_at: Sequence[Path],
    checkpoint: Path,
    place: str,
    progress: Progress,
) -> None:
    """Generate conversations, shard by shard; finished shards are never made again."""
    from augesc_builder import generation_workers as workers
    from augesc_builder.generations import Place, Row, n_shards, shard_of, tasks
    from augesc_builder.live import LiveLine
    from augesc_builder.queries import read_queries
    from augesc_builder.tables import GENERATIONS, to_table

    size = recipe.generate.shard_size
    todo = tasks(read_queries(queries_at), recipe.generate)
    shards = n_shards(todo, size)
    missing = [(number, shard_of(todo, number, size)) for number in run.shards("generate", shards)]
    n_missing = sum(len(some) for _, some in missing)
    with LiveLine(progress, recipe.requirements, len(todo), len(todo) - n_missing) as line:
        rows: Iterator[tuple[Place, Row]] = iter(())
        if missing:
            n = workers.n_workers(recipe, checkpoint, n_missing, len(missing))
            # Another number of slots may round otherwise: a run keeps the one it began with.
            known = run.manifest.get("generate", {}).get("slots")
            slots = known or workers.n_slots(recipe, checkpoint, n)
            run.add(generate={"slots": slots})
            rows = workers.generate(checkpoint, recipe, slots, missing, line.step, n)
        unfinished = {number: dict.fromkeys(range(len(some))) for number, some in missing}
        for at, row in rows:
            line.row(row)
            if row["finish_reason"] == "not_finite":
                progress.say(
                    f"  query {row['query_id']}, sample {row['sample']}: the model's logits are no "
                    f"numbers; its row is empty"
                )
            shard: dict[int, Any] = unfinished[at.shard]
            shard[at.row] = row
            if None in shard.values():
                continue
            table = to_table(shard.values(), GENERATIONS)
            ended = Counter(table["finish_reason"].to_pylist())
            if set(ended) == {"not_finite"}:
                raise CheckpointError(
                    "the model's logits are no numbers, whatever the query; try "
                    "--set generate.dtype=float32, or train again"
                )
            run.write_shard(
                "generate",
                at.shard,
                shards,
                {f"{place}/generations": table},
                tokens=sum(table["n_tokens"].to_pylist()),
                finish_reasons=dict(sorted(ended.items())),
            )
            del unfinished[at.shard]
    facts = run.shard_facts("generate", shards)
    reasons: Counter[str] = Counter()
    for fact in facts:
        reasons.update(fact["finish_reasons"])
    total = sum(fact["tokens"] for fact in facts)
    ends = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    progress.say(f"  {len(todo):,} conversations, {total:,} tokens; ended by: {ends}")
    run.complete(
        "generate",
        tables={"generations": len(todo)},
        tokens=total,
        finish_reasons=dict(reasons),
    )


def filter_(
    run: RunFolder,
    judge: Filter,
    files: Sequence[Path],
    place: str,
    progress: Progress,
    *,
    num_proc: int | None = None,
    measured: Path | None = None,
    model: str = "ours",
) -> None:
    """Split generations into sessions and rejected rows, in shards of some 20,000.

    What is measured goes to ``measured/``, row for row. ``measured`` is a folder of such tables,
    where the same generations were measured before. ``model`` names the rows of the report.
    """
    from augesc_builder.filtering import filter_report, merge
    from augesc_builder.report import filter_table
    from augesc_builder.safety import merge_counts
    from augesc_builder.sources.generations import read_generations, shards_of
    from augesc_builder.sources.pieces import count_rows

    shards = shards_of([count_rows(file) for file in files])
    if not shards:
        raise InputError("no generations to filter", files[0])
    missing = set(run.shards("filter", len(shards)))
    total = sum(rows for _, rows in shards)
    numbers = (number for number, (pieces, _) in enumerate(shards) for _ in range(pieces))
    pieces = (p for n, p in zip(numbers, read_generations(files), strict=True) if n in missing)
    work: Iterator[Any] = pieces if measured is None else _beside(pieces, measured, shards, missing)
    results = in_order(
        judge.piece if measured is None else judge.again,
        work,
        1 if judge.classifier else num_proc or (cores() if total > _WORTH_PROCESSES else 1),
        preload="augesc_builder.filtering",
    )
    done = sum(rows for number, (_, rows) in enumerate(shards) if number not in missing)
    with progress.bar(total, "judging", "text", done=done) as bar:
        for number in sorted(missing):
            parts = []
            for part in islice(results, shards[number][0]):
                parts.append(part)
                bar.update(len(part))
            tables = {
                f"{place}/data/train": [part.sessions for part in parts],
                f"{place}/rejected/train": [part.rejected for part in parts],
                f"{MEASURED}/train": [part.measured for part in parts],
            }
            run.write_shard(
                "filter",
                number,
                len(shards),
                {name: pa.concat_tables(found) for name, found in tables.items()},
                counts=merge(part.counts for part in parts),
                safety=merge_counts(part.flags for part in parts),
            )
    facts = run.shard_facts("filter", len(shards))
    report = filter_report(fact["counts"] for fact in facts)
    run.write_json(f"{place}/filter_report.json", report)
    run.write_text(f"{place}/filter_report.md", filter_table(report, model) + "\n")
    flags = merge_counts(fact["safety"] for fact in facts)
    run.write_json(f"{place}/safety_report.json", flags)
    if flags["flagged"]:
        progress.say(
            f"  safety: {flags['flagged']:,} of {flags['sessions']:,} sessions are flagged; "
            f"`augesc safety` shows them"
        )
    rejected = report["total"] - report["retained"]
    run.complete("filter", tables={"sessions": report["retained"], "rejected": rejected})


MEASURED = "measured"
"""The folder of a run that holds what was measured of its generations."""

_WORTH_PROCESSES = 4000
"""Rows from which several processes are worth their start."""


def _beside(
    pieces: Iterator[Piece], measured: Path, shards: Sequence[tuple[int, int]], wanted: set[int]
) -> Iterator[tuple[Piece, pa.Table]]:
    """Put the rows that were measured of each piece beside it."""
    from augesc_builder.sources.tables import read_table
    from augesc_builder.tables import MEASURED as COLUMNS

    for number in sorted(wanted):
        name = shard_path("train", number, len(shards))
        table, start = read_table(measured / name, list(COLUMNS)), 0
        for piece in islice(pieces, shards[number][0]):
            yield piece, table.slice(start, len(piece.rows)).combine_chunks()
            start += len(piece.rows)


def finetuned_on(run: RunFolder, recipe: Recipe) -> tuple[str, ...]:
    """Give the utterances that the backbone was fine-tuned on, as the finetune stage drew them."""
    from augesc_builder.examples import sample_sessions
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.sources.sessions import read_training_sessions

    known = run.manifest.get("revisions", {}).get("sessions", recipe.finetune.revision)
    sessions, _ = read_training_sessions(recipe.finetune.sessions, known)
    chosen = sample_sessions(sessions, recipe.finetune.n_sessions, recipe.seed)
    return utterances_of(session.messages for session in chosen)


def statistics(
    run: RunFolder,
    sets: Mapping[str, Sequence[Path]],
    what: Measuring,
    place: str,
    progress: Progress,
    *,
    num_proc: int | None = None,
) -> None:
    """Measure sets of sessions, each source of a set apart, and draw the figures."""
    from augesc_builder.measuring import Counts, statistics
    from augesc_builder.sources.pieces import count_rows
    from augesc_builder.sources.sessions import sessions_pieces

    total = sum(count_rows(file) for files in sets.values() for file in files)
    under_way: deque[tuple[str, int]] = deque()

    def pieces() -> Iterator[Piece]:
        for name, files in sets.items():
            for piece in sessions_pieces(list(files)):
                under_way.append((name, len(piece.rows)))
                yield piece

    counted: dict[tuple[str, str], Counts] = {}
    num_proc = num_proc or (cores() if total > _WORTH_PROCESSES else 1)
    with progress.bar(total, "counting words", "session") as bar:
        for found in in_order(what.piece, pieces(), num_proc, preload="augesc_builder.measuring"):
            name, n = under_way.popleft()
            for source, counts in found.items():
                counted.setdefault((name, source), Counts(what)).merge(counts)
            bar.update(n)
    found_json = statistics(_columns(counted, list(sets)), what)
    run.write_json(f"{place}/statistics.json", found_json)
    if not what.basic:
        from augesc_builder.figures import draw

        run.write_folder(f"{place}/figures", lambda folder: draw(found_json, folder))
    run.complete("statistics")


def _columns(counted: Mapping[tuple[str, str], Counts], sets: Sequence[str]) -> dict[str, Counts]:
    """Name the columns: by set, and by source where a set has several or stands alone."""
    named = {}
    for name in sets:
        sources = sorted(source for of, source in counted if of == name)
        for source in sources:
            column = (
                source if len(sets) == 1 else name if len(sources) == 1 else f"{name}: {source}"
            )
            named[column] = counted[name, source]
    return named


def card(run: RunFolder, place: str) -> None:
    """Write the dataset card from the run's own files."""
    from augesc_builder.card import render_card

    run.write_text(f"{place}/README.md", render_card(run.path, run.path / place, run.manifest))
    run.complete("card")


def table_files(path: Path, name: str) -> list[Path]:
    """Find the Parquet files of a table: a file, the shards of that name in a folder, or all."""
    files = [path]
    if path.is_dir():
        files = sorted(path.glob(f"{name}-*.parquet")) or sorted(path.glob("*.parquet"))
    if not files:
        raise InputError("no Parquet files there", path)
    return files


def pin_backbone(run: RunFolder, recipe: Recipe) -> Recipe:
    """Resolve a branch of the backbone on the Hub to a commit, once for the whole run."""
    from augesc_builder.hub import resolve_model

    origin = recipe.backbone
    if origin.name is None or Path(origin.name).exists():
        return recipe
    known = run.manifest.get("revisions", {}).get("backbone")
    commit = known or resolve_model(origin.name, origin.revision)
    run.add(revisions={"backbone": commit})
    pinned = origin.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"backbone": pinned})
