"""Stage ``queries``: posts become triggers; the others keep the rules that rejected them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from augesc_builder.config.queries import Queries, QuerySource
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.inputs import input_digests
from augesc_builder.readers.hub import is_on_the_hub
from augesc_builder.readers.records import USUAL, Limits
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import files_below, is_new
from augesc_builder.run.workers import cores
from augesc_builder.sources.base import limits_of

_LARGE = 32 << 20
"""Bytes of dumps from which several processes are worth their start."""


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Collect the triggers of a build."""
    num_proc = worker_processes(recipe.queries)
    _collect(
        folder,
        recipe.queries,
        layout.QUERIES,
        progress,
        num_proc,
        limits_of(recipe.reading),
    )


def standalone(
    recipe: Recipe,
    sources: Sequence[str],
    out: Path,
    progress: Progress,
    num_proc: int | None = None,
) -> None:
    """Collect triggers from ``NAME=PATH`` sources, or from the recipe's, into ``out``.

    Raises :class:`~augesc_builder.errors.InputError` for a source that gives no query at all.
    """
    settings = recipe.queries
    if sources:
        settings = settings.model_copy(update={"sources": [_source(text) for text in sources]})
    recipe = recipe.model_copy(update={"queries": settings})
    digests = {k: v for k, v in input_digests(recipe).items() if k.startswith("queries")}
    run_settings = {
        "stage": "queries",
        "queries": settings.model_dump(mode="json"),
        **recipe.reading.unusual(),
        **digests,
    }
    with RunFolder(out, run_settings, progress) as folder:
        if is_new(folder, "queries", progress):
            num_proc = num_proc or worker_processes(settings)
            _collect(folder, settings, ".", progress, num_proc, limits_of(recipe.reading))


def worker_processes(settings: Queries) -> int:
    """Return how many processes judge posts: one a core, where there is a dump worth it."""
    sizes = [
        file.stat().st_size
        for origin in settings.sources
        if origin.path is not None and not is_on_the_hub(origin.path)
        for file in files_below(Path(origin.path))
        if file.is_file()
    ]
    return cores() if sum(sizes) > _LARGE else 1


def _collect(
    folder: RunFolder,
    settings: Queries,
    place: str,
    progress: Progress,
    num_proc: int,
    limits: Limits = USUAL,
) -> None:
    """Judge the posts of every source: queries to one table, the others with reasons to another."""
    from augesc_builder.pipeline.queries.collect import Collected, collect_queries
    from augesc_builder.pipeline.queries.report import funnel_table
    from augesc_builder.tables import QUERIES, REJECTED_POSTS, plain_schema, to_table

    collected = Collected({}, {})
    shard = layout.shard_path(f"{place}/{layout.QUERIES}", 0, 1)
    with (
        folder.table_writer(shard, plain_schema(QUERIES)) as keep,
        folder.table_writer(
            f"{place}/{layout.REJECTED_POSTS}", plain_schema(REJECTED_POSTS)
        ) as drop,
        progress.bar(None, "judging", "post") as bar,
    ):
        n_kept = 0
        for kept, dropped in collect_queries(settings, collected, limits=limits, num_proc=num_proc):
            keep(to_table(kept, QUERIES))
            drop(to_table(dropped, REJECTED_POSTS))
            n_kept += len(kept)
            bar.update(len(kept) + len(dropped), kept=n_kept)
    report = {source: funnel.report() for source, funnel in collected.funnels.items()}
    folder.write_json(f"{place}/{layout.QUERIES_REPORT}", report)
    progress.say(textwrap.indent(funnel_table(report), "  "))
    for funnel in collected.funnels.values():
        funnel.bad.say(progress.say)
    folder.add(revisions=collected.revisions)
    counts = {
        "queries": sum(part["queries"] for part in report.values()),
        "rejected_posts": sum(part["rejected"] for part in report.values()),
    }
    folder.complete("queries", tables=counts, report=report)


def _source(text: str) -> QuerySource:
    name, equals, path = text.partition("=")
    if not name or (equals and not path):
        raise RecipeError(f"--source {text}: expected NAME or NAME=PATH")
    return QuerySource(source=name, path=path or None)
