"""What measures are held against: a question that people answered, and the rows it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.intervals import Estimate, Numbers
from augesc_builder.run.markdown import NOTHING
from benchmarks.quality_data import DEVELOPMENT, TEST, Judged, parts_of
from benchmarks.quality_fit import Calibration, fit
from benchmarks.quality_numbers import (
    Places,
    auc,
    best_threshold,
    f1,
    interval,
    kappa,
    left_out,
    number_text,
    partial_spearman,
    span_text,
    spearman,
)
from benchmarks.quality_plain import POSITION, WORDS
from benchmarks.quality_signals import Signal

FITTED = "these together, fitted"
PEOPLE = "people with people"
SYSTEM = "which system it was, alone"
ADDS, NOTHING_MORE, ONLY_SYSTEMS = "adds", "adds nothing", "tells systems apart"
LABEL_COLUMNS = (
    *("measure", "AUC, all", "AUC, test", "F1, all", "F1, test", "kappa, test"),
    *("of people's kappa", "after length, test", "and within a system", "beside length"),
)
RATING_COLUMNS = (
    *("measure", "rho, all", "rho, test", "of people's", "after length, test"),
    *("and within a system", "of people's, after length", "beside length"),
)


@dataclass(frozen=True)
class Question:
    """What people were asked of the dialogs, or turns, of a file.

    ``about`` is what signals must tell of to be held against it, and ``better`` whether a higher
    answer is better. ``foreign`` data are wholly test: what was fitted and chosen elsewhere is held
    against them.
    """

    title: str
    asked: str
    judged: Sequence[Judged]
    about: str
    better: bool = False
    foreign: bool = False

    @cached_property
    def ratings(self) -> Numbers:
        """The answers, (items, raters), NaN where there is none."""
        given = [one.ratings[self.asked] for one in self.judged]
        found = np.full((len(given), max(map(len, given))), np.nan)
        for row, numbers in zip(found, given, strict=True):
            row[: len(numbers)] = [np.nan if x is None else x for x in numbers]
        return found

    @cached_property
    def yes_or_no(self) -> bool:
        """Whether all answers are 0 or 1, of two people or one: more make a scale by their mean."""
        known = self.ratings[np.isfinite(self.ratings)]
        return self.ratings.shape[1] <= 2 and bool(np.isin(known, (0, 1)).all())

    @cached_property
    def target(self) -> Numbers:
        """What signals are held against: 1 where anybody said yes, or the mean of the ratings."""
        whole: Callable[..., Numbers] = np.nanmax if self.yes_or_no else np.nanmean
        return whole(self.ratings, axis=1)

    @cached_property
    def shares(self) -> Numbers:
        """The means of the answers, from 0 for the lowest of the scale to 1 for the highest."""
        low, high = np.nanmin(self.ratings), np.nanmax(self.ratings)
        found: Numbers = (np.nanmean(self.ratings, axis=1) - low) / max(high - low, 1e-9)
        return found

    @cached_property
    def dialogs(self) -> list[str]:
        """The dialog of each item."""
        return [one.dialog for one in self.judged]

    def part(self, name: str) -> Places:
        """Return the places of a part's items."""
        parts = [TEST] * len(self.judged) if self.foreign else parts_of(self.judged)
        return np.flatnonzero(np.array(parts) == name)


def answered(
    title: str, asked: str, judged: Sequence[Judged], about: str, *, better: bool = False
) -> Question:
    """Make a question of what has an answer to it."""
    known = [one for one in judged if any(x is not None for x in one.ratings.get(asked, ()))]
    return Question(title, asked, known, about, better)


