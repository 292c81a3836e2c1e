"""Stage ``statistics``: sets of sessions become ``statistics.json`` and figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import InputError
from augesc_builder.pipeline.inputs import sessions_by
from augesc_builder.pipeline.statistics.report import (
    figure_4_text,
    statistics_table,
    topics_text,
)
from augesc_builder.readers.records import USUAL, BadLines, Limits
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json
from augesc_builder.run.workers import WORTH_PROCESSES, cores, ordered_map
from augesc_builder.sources.base import limits_of

if TYPE_CHECKING:
    from augesc_builder.pipeline.statistics.measure import Counts, Measuring
    from augesc_builder.pipeline.statistics.sets import Sets
    from augesc_builder.readers.chunks import Chunk


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Measure the corpus of a build, and what stands beside it.

    Figure 3 is of the generations, as the paper's: "before any filtering".
    """
    from augesc_builder.pipeline.finetune.stage import finetuned_on
    from augesc_builder.pipeline.statistics.measure import BESIDE, Counts, merged, statistics
    from augesc_builder.pipeline.statistics.sets import queries_before_filtering, sets_beside

    what = _measuring(recipe, trained_on=finetuned_on(folder.manifest, recipe), strict=True)
    sessions = folder.use(sessions_by(recipe), f"{layout.CORPUS}/{layout.DATA}")
    corpus = {layout.CORPUS: sessions}
    columns = _columns(_count(corpus, what, progress)[0], list(corpus))
    measured = folder.use("filter", layout.MEASURED)
    before = queries_before_filtering(
        measured, what.query_sample, what.seed, with_query=what.count_query
    )
    for source in sorted(before):
        columns.setdefault(source, Counts(what)).parts["query_effect"] = before[source]
    commit = folder.manifest.get("revisions", {}).get("sessions", recipe.finetune.revision)
    sets, set_beside = sets_beside(recipe, commit, columns), replace(what, names=BESIDE)
    counted, _, _ = _count(sets, set_beside, progress)
    beside = {
        name: merged((part for (of, _), part in counted.items() if of == name), set_beside)
        for name in sets
    }
    found = statistics(columns, what, beside)
    found["settings"]["before_filtering"] = True
    _write(folder, layout.CORPUS, found, draw=True)


def standalone(
    given: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    with_paper: bool,
    overrides: Sequence[str] = (),
    finetuned_on: Path | None = None,
    near_duplicates: bool = False,
    basic: bool = False,
    num_proc: int | None = None,
) -> None:
    """Measure each of the sets ``given`` (``PATH`` or ``NAME=PATH``), and print Table 2.

    Sets may be generations and rejected rows: those of their texts that are conversations.
    ``overrides`` are of the paper's recipe: ``seed`` and the keys of ``statistics``.

    Raises :class:`~augesc_builder.errors.InputError` for a file that holds no sessions, and
    :class:`~augesc_builder.errors.RecipeError` for a wrong override.
    """
    from augesc_builder.metrics.duplication.counts import DEFAULT
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.pipeline.statistics.measure import TABLE_2, statistics
    from augesc_builder.pipeline.statistics.sets import given_sets
    from augesc_builder.sources.esconv import read_esconv

    recipe = load_recipe("paper", overrides)
    sets = given_sets(given)
    near = DEFAULT if near_duplicates else None
    trained_on = None
    settings: dict[str, Any] = {
        "stage": "statistics",
        "sessions": {name: digest(files) for name, files in sets.items()},
        "basic": basic,
        "near_duplicates": near and near.model_dump(mode="json"),
        "seed": recipe.seed,
        "statistics": recipe.statistics.model_dump(mode="json"),
        **recipe.reading.unusual(),
    }
    if finetuned_on is not None:
        trained_on = utterances_of(s.messages for s in read_esconv(finetuned_on))
        settings["finetuned_on"] = digest([finetuned_on])
    what = _measuring(recipe, trained_on=trained_on)
    what = replace(what, near=near, names=(TABLE_2,) if basic else what.names)
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "statistics", progress):
            limits = limits_of(recipe.reading)
            counted, unread, bad = _count(sets, what, progress, num_proc, limits)
            found = statistics(_columns(counted, list(sets)), what)
            left_out = {"not_conversations": unread, "bad_lines": bad.report()}
            _write(folder, ".", {**found, **left_out}, draw=not basic)
    found = load_json(out / layout.STATISTICS)
    progress.say(statistics_table(found, with_paper=with_paper))
    if found["not_conversations"]:
        progress.say(
            f"\n{found['not_conversations']:,} texts are no conversations and are left out."
        )
    if found["topic_correlates"] is not None:
        progress.say(f"\nFigure 4: {topics_text(found)}.")
    if (as_printed := figure_4_text(found)) is not None:
        progress.say(f"Of the paper's figure 4, {as_printed}.")
    if not basic:
        progress.say(
            f"\nAll numbers are in {out / layout.STATISTICS}, figures in {out / layout.FIGURES}."
        )


def _measuring(
    recipe: Recipe, trained_on: tuple[str, ...] | None, *, strict: bool = False
) -> Measuring:
    from augesc_builder.metrics.topic_correlates.priors import Prior
    from augesc_builder.pipeline.statistics.measure import Measuring

    settings = recipe.statistics
    return Measuring(
        trained_on=trained_on,
        strict=strict,
        seed=recipe.seed,
        query_sample=settings.query_sample,
        count_query=settings.count_query,
        topic_sample=settings.topic_sample,
        keep_stop_words=settings.stop_words == "keep",
        prior=Prior.parse(settings.prior),
    )


def _count(
    sets: Sets,
    what: Measuring,
    progress: Progress,
    num_proc: int | None = None,
    limits: Limits = USUAL,
) -> tuple[dict[tuple[str, str], Counts], int, BadLines]:
    """Count the sessions of each set and source.

    Tell how many texts are no conversations, and which rows could not be read.
    """
    from augesc_builder.pipeline.statistics.measure import Counts
    from augesc_builder.readers.chunks import count_rows
    from augesc_builder.sources.sessions import session_chunks

    total = sum(count_rows(file, limits) for files in sets.values() for file in files)
    under_way: deque[tuple[str, int]] = deque()

    def chunks() -> Iterator[Chunk]:
        for name, files in sets.items():
            for chunk in session_chunks(files, limits=limits):
                under_way.append((name, len(chunk.rows)))
                yield chunk

    counted: dict[tuple[str, str], Counts] = {}
    unread, bad = 0, BadLines()
    num_proc = num_proc or (cores() if total > WORTH_PROCESSES else 1)
    preload = "augesc_builder.pipeline.statistics.measure"
    with progress.bar(total, "counting words", "session") as bar:
        for found in ordered_map(what.chunk, chunks(), num_proc, preload=preload):
            name, n = under_way.popleft()
            bad.merge(found.bad)
            for source, counts in found.counts.items():
                counted.setdefault((name, source), Counts(what)).merge(counts)
            unread += found.unread
            bar.update(n)
    if bad.count and not counted:
        raise InputError(f"no session in it that can be read; {bad.examples[0]}", next(iter(sets)))
    bad.say(progress.say)
    return counted, unread, bad


def _write(folder: RunFolder, place: str, found: Mapping[str, Any], *, draw: bool) -> None:
    folder.write_json(f"{place}/{layout.STATISTICS}", found)
    if draw:
        from augesc_builder.pipeline.statistics import figures

        folder.write_folder(f"{place}/{layout.FIGURES}", lambda into: figures.draw(found, into))
    folder.complete("statistics")


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
