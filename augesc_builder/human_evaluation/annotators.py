"""Annotators one by one: who agrees with nobody, and who is too quick; and a judge as one of them.

How far one annotator agrees with the others is Cohen's kappa with squared disagreements, over all
items that both sides rated: the disagreement that is seen, by that which would be if the annotator
gave the same answers to items at random. So somebody who always gives the same answer is at 0.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augesc_builder.human_evaluation.rated import Answers, Items, Rated, Session, pairs_of
from augesc_builder.metrics.intervals import Estimate, bootstrap

HASTY_SECONDS = 3.0
"""Nobody reads a conversation and answers questions on it in so few seconds."""

FEW_SESSIONS = 5
"""Sessions, shared with others, below which nothing is said of somebody's agreement."""


@dataclass(frozen=True)
class Disagreements:
    """Disagreement of one with others in each session: seen, and by chance."""

    seen: dict[Session, float]
    chance: dict[Session, float]

    def kappa(self, n: int, seed: int) -> Estimate:
        """Return 1 less the seen by that of chance, drawing sessions again ``n`` times."""
        return _kappa([self], n, seed)


def conduct(
    answers: Answers, checks: Mapping[str, tuple[int, int]], hasty: float, n: int, seed: int
) -> dict[str, Any]:
    """Return how each annotator agrees with the others and how long each took, and all together.

    ``checks`` are the checks of attention that each passed, of how many. Somebody disagrees with
    everyone whose kappa is not above chance and is below that of all, by its 95% interval.
    """
    everyone = disagreements(answers.people, answers.people)
    together = _kappa(everyone.values(), n, seed)
    rated: dict[str, set[Session]] = {}
    for by_set in answers.sessions().values():
        for session, annotators in by_set.items():
            for annotator in annotators:
                rated.setdefault(annotator, set()).add(session)
    people = {}
    for annotator in sorted(rated):
        own = everyone.get(annotator)
        kappa = own.kappa(n, seed) if own is not None else Estimate(None)
        shared = len(own.seen) if own is not None else 0
        seconds = list(answers.seconds.get(annotator, {}).values())
        quick = sum(s <= hasty for s in seconds)
        people[annotator] = {
            "sessions": len(rated[annotator]),
            "shared": shared,
            "kappa": asdict(kappa),
            "seconds": statistics.median(seconds) if seconds else None,
            "hasty": quick,
            "checks": list(checks.get(annotator, (0, 0))),
            "disagrees": shared >= FEW_SESSIONS and _disagrees(kappa, together),
        }
    return {"kappa": asdict(together), "people": people}


def disagreements(of: Rated, others: Rated) -> dict[str, Disagreements]:
    """Return the disagreement of each annotator in ``of`` with those in ``others``."""
    found: dict[str, Disagreements] = {}
    for question, by_session in of.items():
        pairs = list(pairs_of(by_session, others.get(question, {})))
        margins: dict[str, tuple[Counter[int], Counter[int]]] = {}
        for _, annotator, value, theirs in pairs:
            own, beside = margins.setdefault(annotator, (Counter(), Counter()))
            own[value] += 1
            beside[theirs] += 1
        chance = {annotator: _apart(*both) for annotator, both in margins.items()}
        for session, annotator, value, theirs in pairs:
            into = found.setdefault(annotator, Disagreements({}, {}))
            into.seen[session] = into.seen.get(session, 0.0) + (value - theirs) ** 2
            into.chance[session] = into.chance.get(session, 0.0) + chance[annotator]
    return found


def on_sessions_of(rated: Rated, judge: Rated) -> Rated:
    """Return what of some ratings is of sessions that a judge rated too."""
    return {
        question: {session: items for session, items in of.items() if session in judge[question]}
        for question, of in rated.items()
        if question in judge
    }


def beside_people(answers: Answers, judge: Rated, n: int, seed: int) -> dict[str, Any]:
    """Return how a judge agrees with people, question by question, and they with each other.

    Both are of the sessions that the judge and people rated; ``bias`` is the mean of the judge's
    ratings less theirs.
    """
    people = on_sessions_of(answers.people, judge)
    found = {}
    for question, by_session in judge.items():
        theirs = people.get(question, {})
        alone: tuple[Rated, Rated] = ({question: by_session}, {question: theirs})
        found[question] = {
            "shared": len(theirs.keys() & by_session.keys()),
            "kappa": asdict(_kappa(disagreements(*alone).values(), n, seed)),
            "people": asdict(_kappa(disagreements(alone[1], alone[1]).values(), n, seed)),
            "bias": asdict(_bias(by_session, theirs, n, seed)),
        }
    return found


def _bias(
    judge: Mapping[Session, Items],
    people: Mapping[Session, Items],
    n: int,
    seed: int,
) -> Estimate:
    sums: dict[Session, tuple[float, int]] = {}
    for session, _, value, theirs in pairs_of(judge, people):
        total, count = sums.get(session, (0.0, 0))
        sums[session] = (total + value - theirs, count + 1)
    if not sums:
        return Estimate(None)
    rows = np.array([[total / count, 1.0] for total, count in sums.values()])
    return bootstrap(rows, {"": lambda drawn: drawn[:, 0] / drawn[:, 1]}, n, seed)[""]


def _kappa(some: Iterable[Disagreements], n: int, seed: int) -> Estimate:
    sums: dict[Session, list[float]] = {}
    for one in some:
        for session, seen in one.seen.items():
            into = sums.setdefault(session, [0.0, 0.0])
            into[0] += seen
            into[1] += one.chance[session]
    if not sums:
        return Estimate(None)
    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap(
            np.array(list(sums.values())),
            {"": lambda drawn: 1 - drawn[:, 0] / drawn[:, 1]},
            n,
            seed,
        )[""]


def _disagrees(kappa: Estimate, together: Estimate) -> bool:
    if kappa.low is None or kappa.high is None or together.value is None:
        return False
    return kappa.low <= 0 and kappa.high < together.value


def _apart(own: Counter[int], beside: Counter[int]) -> float:
    """Return the mean squared difference of two values drawn from either, independently."""
    total = sum(n * m * (a - b) ** 2 for a, n in own.items() for b, m in beside.items())
    return total / (own.total() * beside.total())
