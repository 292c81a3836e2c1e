"""``augesc study report``: what a study found, as tables, figures and numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import pairwise, pairwise_report, quality, quality_report
from augesc_builder.human_evaluation.annotators import HASTY_SECONDS
from augesc_builder.human_evaluation.form import Form
from augesc_builder.human_evaluation.quality import TESTS, UNITS, Column, Settings
from augesc_builder.human_evaluation.records import Preference, Rating
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run import layout
from augesc_builder.run.document import Table, latex_document, markdown_document
from augesc_builder.run.escape import for_markdown
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import is_new, load_json


def report(
    study: Study,
    out: Path | None,
    progress: Progress,
    *,
    with_paper: bool = False,
    **given: Any,
) -> None:
    """Report what people answered in a study until now; print the tables.

    With ``out``, tables, figures and all numbers are written there. What is ``given`` are fields of
    :class:`~augesc_builder.human_evaluation.quality.Settings`.

    Raises :class:`~augesc_builder.errors.StudyError` for settings that a study of its kind does not
    have and for a reference that is no set, or system, of it, and
    :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    settings = _settings(study, given)
    with Store.open(study) as store:
        is_quality = study.settings.kind == "quality"
        answers: list[Rating] | list[Preference] = (
            list(store.ratings()) if is_quality else list(store.preferences())
        )
        checks = store.checks()

    def measured() -> dict[str, Any]:
        about = {"about": _about(study, answers), "kind": study.settings.kind, "paper": with_paper}
        return about | _measured(study, answers, checks, settings)

    if out is None:
        with progress.working("report"):
            found = measured()
        progress.say(markdown(found))
        return
    keys = {
        "stage": "report",
        "study": study.settings.name,
        "answers": _digest(answers),
        "paper": with_paper,
        **asdict(settings),
    }
    with RunFolder(out, keys, progress) as folder:
        if is_new(folder, "report", progress):
            from augesc_builder.human_evaluation import figures

            found = measured()
            draw = figures.draw_quality if is_quality else figures.draw_pairwise
            folder.write_json(layout.STUDY_REPORT, found)
            folder.write_text(layout.STUDY_REPORT_MD, markdown(found) + "\n")
            folder.write_text(layout.STUDY_REPORT_TEX, latex(found) + "\n")
            folder.write_folder(layout.FIGURES, lambda into: draw(found, into))
            folder.complete("report")
    progress.say(markdown(load_json(out / layout.STUDY_REPORT)))
    progress.say(f"\nTables, figures and all numbers are in {out}.")


def _settings(study: Study, given: Mapping[str, Any]) -> Settings:
    if study.settings.kind != "quality" and (others := sorted(given.keys() - {"reference"})):
        raise StudyError(
            f"{', '.join(others)}: of quality studies alone; an interactive study is reported with "
            f"the exact sign test"
        )
    for key, known in {"test": TESTS, "unit": UNITS}.items():
        if given.get(key, known[0]) not in known:
            raise StudyError(f"{key} {given[key]!r:.60}: expected one of {', '.join(known)}")
    return Settings(**{"hasty": study.settings.min_seconds or HASTY_SECONDS, **given})


def markdown(found: Mapping[str, Any]) -> str:
    """Write a report in Markdown that is legible on a terminal too."""
    about = "\n".join(for_markdown(line) for line in found["about"])
    return f"{about}\n\n{markdown_document(_tables(found))}"


def latex(found: Mapping[str, Any]) -> str:
    """Write the tables of a report in LaTeX."""
    return latex_document(_tables(found))


def _tables(found: Mapping[str, Any]) -> Iterator[Table]:
    if found["kind"] == "quality":
        return quality_report.tables(found, with_paper=found["paper"])
    return pairwise_report.tables(found, with_paper=found["paper"])


def columns_of(form: Form) -> list[Column]:
    """Return the questions of a form as columns."""
    return [
        Column(
            question.name,
            question.title,
            less_is_better=question.less_is_better,
            is_tested=question.tested,
        )
        for question in form.questions
    ]


def _measured(
    study: Study,
    answers: list[Rating] | list[Preference],
    checks: Mapping[str, tuple[int, int]],
    settings: Settings,
) -> dict[str, Any]:
    ratings = [answer for answer in answers if isinstance(answer, Rating)]
    if study.settings.kind == "quality":
        return quality.measure(ratings, columns_of(study.form), settings, study.sets, checks)
    preferences = [answer for answer in answers if isinstance(answer, Preference)]
    questions = {question.name: question.title for question in study.form.questions}
    return pairwise.measure(preferences, questions, study.sets, settings.reference)


def _about(study: Study, answers: list[Rating] | list[Preference]) -> list[str]:
    """Say in lines what study this is, how far it is, and what changed since it was created."""
    people = [answer for answer in answers if not answer.is_judge]
    done = {
        (a.session, a.annotator) if isinstance(a, Rating) else (a.pair, a.participant)
        for a in people
    }
    planned = sum(len(place.items) for place in study.places)
    by = len({person for _, person in done})
    what = "sessions rated" if study.settings.kind == "quality" else "pairs of conversations"
    said = [
        f"{study.settings.name}: {len(done):,} of {planned:,} {what} (each counted as often as it "
        f"is asked), by {by:,} {'person' if by == 1 else 'people'}."
    ]
    return said + study.changed_corpora()


def _digest(answers: Iterable[Rating | Preference]) -> str:
    lines = sorted(repr(answer) for answer in answers)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()[:16]
