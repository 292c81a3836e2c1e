"""Stage ``statistics``: sets of sessions become ``statistics.json`` and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.executor import Executor
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import InputError
from augesc_builder.executors import executor_of
from augesc_builder.pipeline.inputs import sessions_by
from augesc_builder.pipeline.statistics.report import (
    figure_4_text,
    overlap_tables,
    statistics_table,
    topics_text,
)
from augesc_builder.readers.records import USUAL
from augesc_builder.run import layout
from augesc_builder.run.draft import join_or_begin
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json
from augesc_builder.sources.base import limits_of

if TYPE_CHECKING:
    from augesc_builder.metrics.overlap.counts import Said
    from augesc_builder.metrics.query_effect.counts import QueryCounts
    from augesc_builder.pipeline.statistics.counting import Counted
    from augesc_builder.pipeline.statistics.jobs import Column
    from augesc_builder.pipeline.statistics.measure import Counts, Measuring
    from augesc_builder.pipeline.statistics.plan import Plan
    from augesc_builder.pipeline.statistics.sets import Sets


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Measure the corpus of a build, and what stands beside it.

    Figure 3 is of the generations, as the paper's: "before any filtering".
    """
    from augesc_builder.pipeline.finetune.stage import finetuned_on
    from augesc_builder.pipeline.statistics.measure import BESIDE
    from augesc_builder.pipeline.statistics.measuring import forget_shards, measure, part_of
    from augesc_builder.pipeline.statistics.plan import Plan
    from augesc_builder.pipeline.statistics.sets import (
        queries_before_filtering,
        sets_beside,
        sets_tested_on,
    )

    what = replace(
        _measuring(recipe, trained_on=finetuned_on(folder.manifest, recipe), strict=True),
        tested_on=_tested_on(sets_tested_on(folder, recipe)),
    )
    sessions = folder.use(sessions_by(recipe), f"{layout.CORPUS}/{layout.DATA}")
    measured = folder.use("filter", layout.MEASURED)
    before = queries_before_filtering(
        measured, what.query_sample, what.seed, with_query=what.count_query
    )
    commit = folder.manifest.get("revisions", {}).get("sessions", recipe.finetune.revision)
    beside = replace(what, names=BESIDE)
    sets = sets_beside(recipe, commit, before)  # the sources of all that was generated
    plan = Plan(
        (
            part_of(layout.CORPUS, sessions, what, USUAL),
            *(part_of(name, files, beside, USUAL, beside=True) for name, files in sets.items()),
        )
    )
    # The array of a Slurm run has ended by now: its last job sums up.
    executor = executor_of(recipe.executor, by_array=False)
    counted = measure(folder, plan, executor, progress)
    found = _found(folder, plan, counted, what, before)
    found["settings"]["before_filtering"] = True
    _write(folder, layout.CORPUS, found, draw=True)
    forget_shards(folder)


