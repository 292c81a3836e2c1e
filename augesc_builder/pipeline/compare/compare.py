"""``augesc compare``: finished runs beside each other, as tables, figures and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.errors import InputError
from augesc_builder.pipeline.compare.alike import check_alike
from augesc_builder.pipeline.compare.report import latex, markdown
from augesc_builder.pipeline.compare.runs import Run, find_runs
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.marks import checked
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json

if TYPE_CHECKING:
    from augesc_builder.metrics.intervals import Estimate
    from augesc_builder.pipeline.compare.measure import Measured

DIVERSITY_SESSIONS = 2_000
"""Sessions of each run, at most, that distinct n-grams are counted on: of all runs as many, since
a larger set is always less diverse."""


def compare(
    given: Sequence[str],
    out: Path | None,
    progress: Progress,
    *,
    with_paper: bool = False,
    source: str | None = None,
    finetuned_on: Path | None = None,
    resamples: int = 2_000,
    seed: int = 13,
    num_proc: int | None = None,
) -> None:
    """Compare the runs ``given`` (``RUN`` or ``NAME=RUN``) with the first; print the tables.

    With ``out``, tables, figures and all numbers are written there. ``source`` takes the texts of
    one source of queries alone; ``finetuned_on`` are sessions that memorization is measured on, in
    the place of each run's own.

    Raises :class:`~augesc_builder.errors.InputError` where runs cannot be compared, and
    :class:`~augesc_builder.errors.RunFolderError` for what is no finished run.
    """
    runs = find_runs(given)
    check_alike(runs)
    settings = {
        "stage": "compare",
        "runs": {run.name: run.digest() for run in runs},
        "paper": with_paper,
        "source": source,
        "resamples": resamples,
        "seed": seed,
        **({"finetuned_on": digest([finetuned_on])} if finetuned_on is not None else {}),
    }

    def measured() -> dict[str, Any]:
        return _compare(runs, settings, progress, finetuned_on, num_proc)

    if out is None:
        with progress.working("compare"):
            found = measured()
        progress.say(markdown(found))
        return
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "compare", progress):
            from augesc_builder.pipeline.compare import figures

            found = measured()
            folder.write_json(layout.COMPARISON, found)
            folder.write_text(layout.COMPARISON_MD, markdown(found) + "\n")
            folder.write_text(layout.COMPARISON_TEX, latex(found) + "\n")
            folder.write_folder(layout.FIGURES, lambda into: figures.draw(found, into))
            folder.complete("compare")
    progress.say(markdown(load_json(out / layout.COMPARISON)))
    progress.say(f"\nTables, figures and all numbers are in {out}.")


def _compare(
    runs: Sequence[Run],
    settings: dict[str, Any],
    progress: Progress,
    finetuned_on: Path | None,
    num_proc: int | None,
) -> dict[str, Any]:
    """Return ``comparison.json``."""
    from augesc_builder.metrics.vendi.counts import SESSIONS as VENDI_SESSIONS
    from augesc_builder.pipeline.compare import measure
    from augesc_builder.pipeline.compare.numbers import estimate, estimate_diversity, ratios

    source, seed = settings["source"], settings["seed"]
    continued = [measure.query_ids(run, source) for run in runs]
    for run, of in zip(runs, continued, strict=True):
        if not of:
            there = ", ".join(sorted(measure.sources(run))) or "none"
            raise InputError(f"no text of source {source}; found {there}", run.folder)
    queries = {key: i for i, key in enumerate(sorted(set().union(*continued)))}
    everything = [measure.Measured(measure.Sums(queries)) for _ in runs]
    orders = [measure.drawn_first(run, source, seed) for run in runs]
    size = min([DIVERSITY_SESSIONS, *(len(order) for order in orders if order)])
    spread_size = min(size, VENDI_SESSIONS)
    alike = _measured_alike(runs, progress)
    for run, measured, order in zip(runs, everything, orders, strict=True):
        trained_on = _trained_on(run, finetuned_on, progress)
        drawn, spread = frozenset(order[:size]), frozenset(order[:spread_size])
        look = measure.Look(source, drawn, spread, trained_on)
        measure.texts(run, measured.sums, source)
        measure.quality(run, measured.sums, alike[run.name], source)
        measure.sessions(run, measured, queries, look, progress, num_proc)
    sums = [measured.sums for measured in everything]
    compared = ratios(_requirements(runs[0]), sums)
    values, differences = estimate(sums, compared, settings["resamples"], seed)
    diverse_values, diverse_differences = estimate_diversity(everything)
    told = zip(
        *(runs, everything, continued),
        *(values, diverse_values, differences, diverse_differences),
        strict=True,
    )
    return {
        "settings": settings,
        "reference": runs[0].name,
        "queries": len(queries),
        "diversity_sessions": size,
        "vendi_sessions": spread_size,
        "compared": {key: asdict(ratio) for key, ratio in compared.items()},
        "runs": {
            run.name: {
                **_about(run, measured, is_whole=source is None),
                "sources": sorted(measure.sources(run)),
                "queries": len(of),
                "queries_of_reference": len(of & continued[0]),
                "numbers": _plain({**value, **diverse}),
                "differences": _plain({**less, **diverse_less}),
                "table_2": measured.counts.statistics(),
            }
            for run, measured, of, value, diverse, less, diverse_less in told
        },
    }


def _trained_on(run: Run, finetuned_on: Path | None, progress: Progress) -> tuple[str, ...] | None:
    """Return the utterances that a run may have memorized; why they are not known is said."""
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.sources.esconv import read_esconv

    if finetuned_on is not None:
        return utterances_of(session.messages for session in read_esconv(finetuned_on))
    found = run.trained_on()
    if isinstance(found, str):
        progress.say(f"{run.name}: what is memorized is not known: {found}")
        return None
    return found


def _measured_alike(runs: Sequence[Run], progress: Progress) -> dict[str, list[str]]:
    """Return the measures of quality that each run took as the first that took them did."""
    from augesc_builder.pipeline.compare.measure import quality_measures

    first: dict[str, tuple[str, Any]] = {}
    alike: dict[str, list[str]] = {}
    for run in runs:
        for name, settings in quality_measures(run).items():
            reference, expected = first.setdefault(name, (run.name, settings))
            if settings == expected:
                alike.setdefault(run.name, []).append(name)
            else:
                progress.say(
                    f"{run.name}: {name} was measured with other settings than in {reference}, and "
                    f"is left out; `augesc quality` measures both alike"
                )
    return {run.name: alike.get(run.name, []) for run in runs}


def _requirements(run: Run) -> list[str]:
    """Return the requirements that judged a run, those of plugins that are not here among them."""
    checked(run.corpus / layout.FILTER_REPORT)
    return list(layout.load_report(run.corpus, "filter")["violations"])


def _about(run: Run, measured: Measured, *, is_whole: bool) -> dict[str, Any]:
    """Return what a run's folder tells of it; seconds and money are known of all texts alone."""
    return {
        "recipe": run.recipe,
        "backend": run.backend,
        "model": run.model,
        "tokens_counted_by": run.counter.label,
        "texts": round(measured.sums["texts"].sum()),
        "kept": round(measured.sums["kept"].sum()),
        "seconds": run.seconds if is_whole else None,
        "seconds_finetuning": run.seconds_finetuning if is_whole else None,
        "money": run.money if is_whole else None,
    }


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {key: asdict(one) for key, one in estimates.items()}
