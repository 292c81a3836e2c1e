"""Stage ``select``: of the sessions that met the requirements, those that a score finds best.

Choosing is no requirement: Table 1 counts what met those, and what is not kept has a table of its
own, ``not_selected``, with its score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from augesc_builder.config.generate import Quota
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.config.select import Select
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.quality.stage import pinned_for, score
from augesc_builder.pipeline.select.choose import Candidate, Verdict, choose
from augesc_builder.readers.parquet import read_table
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new
from augesc_builder.sources.sessions import sessions_files
from augesc_builder.tables import NOT_SELECTED, SESSIONS, to_table
from augesc_builder.text.prompts import PromptTemplate

if TYPE_CHECKING:
    from augesc_builder.models.token_counter import TokenCounter
    from augesc_builder.pipeline.select.report import Scores

_NEEDED = ("session_id", "query_id", "source", "messages")
"""The columns of sessions that there is no choice without."""


class Told(NamedTuple):
    """The tables of a run; of a table of somebody's sessions the first alone.

    They are the sessions that met the requirements, what was measured of all texts, and those.
    """

    candidates: Sequence[Path]
    measured: Sequence[Path]
    generations: Sequence[Path]


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Choose among the sessions of a build that met the requirements."""
    from augesc_builder.models.token_counter import load_counter
    from augesc_builder.pipeline.filter.tokens import build_counter

    candidates = folder.use("filter", layout.CANDIDATES)
    measured = folder.use("filter", layout.MEASURED)
    generations = folder.use("generate", layout.GENERATIONS)
    folder.bring("finetune")
    checkpoint = folder.path / layout.CHECKPOINT
    counter, _ = build_counter(folder, recipe, checkpoint)
    if counter is None and checkpoint.is_dir():
        counter = load_counter(checkpoint)
    quotas = recipe.generate.quotas()
    told = Told(candidates, measured, generations)
    _select(folder, recipe, told, layout.CORPUS, quotas, counter, progress)


def standalone(
    sessions: Path,
    out: Path,
    progress: Progress,
    *,
    recipe: str = "paper",
    overrides: Sequence[str] = (),
) -> None:
    """Choose among sessions with several for a query: a run's candidates, a corpus, or a table.

    Raises :class:`~augesc_builder.errors.RecipeError` where the recipe does not say what to go by.
    """
    chosen = load_recipe(recipe, overrides)
    if chosen.select is None:
        raise RecipeError(
            "select is null: say what to go by, as --set quality.measures=[consistency] --set "
            "select.by=consistency.contradiction --set select.per_query=1"
        )
    waiting = sessions / layout.CANDIDATES
    files = parquet_files(waiting) if waiting.is_dir() else sessions_files(sessions)
    measured, generations = (
        parquet_files(sessions / place) if (sessions / place).is_dir() else []
        for place in (layout.MEASURED, layout.GENERATIONS)
    )
    values = chosen.settings()
    settings: dict[str, Any] = {
        "stage": "select",
        **{name: values[name] for name in ("select", "quality", "requirements", "seed")},
        "inputs": {"sessions": digest(files), "measured": digest(measured)},
    }
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "select", progress):
            told = Told(files, measured, generations)
            _select(folder, chosen, told, ".", (), None, progress)
    progress.say((out / layout.SELECTION_MD).read_text(encoding="utf-8"))