def standalone(
    given: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    with_paper: bool,
    overrides: Sequence[str] = (),
    finetuned_on: Path | None = None,
    tested_on: Sequence[str] = (),
    near_duplicates: bool = False,
    basic: bool = False,
    num_proc: int | None = None,
    executor: Executor | None = None,
) -> None:
    """Measure each of the sets ``given`` (``PATH`` or ``NAME=PATH``), and print Table 2.

    Sets may be generations and rejected rows: those of their texts that are conversations.
    ``overrides`` are of the paper's recipe: ``seed`` and the keys of ``statistics``. ``tested_on``
    names test sessions as ``given`` does sets, or the source whose they are. ``executor`` says who
    makes the shards: by default this machine; an element of an array helps with another's run.

    Raises :class:`~augesc_builder.errors.InputError` for a file that holds no sessions, and
    :class:`~augesc_builder.errors.RecipeError` for a wrong override.
    """
    from augesc_builder.metrics.duplication.counts import DEFAULT
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.pipeline.statistics.measure import TABLE_2
    from augesc_builder.pipeline.statistics.measuring import (
        forget_shards,
        help_out,
        measure,
        part_of,
    )
    from augesc_builder.pipeline.statistics.plan import Plan
    from augesc_builder.pipeline.statistics.sets import given_sets, given_tests
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
    tests = given_tests(tested_on)
    if tests:
        settings["tested_on"] = {name: digest(files) for name, files in tests.items()}
    what = replace(
        _measuring(recipe, trained_on=trained_on), near=near, tested_on=_tested_on(tests)
    )
    what = replace(what, names=(TABLE_2,) if basic else what.names)
    limits = limits_of(recipe.reading)
    chosen = executor_of(executor or Executor(type="local"))

    def plan() -> Plan:
        return Plan(tuple(part_of(n, f, what, limits) for n, f in sets.items()), limits)

    if chosen.joins:
        shards = join_or_begin(out, settings, progress.say)
        help_out(shards, plan(), chosen, progress)
        return
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "statistics", progress):
            chosen.check()
            planned = plan()
            counted = measure(folder, planned, chosen, progress, num_proc)
            bad = counted.bad
            if bad.count and not counted.columns:
                forget_shards(folder)
                message = f"no session in it that can be read; {bad.examples[0]}"
                raise InputError(message, next(iter(sets)))
            bad.say(progress.say)
            left_out = {"not_conversations": counted.unread, "bad_lines": bad.report()}
            found = {**_found(folder, planned, counted, what), **left_out}
            _write(folder, ".", found, draw=not basic)
        forget_shards(folder)
    _show(out, progress, with_paper=with_paper, basic=basic)


def _show(out: Path, progress: Progress, *, with_paper: bool, basic: bool) -> None:
    """Print Table 2, and where the rest is."""
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
    for table in overlap_tables(found):
        progress.say(f"\n{table}")
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


def _tested_on(sets: Sets) -> dict[str, tuple[Said, ...]]:
    from augesc_builder.metrics.overlap.counts import said_in
    from augesc_builder.sources.sessions import read_messages

    return {name: said_in(read_messages(files)) for name, files in sets.items()}


def _found(
    folder: RunFolder,
    plan: Plan,
    counted: Counted,
    what: Measuring,
    before: Mapping[str, QueryCounts] | None = None,
) -> dict[str, Any]:
    """Sum up what was counted, as ``statistics.json`` has it.

    ``before`` are the queries of each source before filtering, which replace those of its sessions.
    """
    from augesc_builder.pipeline.statistics.measure import Counts, in_all, merged, statistics
    from augesc_builder.pipeline.statistics.ranges import settle

    beside = {number: part.name for number, part in enumerate(plan.parts) if part.beside}
    main = {column: n for column, n in counted.columns.items() if column[0] not in beside}
    columns = _columns(main, plan)
    for source in sorted(before or {}):
        columns.setdefault(source, Counts(what)).parts["query_effect"] = (before or {})[source]
    together = in_all(columns, what)
    compared = {}
    scopes = [(counts, [column]) for column, counts in main.items()]
    if together not in main.values():
        scopes.append((together, list(main)))
    for number, name in beside.items():
        of = [column for column in counted.columns if column[0] == number]
        parts = (counted.columns[column] for column in of)
        compared[name] = merged(parts, plan.parts[number].what)
        scopes.append((compared[name], of))
    if plan.keeps_rows:
        settle(folder, plan, scopes)
    return statistics(columns, what, compared, together)


def _write(folder: RunFolder, place: str, found: Mapping[str, Any], *, draw: bool) -> None:
    folder.write_json(f"{place}/{layout.STATISTICS}", found)
    if draw:
        from augesc_builder.pipeline.statistics import figures

        folder.write_folder(f"{place}/{layout.FIGURES}", lambda into: figures.draw(found, into))
    folder.complete("statistics")


def _columns(counted: Mapping[Column, Counts], plan: Plan) -> dict[str, Counts]:
    """Name the columns: by set, and by source where a set has several or stands alone."""
    named = {}
    sets = [number for number, part in enumerate(plan.parts) if not part.beside]
    for number in sets:
        name = plan.parts[number].name
        sources = sorted(source for of, source in counted if of == number)
        for source in sources:
            column = (
                source if len(sets) == 1 else name if len(sources) == 1 else f"{name}: {source}"
            )
            named[column] = counted[number, source]
    return named
