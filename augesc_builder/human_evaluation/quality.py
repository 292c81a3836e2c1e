"""The numbers of a quality study (section 6): means, tests, agreement, annotators, judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from augesc_builder.errors import StudyError
from augesc_builder.evaluation.significance import TwoSamples, holm, two_samples, within_blocks_test
from augesc_builder.human_evaluation.agreement import agreement
from augesc_builder.human_evaluation.annotators import HASTY_SECONDS, beside_people, conduct
from augesc_builder.human_evaluation.power import PAPER_LEVEL
from augesc_builder.human_evaluation.rated import Answers, Items, Session, values_of
from augesc_builder.human_evaluation.records import Rating
from augesc_builder.metrics.intervals import Estimate, Numbers, bootstrap

Test = Literal[TwoSamples, "paired"]
TESTS: tuple[str, ...] = (*get_args(TwoSamples), "paired")

Unit = Literal["session", "rating"]
UNITS: tuple[str, ...] = get_args(Unit)

CALIBRATED = 30
"""Sessions that people rated too, below which a judge's scores are not shown."""


@dataclass(frozen=True)
class Column:
    """A question as a column of Table 3."""

    name: str
    title: str
    less_is_better: bool = False
    is_tested: bool = True


@dataclass(frozen=True)
class Settings:
    """How a study is reported.

    ``unit`` is what a test takes as one observation: the mean of a session, or a single rating.
    Ratings of one session are alike, so that single ratings find more than there is. ``paired``
    compares sets within annotators: each may be strict or mild without harm. ``reference`` is a
    set that all others are tested against, beside the best of each column. ``hasty`` is in seconds.
    """

    test: Test = "student"
    unit: Unit = "session"
    level: float = PAPER_LEVEL
    holm: bool = False
    reference: str | None = None
    hasty: float = HASTY_SECONDS
    resamples: int = 2_000
    seed: int = 13


@dataclass(frozen=True)
class Sample:
    """The observations of a set: values (n,), and the share of each annotator in each (n, a)."""

    values: Numbers
    shares: Numbers