def _select(
    folder: RunFolder,
    recipe: Recipe,
    told: Told,
    place: str,
    quotas: Sequence[Quota],
    counter: TokenCounter | None,
    progress: Progress,
) -> None:
    """Score candidates, choose, and write both tables and the report."""
    from augesc_builder.pipeline.select.report import cost
    from augesc_builder.pipeline.select.tables import selection_markdown
    from augesc_builder.text.safety import count_flags

    settings = recipe.select
    if settings is None:
        raise ValueError("a recipe that chooses nothing has no such stage")
    files = told.candidates
    scores = _scores(folder, recipe, settings, files, progress)
    candidates = [_candidate(row, settings, scores) for row in _rows(files)]
    verdicts = choose(candidates, settings.order, settings.per_query, quotas)
    if len(verdicts) < len(candidates):
        raise InputError("holds a session_id twice; ids must tell sessions apart", files[0])
    flags: list[Any] = []
    reasons: Counter[str] = Counter()
    cuts: dict[str, dict[str, int]] = {}
    for number, file in enumerate(files):
        kept, others = [], []
        for row in _sessions(file):
            verdict = verdicts[row["session_id"]]
            if verdict.reason is not None:
                others.append({**row, **_why(verdict)})
                reasons[verdict.reason] += 1
                continue
            shorter = _cut(row, recipe, scores, counter) if settings.cut_at_drift else None
            if shorter is not None:
                n_before, n_left = len(row["messages"]), len(shorter["messages"])
                cuts[row["session_id"]] = {"utterances": n_before, "left": n_left}
            kept.append(shorter or row)
        flags += [row["safety_flags"] for row in kept]
        for name, features, rows in (
            (layout.DATA, SESSIONS, kept),
            (layout.NOT_SELECTED, NOT_SELECTED, others),
        ):
            at = layout.shard_path(f"{place}/{name}/{layout.SPLIT}", number, len(files))
            folder.write_table(at, to_table(rows, features))
    counts = {"candidates": len(candidates), "chosen": len(flags), "not_selected": dict(reasons)}
    points = cost(candidates, settings, scores, *told, recipe.seed)
    report = {
        **settings.model_dump(),
        **counts,
        "cut": {"sessions": len(cuts), "which": cuts},
        "cost": [point.report() for point in points],
    }
    folder.write_json(f"{place}/{layout.SELECTION}", report)
    folder.write_text(f"{place}/{layout.SELECTION_MD}", selection_markdown(report) + "\n")
    folder.write_json(f"{place}/{layout.SAFETY_REPORT}", count_flags(flags))
    if len(points) > 1:
        from augesc_builder.pipeline.select.figure import draw

        folder.write_folder(f"{place}/{layout.FIGURES}", partial(draw, points))
    progress.say(
        f"  {len(flags):,} sessions are chosen of {len(candidates):,} that met the requirements"
        + (f"; {len(cuts):,} of them end where their topic changed" if cuts else "")
    )
    rows_of = {"sessions": len(flags), "not_selected": sum(reasons.values())}
    folder.complete("select", tables=rows_of)


def _scores(
    folder: RunFolder,
    recipe: Recipe,
    settings: Select,
    files: Sequence[Path],
    progress: Progress,
) -> Scores:
    """Return what the measures of the recipe say of each candidate, by its id.

    Raises :class:`~augesc_builder.errors.DownloadError` where what the choice goes by cannot be
    measured here.
    """
    from augesc_builder.pipeline.quality.measure import Measuring

    quality, _ = pinned_for("select", settings.measures, folder, recipe.quality, progress)
    table = f"{layout.SCORED}/{layout.SPLIT}"
    sets = {layout.CANDIDATES: list(files)}
    facts = score(folder, Measuring(quality, strict=True), sets, "select", table, progress)
    folder.bring("select")
    return {
        row["session_id"]: {f"{n['measure']}.{n['name']}": n["value"] for n in row["numbers"]}
        for i in range(len(facts))
        for row in read_table(
            folder.path / layout.shard_path(table, i, len(facts)), ["session_id", "numbers"]
        ).to_pylist()
    }


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from read_table(file, ["session_id", "query_id", "source"]).to_pylist()


def _sessions(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a sessions table; columns that an earlier version lacked are null."""
    found = read_table(file, [*_NEEDED], optional=SESSIONS)
    rows: list[dict[str, Any]] = to_table(found.to_pylist(), SESSIONS).to_pylist()
    return rows


def _candidate(row: Mapping[str, Any], settings: Select, scores: Scores) -> Candidate:
    """Return a row as a candidate; of which sample it is, its id says."""
    key = row["session_id"]
    sample = key.rpartition("-")[2]
    number = int(sample) if sample.isdecimal() else 0
    return Candidate(key, row["query_id"], row["source"], number, settings.score(scores[key]))


def _why(verdict: Verdict) -> dict[str, Any]:
    return {
        "score": verdict.candidate.score,
        "reason": verdict.reason,
        "chosen": verdict.best.session_id,
        "chosen_score": verdict.best.score,
    }


def _cut(
    row: Mapping[str, Any], recipe: Recipe, scores: Scores, counter: TokenCounter | None
) -> dict[str, Any] | None:
    """Return a session that ends before its topic changes, where it does and what is left does."""
    from augesc_builder.pipeline.select.cut import cut

    at = scores[row["session_id"]].get("topic_drift.change_point")
    if at is None:
        return None
    template = PromptTemplate(recipe.prompt.instruction, background=True)
    return cut(row, int(at), recipe.requirements, counter, template)
