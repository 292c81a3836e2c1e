"""The numbers of an interactive study (section 7): wins, ties, losses, and what they tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from augesc_builder.errors import MissingExtraError, StudyError, install_extra
from augesc_builder.evaluation.significance import scipy_stats, sign_test
from augesc_builder.human_evaluation.agreement import fleiss_kappa
from augesc_builder.human_evaluation.quality import CALIBRATED
from augesc_builder.human_evaluation.records import Preference
from augesc_builder.metrics.intervals import NORMAL_95, Estimate, Numbers

_TWO = 2


def measure(
    preferences: Iterable[Preference],
    questions: Mapping[str, str],
    systems: Sequence[str] = (),
    reference: str | None = None,
) -> dict[str, Any]:
    """Return all numbers of a report, as JSON holds them.

    ``questions`` are titles by name. ``systems`` are in the order of the study; a win is one of the
    first of two against the second, and against the ``reference`` where one is named. Raises
    :class:`~augesc_builder.errors.StudyError` where it is no system of the study.
    """
    given = _last(preferences)
    names = list(dict.fromkeys([*systems, *(name for p in given for name in p.systems)]))
    if reference is not None:
        if reference not in names:
            raise StudyError(
                f"no system {reference!r} in this study; there are {', '.join(names) or 'none'}"
            )
        names = [*(name for name in names if name != reference), reference]
    people = [p for p in given if not p.is_judge]
    judges = sorted({p.participant for p in given if p.is_judge})
    return {
        "questions": dict(questions),
        "systems": names,
        "pairs": len({p.pair for p in people}),
        "people": len({p.participant for p in people}),
        "comparisons": _comparisons(people, questions, names),
        "strengths": {
            question: strengths([p for p in people if p.question == question], names)
            for question in questions
        }
        if len(names) > _TWO
        else {},
        "judges": {
            judge: _judge([p for p in given if p.participant == judge], people, questions, names)
            for judge in judges
        },
    }


def outcome(wins: int, ties: int, losses: int) -> dict[str, Any]:
    """Return counts with the sign test's p, and the win rate among decided pairs.

    The rate's interval is that of the Beta-binomial model: 95% of the posterior, in equal tails,
    from a uniform prior. Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    decided = wins + losses
    low, high = scipy_stats().beta.ppf([0.025, 0.975], 1 + wins, 1 + losses)
    rate = Estimate(wins / decided, float(low), float(high)) if decided else Estimate(None)
    return {
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "p": sign_test(wins, losses) if decided else None,
        "rate": asdict(rate),
    }


def _last(preferences: Iterable[Preference]) -> list[Preference]:
    """Return the last preference of each participant on each pair and question."""
    return list({(p.participant, p.pair, p.question): p for p in preferences}.values())


def _comparisons(
    preferences: Sequence[Preference], questions: Iterable[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the outcomes of every two systems that were compared; of two, whether or not."""
    found = []
    for first, second in combinations(names, 2):
        of_both = [p for p in preferences if set(p.systems) == {first, second}]
        if of_both or len(names) == _TWO:
            outcomes = {}
            for question in questions:
                won = Counter(p.winner for p in of_both if p.question == question)
                outcomes[question] = outcome(won[first], won[None], won[second])
            found.append({"first": first, "second": second, "outcomes": outcomes})
    return found


# -- more than two systems ------------------------------------------------------------------------


def strengths(preferences: Sequence[Preference], names: Sequence[str]) -> dict[str, Any]:
    """Return the strength of each system in the model of Bradley and Terry (1952).

    Strengths are logarithms of odds and sum to 0; a tie is half a win of both. They are undefined
    where some systems won, or lost, everything against the others: they would be infinite.
    Intervals are by the Fisher information. Raises
    :class:`~augesc_builder.errors.MissingExtraError` without choix.
    """
    try:
        import choix
    except ImportError:
        raise MissingExtraError(
            f"strengths of more than two systems need choix: {install_extra('app')}"
        ) from None
    place = {name: i for i, name in enumerate(names)}
    won = np.zeros((len(names), len(names)))
    for preference in preferences:
        first, second = (place[name] for name in preference.systems)
        if preference.winner is None:
            won[first, second] += 0.5
            won[second, first] += 0.5
        else:
            winner = place[preference.winner]
            won[winner, first + second - winner] += 1
    if not _is_connected(won):
        return {name: asdict(Estimate(None)) for name in names}
    values = choix.ilsr_pairwise_dense(won, max_iter=_ITERATIONS)
    values = values - values.mean()
    spread = NORMAL_95 * np.sqrt(np.diag(np.linalg.pinv(_information(won, values))))
    return {
        name: asdict(Estimate(float(value), float(value - s), float(value + s)))
        for name, value, s in zip(names, values, spread, strict=True)
    }


_ITERATIONS = 10_000


def _is_connected(won: Numbers) -> bool:
    """Whether a chain of wins leads from every system to every other (Ford 1957)."""
    reached = np.linalg.matrix_power((won > 0) + np.eye(len(won)), max(1, len(won)))
    return bool((reached > 0).all())


def _information(won: Numbers, values: Numbers) -> Numbers:
    chance = 1 / (1 + np.exp(values - values[:, None]))
    found: Numbers = -(won + won.T) * chance * chance.T
    np.fill_diagonal(found, 0)
    return found - np.diag(found.sum(1))


# -- judges ---------------------------------------------------------------------------------------


def _judge(
    given: Sequence[Preference],
    people: Sequence[Preference],
    questions: Mapping[str, str],
    names: Sequence[str],
) -> dict[str, Any]:
    """Return a judge's outcomes and how it agrees with people; no outcomes if uncalibrated."""
    beside = {question: _beside(given, people, question) for question in questions}
    calibrated = [q for q in questions if beside[q]["shared"] >= CALIBRATED]
    return {"comparisons": _comparisons(given, calibrated, names), "beside_people": beside}


def _beside(
    given: Sequence[Preference], people: Sequence[Preference], question: str
) -> dict[str, Any]:
    """Return how often a judge and people answered alike on a pair, and people among them."""
    theirs = _by_pair(people, question)
    own = {pair: of[0] for pair, of in _by_pair(given, question).items() if pair in theirs}
    both = [(own[pair], one) for pair in own for one in theirs[pair]]
    among = [two for pair in own for two in combinations(theirs[pair], 2)]
    return {
        "shared": len(own),
        **_alike(both, "judge"),
        **_alike(among, "people"),
    }


def _alike(pairs: Sequence[tuple[str | None, str | None]], who: str) -> dict[str, float | None]:
    """Return the share of equal answers, and kappa: over the chance of equal answers."""
    number = {answer: i for i, answer in enumerate(dict.fromkeys(a for two in pairs for a in two))}
    with np.errstate(invalid="ignore"):
        kappa = fleiss_kappa([[number[a] for a in two] for two in pairs]) if pairs else np.nan
    return {
        who: sum(a == b for a, b in pairs) / len(pairs) if pairs else None,
        f"{who}_kappa": None if np.isnan(kappa) else kappa,
    }


def _by_pair(some: Iterable[Preference], question: str) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for preference in some:
        if preference.question == question:
            found.setdefault(preference.pair, []).append(preference.winner)
    return found


def answered(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield first system, second system, and outcomes by question, of every comparison."""
    for comparison in found["comparisons"]:
        yield comparison["first"], comparison["second"], comparison["outcomes"]