class Table:
    """The rows of a question: people, other judges, what takes no measure, measures, the fitted."""

    def __init__(
        self,
        question: Question,
        readings: Mapping[str, Numbers],
        signals: Sequence[Signal],
        calibration: Calibration,
        n: int,
    ) -> None:
        self._q, self._n = question, n
        self._readings = readings
        self._signals = [one for one in signals if one.is_of(question.about)]
        self._calibration = calibration
        self._test = question.part(TEST)
        self._development = question.part(DEVELOPMENT)
        self._length = self._filled(readings[WORDS])
        systems = np.array([one.system for one in question.judged])
        self._systems = systems if len(set(systems)) > 1 else None

    def size(self) -> str:
        """Say how many items there are, and of how many dialogs."""
        n, whole = len(self._q.judged), len(set(self._q.dialogs))
        tested = len({self._q.dialogs[i] for i in self._test})
        return f"{n:,} of {whole:,} dialogs, of which {tested:,} are test"

    @property
    def header(self) -> tuple[str, ...]:
        """The headings of the columns."""
        return LABEL_COLUMNS if self._q.yes_or_no else RATING_COLUMNS

    def rows(self) -> list[list[str]]:
        """Return the rows."""
        rows = [self._people()] if self._q.ratings.shape[1] > 1 else []
        judges = sorted({j for one in self._q.judged for j in one.others.get(self._q.asked, ())})
        for judge in judges:
            said = [one.others[self._q.asked].get(judge, 0.0) for one in self._q.judged]
            rows.append(self._row(f"judge: {judge}", np.array(said), 1.0))
        if self._systems is not None and len(self._development):
            rows.append(self._row(SYSTEM, self._by_system(self._systems)))
        for one in self._signals:
            against = one.worse is not None and one.worse is self._q.better
            values = self._filled(self._readings[one.name])
            rows.append(self._row(one.name, -values if against else values))
        fitted = self._fitted()
        if fitted is not None:
            rows.append(self._row(FITTED, fitted, seen=True))
        return rows

    @staticmethod
    def _filled(values: Numbers) -> Numbers:
        """Return a signal, its median where it says nothing."""
        known = values[np.isfinite(values)]
        return np.where(np.isfinite(values), values, np.median(known) if len(known) else 0.0)

    def _by_system(self, systems: NDArray[np.str_]) -> Numbers:
        """Return what people said of each item's system, on average over the development part."""
        shares = self._q.shares
        known = {
            system: shares[at].mean()
            for system in np.unique(systems)
            if len(at := np.intersect1d(np.flatnonzero(systems == system), self._development))
        }
        return np.array([known.get(system, shares.mean()) for system in systems])

    def _fitted(self) -> Numbers | None:
        """Return what a model says that was fitted on the development part, now or before."""
        names = [one.name for one in self._signals]
        key = " | ".join([self._q.title, *names])
        signals = np.column_stack([self._readings[name] for name in names])
        at = self._development
        if not self._q.foreign and len(np.unique(self._q.shares[at])) > 1:
            self._calibration.models[key] = fit(names, signals[at], self._q.shares[at])
        model = self._calibration.models.get(key)
        return None if model is None else model.probability(signals)

    def _threshold(self, name: str, values: Numbers) -> float | None:
        """Return what was best on the development part, now or before."""
        key = f"{self._q.title} | {name}"
        if not self._q.foreign and len(self._development):
            at = self._development
            self._calibration.thresholds[key] = best_threshold(values[at], self._q.target[at])
        return self._calibration.thresholds.get(key)

    def _row(
        self, name: str, values: Numbers, threshold: float | None = None, *, seen: bool = False
    ) -> list[str]:
        """Return a row; where ``seen``, all items are no test, and nothing is said of them."""
        target, test, every = self._q.target, self._test, np.arange(len(values))
        after, within, beside = self._beside_length(name, values)
        shown = [span_text(after), span_text(within)]
        if not self._q.yes_or_no:
            rho = self._over(lambda at: spearman(values[at], target[at]), test)
            people = self._left_out(test)
            of_people = _share(after.value, people)
            whole = NOTHING if seen else number_text(spearman(values, target))
            return [
                *(name, whole, span_text(rho), _share(rho.value, people), *shown, of_people, beside)
            ]
        area = self._over(lambda at: auc(values[at], target[at]), test)
        whole = NOTHING if seen else number_text(auc(values, target))
        if threshold is None:
            threshold = self._threshold(name, values)
        if threshold is None:
            return [name, whole, span_text(area), *[NOTHING] * 4, *shown, beside]
        said = (values >= threshold).astype(float)
        score = self._over(lambda at: f1(said[at], target[at]), test)
        agreed = self._kappa(said, test)
        return [
            *(
                name,
                whole,
                span_text(area),
                NOTHING if seen else number_text(f1(said[every], target)),
            ),
            *(span_text(score), number_text(agreed), _share(agreed, self._people_kappa(test))),
            *(*shown, beside),
        ]

    def _beside_length(self, name: str, values: Numbers) -> tuple[Estimate, Estimate, str]:
        """Return what is left after length, then within a system too, and what that comes to."""
        target, length, systems = self._q.target, self._length, self._systems
        if name == WORDS:
            return Estimate(None), Estimate(None), NOTHING
        after = self._over(
            lambda at: partial_spearman(values[at], target[at], length[at]), self._test
        )
        within = Estimate(None)
        if systems is not None and name != SYSTEM:
            within = self._over(
                lambda at: partial_spearman(values[at], target[at], length[at], systems[at]),
                self._test,
            )
        if name in (POSITION, SYSTEM) or after.low is None:
            return after, within, NOTHING
        if after.low <= 0:
            return after, within, NOTHING_MORE
        adds = systems is None or (within.low is not None and within.low > 0)
        return after, within, ADDS if adds else ONLY_SYSTEMS

    def _people(self) -> list[str]:
        every, test = np.arange(len(self._q.judged)), self._test
        if not self._q.yes_or_no:
            cells = [number_text(self._left_out(every)), number_text(self._left_out(test))]
            return [PEOPLE, *cells, *[NOTHING] * 5]
        return [
            *(PEOPLE, NOTHING, NOTHING, number_text(self._people_f1(every))),
            *(span_text(self._over(self._people_f1, test)), number_text(self._people_kappa(test))),
            *[NOTHING] * 4,
        ]

    def _left_out(self, at: Places) -> float:
        return left_out(self._q.ratings[at])

    def _pairs(self, at: Places, agree: Callable[[Numbers, Numbers], float]) -> float:
        """Return how two people agree, on average over all pairs of them."""
        columns = self._q.ratings[at].T
        found = [_both(agree, a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
        return float(np.mean(found)) if found else float("nan")

    def _people_f1(self, at: Places) -> float:
        return self._pairs(at, f1)

    def _people_kappa(self, at: Places) -> float:
        return self._pairs(at, kappa)

    def _kappa(self, said: Numbers, at: Places) -> float:
        """Return the kappa with one of the people, on average."""
        columns = self._q.ratings[at].T
        return float(np.mean([_both(kappa, said[at], one) for one in columns]))

    def _over(self, statistic: Callable[[Places], float], at: Places) -> Estimate:
        if not len(at):
            return Estimate(None)
        dialogs = [self._q.dialogs[i] for i in at]
        return interval(lambda places: statistic(at[places]), dialogs, self._n)


def _both(agree: Callable[[Numbers, Numbers], float], a: Numbers, b: Numbers) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return agree(a[known], b[known]) if known.any() else float("nan")


def _share(ours: float | None, peoples: float) -> str:
    if ours is None or not np.isfinite([ours, peoples]).all() or peoples <= 0:
        return NOTHING
    return f"{ours / peoples:.0%}"