def measure(
    ratings: Iterable[Rating],
    columns: Sequence[Column],
    settings: Settings,
    sets: Sequence[str] = (),
    checks: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Return all numbers of a report, as JSON holds them.

    ``sets`` are in the order of the study; one that nobody rated is reported as such. ``checks``
    are the checks of attention that annotators passed, of how many. Raises
    :class:`~augesc_builder.errors.StudyError` where the reference is none of them.
    """
    answers = Answers.of(ratings)
    rated = answers.sessions()
    names = list(dict.fromkeys([*sets, *sorted({*rated, *answers.judged_sets()})]))
    if settings.reference is not None and settings.reference not in names:
        raise StudyError(
            f"no set {settings.reference!r} in this study; there are {', '.join(names) or 'none'}"
        )
    means = {
        name: {c.name: _mean(answers, c.name, name, settings) for c in columns} for name in names
    }
    best = {c.name: _best(means, c) for c in columns}
    return {
        "settings": asdict(settings),
        "columns": [asdict(column) for column in columns],
        "sets": {
            name: {
                "sessions": len(rated.get(name, {})),
                "ratings": sum(map(len, rated.get(name, {}).values())),
            }
            for name in names
        },
        "means": {name: {q: asdict(e) for q, e in of.items()} for name, of in means.items()},
        "best": best,
        "tests": _tests(answers, columns, names, best, settings),
        "agreement": {
            column.name: _plain(
                agreement(
                    [
                        [list(item.values()) for item in items.values()]
                        for items in answers.people.get(column.name, {}).values()
                    ],
                    settings.resamples,
                    settings.seed,
                )
            )
            for column in columns
        },
        "annotators": conduct(
            answers, checks or {}, settings.hasty, settings.resamples, settings.seed
        ),
        "judges": {
            judge: _judge(answers, judge, columns, names, settings)
            for judge in sorted(answers.judges)
        },
    }


# -- means ----------------------------------------------------------------------------------------


def _of_set(by_session: Mapping[Session, Items], name: str) -> dict[Session, Items]:
    return {session: items for session, items in by_session.items() if session[0] == name}


def _mean(answers: Answers, question: str, name: str, settings: Settings) -> Estimate:
    return _mean_of(_of_set(answers.people.get(question, {}), name), settings)


def _mean_of(by_session: Mapping[Session, Items], settings: Settings) -> Estimate:
    """Return the mean of the units of tests; its interval draws sessions, whatever the unit."""
    values = [values_of(items) for items in by_session.values()]
    if not values:
        return Estimate(None)
    sums = np.array([[sum(some), len(some)] for some in values], float)
    if settings.unit == "session":
        sums = np.column_stack([sums[:, 0] / sums[:, 1], np.ones(len(sums))])
    metric = {"mean": lambda drawn: drawn[:, 0] / drawn[:, 1]}
    return bootstrap(sums, metric, settings.resamples, settings.seed)["mean"]


def _best(means: Mapping[str, Mapping[str, Estimate]], column: Column) -> str | None:
    known = {name: of[column.name].value for name, of in means.items()}
    there = {name: value for name, value in known.items() if value is not None}
    if not there:
        return None
    return (min if column.less_is_better else max)(there, key=lambda name: there[name])


# -- tests ----------------------------------------------------------------------------------------


def _tests(
    answers: Answers,
    columns: Sequence[Column],
    names: Sequence[str],
    best: Mapping[str, str | None],
    settings: Settings,
) -> dict[str, Any]:
    """Return tests of every set against the best of its column, and against the reference.

    What is the best is found in the same ratings, so Holm's correction there is for all pairs of
    sets; for a reference, for the pairs that it is in. Both are over all columns.
    """
    pairs = {}
    for column in columns:
        if column.is_tested:
            samples = {name: _sample(answers, column.name, name, settings.unit) for name in names}
            for one, other in combinations(names, 2):
                pairs[column.name, one, other] = _p_value(samples[one], samples[other], settings)
    found: dict[str, Any] = {"best": _against(pairs, columns, names, best, settings)}
    if settings.reference is not None:
        of_reference = {key: p for key, p in pairs.items() if settings.reference in key[1:]}
        named = {column.name: settings.reference for column in columns}
        found["reference"] = _against(of_reference, columns, names, named, settings)
    return found


def _against(
    pairs: Mapping[tuple[str, str, str], float | None],
    columns: Sequence[Column],
    names: Sequence[str],
    others: Mapping[str, str | None],
    settings: Settings,
) -> dict[str, Any]:
    """Return p-values by question and set, corrected for all ``pairs`` if it is wanted."""
    known = {key: p for key, p in pairs.items() if p is not None}
    if settings.holm:
        known = dict(zip(known, holm(list(known.values())), strict=True))
    return {
        column.name: {
            name: known.get((column.name, name, other), known.get((column.name, other, name)))
            for name in names
            if (other := others[column.name]) is not None and name != other
        }
        for column in columns
        if column.is_tested
    }


def _sample(answers: Answers, question: str, name: str, unit: Unit) -> Sample:
    people = answers.annotators()
    place = {annotator: i for i, annotator in enumerate(people)}
    values: list[float] = []
    shares: list[NDArray[np.float64]] = []
    for items in _of_set(answers.people.get(question, {}), name).values():
        given = [(place[a], value) for item in items.values() for a, value in item.items()]
        for part in [given] if unit == "session" else [[one] for one in given]:
            who = np.bincount([i for i, _ in part], minlength=len(people))
            values.append(sum(value for _, value in part) / len(part))
            shares.append(who / len(part))
    return Sample(np.array(values), np.array(shares).reshape(len(values), len(people)))


def _p_value(first: Sample, second: Sample, settings: Settings) -> float | None:
    if not len(first.values) or not len(second.values):
        return None
    if settings.test != "paired":
        p = float(two_samples(settings.test, first.values, second.values))
    else:
        is_second = np.repeat([False, True], [len(first.values), len(second.values)])
        values = np.concatenate([first.values, second.values])
        blocks = np.concatenate([first.shares, second.shares])
        p = float(within_blocks_test(values, is_second, blocks[:, blocks.any(0)]))
    return None if np.isnan(p) else p


# -- judges ---------------------------------------------------------------------------------------


def _judge(
    answers: Answers,
    judge: str,
    columns: Sequence[Column],
    names: Sequence[str],
    settings: Settings,
) -> dict[str, Any]:
    """Return a judge's means, none where it is not calibrated, and its agreement with people."""
    rated = answers.judges[judge]
    beside = beside_people(answers, rated, settings.resamples, settings.seed)
    calibrated = {q for q, found in beside.items() if found["shared"] >= CALIBRATED}
    return {
        "means": {
            name: {
                column.name: asdict(_mean_of(_of_set(rated[column.name], name), settings))
                for column in columns
                if column.name in calibrated
            }
            for name in names
        },
        "beside_people": beside,
    }


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {key: asdict(one) for key, one in estimates.items()}
