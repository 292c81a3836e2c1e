"""Each stage with its files: what it reads, what it writes, and how it goes on after a kill.

The work itself is in the modules that the stages are named after. ``place`` is the folder, inside
the run's, that a stage's tables go to.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from augesc_builder.errors import InputError
from augesc_builder.progress import Progress
from augesc_builder.run_folder import RunFolder, shard_path
from augesc_builder.settings import Queries, Recipe, Requirements, Safety


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
    from augesc_builder.generations import Generator, n_shards, shard_of, tasks
    from augesc_builder.queries import read_queries

    size = recipe.generate.shard_size
    todo = tasks(read_queries(queries_at), recipe.generate)
    shards = n_shards(todo, size)
    missing = list(run.shards("generate", shards))
    done = len(todo) - sum(len(shard_of(todo, i, size)) for i in missing)
    tokens = 0
    generator = Generator(checkpoint, recipe) if missing else None
    with progress.bar(len(todo), "generating", "session", done=done) as bar:

        def on_step(finished: int, made: int) -> None:
            nonlocal tokens
            tokens += made
            bar.update(finished, tokens=f"{tokens:,}")

        for number in missing:
            table = generator.generate(shard_of(todo, number, size), on_step)  # type: ignore[union-attr]
            ended = Counter(table["finish_reason"].to_pylist())
            run.write_shard(
                "generate",
                number,
                shards,
                {f"{place}/generations": table},
                tokens=sum(table["n_tokens"].to_pylist()),
                finish_reasons=dict(sorted(ended.items())),
            )
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
    limits: Requirements,
    generations_at: Sequence[Path],
    place: str,
    progress: Progress,
    safety: Safety | None = None,
) -> None:
    """Split generations into sessions and rejected rows, a shard for each shard of theirs.

    Every session goes through the safety pass.
    """
    from augesc_builder.filtering import filter_generations, filter_report
    from augesc_builder.safety import flag_sessions, merge_counts, scanner_of
    from augesc_builder.sources.sessions import read_table
    from augesc_builder.tables import GENERATIONS

    shards = len(generations_at)
    scanner = scanner_of(safety.classifier if safety else None)
    with progress.bar(shards, "filtering", "shard") as bar:
        for number in run.shards("filter", shards):
            table = read_table(generations_at[number], list(GENERATIONS))
            check_generations(table, generations_at[number])
            sessions, rejected, counts = filter_generations(table, limits)
            sessions, flags = flag_sessions(sessions, scanner)
            run.write_shard(
                "filter",
                number,
                shards,
                {f"{place}/data/train": sessions, f"{place}/rejected/train": rejected},
                counts=counts,
                safety=flags,
            )
            bar.update(1)
    report = filter_report(fact["counts"] for fact in run.shard_facts("filter", shards))
    if not report["total"]:
        raise InputError("no generations to filter", generations_at[0].parent)
    run.write_json(f"{place}/filter_report.json", report)
    flags = merge_counts(fact["safety"] for fact in run.shard_facts("filter", shards))
    run.write_json(f"{place}/safety_report.json", flags)
    if flags["flagged"]:
        progress.say(
            f"  safety: {flags['flagged']:,} of {flags['sessions']:,} sessions are flagged; "
            f"`augesc safety` shows them"
        )
    rejected = report["total"] - report["retained"]
    run.complete("filter", tables={"sessions": report["retained"], "rejected": rejected})


def check_generations(table: pa.Table, path: Path) -> None:
    """Refuse a generations table with nulls, naming the row."""
    for column in ("query_id", "sample", "source", "query", "text", "n_prompt_tokens", "n_tokens"):
        if table[column].null_count:
            row = table[column].to_pylist().index(None) + 1
            raise InputError(f"column {column} is null; fill it or remove the row", path, row)


def statistics(run: RunFolder, inputs: Sequence[Path], place: str, progress: Progress) -> None:
    """Compute Table 2 for all sessions together and for each source."""
    from augesc_builder.metrics.session_statistics.session_statistics import SessionCounts
    from augesc_builder.sources.sessions import iterate_sessions

    counts: dict[str, SessionCounts] = {}
    with progress.bar(None, "counting words", "session") as bar:
        for path in inputs:
            for source, messages in iterate_sessions(path):
                counts.setdefault(source, SessionCounts()).add(messages)
                bar.update(1)
    total = SessionCounts()
    by_source = {}
    for source, part in sorted(counts.items()):
        by_source[source] = part.statistics()
        total.merge(part)
    run.write_json(f"{place}/statistics.json", {**total.statistics(), "by_source": by_source})
    run.complete("statistics")


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
