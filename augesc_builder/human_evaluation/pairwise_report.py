"""An interactive study as tables for people: Table 4, strengths of many systems, judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from augesc_builder import paper
from augesc_builder.human_evaluation.pairwise import outcome
from augesc_builder.human_evaluation.power import SIGN_LEVEL
from augesc_builder.human_evaluation.quality import CALIBRATED
from augesc_builder.human_evaluation.quality_report import UNCALIBRATED, p_text, shown
from augesc_builder.run.document import Table
from augesc_builder.run.markdown import NOTHING

Found = Mapping[str, Any]
"""What :func:`~augesc_builder.human_evaluation.pairwise.measure` returns."""

Escape = Callable[[str], str]

_HEADER = ["win", "tie", "lose", "p", "win rate"]


def tables(found: Found, *, with_paper: bool = False) -> Iterator[Table]:
    """Yield the tables of a report, the paper's Table 4 behind the first if it is wanted."""
    for comparison in found["comparisons"]:
        yield _outcomes(comparison, found["questions"])
    if with_paper:
        yield _paper()
    if found["strengths"]:
        yield _strengths(found)
    for judge, of in found["judges"].items():
        for comparison in of["comparisons"]:
            if comparison["outcomes"]:
                yield _outcomes(comparison, found["questions"], judge)
        yield _judge(found, judge)


def papers_counts() -> dict[str, tuple[int, int, int]]:
    """Return wins, ties and losses of the paper's Table 4, which are per cent of all pairs."""
    found = {}
    for question, shares in paper.TABLE_4.items():
        wins, losses = (round(share * paper.TABLE_4_PAIRS / 100) for share in shares)
        found[question] = (wins, paper.TABLE_4_PAIRS - wins - losses, losses)
    return found


def _outcomes(
    comparison: Mapping[str, Any], questions: Mapping[str, str], judge: str | None = None
) -> Table:
    rows = [_row(questions[q], of) for q, of in comparison["outcomes"].items()]
    title = "Preferences (Table 4)" if judge is None else "Preferences of a judge"

    def note(escape: Escape) -> str:
        who = "" if judge is None else f"By the model {escape(judge)}, beside people. "
        first, second = escape(comparison["first"]), escape(comparison["second"])
        return f"{who}{first} against {second}. {_HOW}"

    return Table(title, ["", *_HEADER], rows, note)


_HOW = (
    "In per cent of all answers, and how many. p: the exact two-sided sign test, without ties; a "
    f"star: below {SIGN_LEVEL:g}, of two: below 0.01. Win rate: of decided pairs, with the 95% "
    "interval of the Beta-binomial model from a uniform prior."
)

_CERTAIN = 0.01


def _row(title: str, of: Mapping[str, Any]) -> list[str]:
    counts = [of[key] for key in ("wins", "ties", "losses")]
    n, p = sum(counts), of["p"]
    stars = "" if p is None or p >= SIGN_LEVEL else " *" if p >= _CERTAIN else " **"
    shares = [f"{100 * count / n:.0f}% ({count})" if n else NOTHING for count in counts]
    return [title, *shares, f"{p_text(p)}{stars}", shown(of["rate"])]


def _paper() -> Table:
    rows = [
        _row(question.capitalize(), outcome(*counts))
        for question, counts in papers_counts().items()
    ]
    return Table(
        "The paper's preferences (Table 4)",
        ["", *_HEADER],
        rows,
        lambda _: (
            "The model that was also trained on AugESC against that of ESConv alone: counts from "
            f"the printed per cent of {paper.TABLE_4_PAIRS} pairs, tests and intervals from them."
        ),
    )


def _strengths(found: Found) -> Table:
    rows = [
        [name, *(shown(of[name], form="+.2f") for of in found["strengths"].values())]
        for name in found["systems"]
    ]
    return Table(
        "Strengths of systems",
        ["", *(found["questions"][question] for question in found["strengths"])],
        rows,
        lambda _: (
            "By the model of Bradley and Terry, as logarithms of odds that sum to 0: of two "
            "systems that differ by 1 the stronger wins 73 of 100 decided pairs. A tie is half a "
            "win of both. In brackets: 95% intervals. "
            f"{NOTHING}: some systems won or lost everything against the others."
        ),
    )


def _judge(found: Found, judge: str) -> Table:
    beside = found["judges"][judge]["beside_people"]
    rows = []
    for question, title in found["questions"].items():
        of = beside[question]
        state = "" if of["shared"] >= CALIBRATED else UNCALIBRATED
        rows.append(
            [
                *(title, str(of["shared"])),
                *(_share(of, who) for who in ("judge", "people")),
                state,
            ]
        )
    return Table(
        "A judge beside people",
        ["", "pairs shared", "with people", "people with people", ""],
        rows,
        lambda escape: (
            f"How often the model {escape(judge)} and people gave the same answer on a pair, and "
            f"people among themselves, each with its kappa. {UNCALIBRATED}: people answered on "
            f"fewer than {CALIBRATED} of the same pairs, so that its preferences are not shown."
        ),
    )


def _share(of: Mapping[str, Any], who: str) -> str:
    share, kappa = of[who], of[f"{who}_kappa"]
    if share is None:
        return NOTHING
    return f"{share:.2f}" if kappa is None else f"{share:.2f} ({kappa:.2f})"
