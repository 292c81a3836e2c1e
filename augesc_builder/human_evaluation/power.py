"""What a study can show, before anybody is asked: the power of its tests at given effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augesc_builder.evaluation.significance import scipy_stats

PAPER_LEVEL = 0.01
"""Table 3: the level of the paper's t-tests."""

SIGN_LEVEL = 0.05
"""Table 4: the level at which the paper calls a preference significant."""

EFFECTS = (0.2, 0.3, 0.4, 0.5)
"""Differences between the means of two sets, in points of the form's scale."""

ENOUGH = 0.8
"""The power that studies are commonly planned for (Cohen 1988)."""

PREFERRED = 2 / 3
"""Share of the decided pairs in favour of the better system, which power is told for."""


@dataclass(frozen=True)
class Spread:
    """How ratings are taken to vary within a set; nobody knows it before people were asked.

    ``rating`` is the standard deviation of single ratings, in points of the scale, ``correlation``
    that of two people's ratings of the same sessions.
    """

    rating: float = 0.8
    correlation: float = 0.4

    def of_means(self, ratings: int) -> float:
        """Return the standard deviation of the means of so many ratings of a session."""
        return self.rating * math.sqrt(self.correlation + (1 - self.correlation) / ratings)


def t_test_power(effect: float, sessions: int, level: float = PAPER_LEVEL) -> float:
    """Return the power of Student's two-sided t-test between two sets of so many sessions.

    ``effect`` is the difference of their means in standard deviations of the unit of the test.
    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    stats = scipy_stats()
    freedom = 2 * sessions - 2
    if freedom < 1:
        return 0.0
    critical = stats.t.isf(level / 2, freedom)
    shift = effect * math.sqrt(sessions / 2)
    t = stats.nct(freedom, shift)
    return float(t.sf(critical) + t.cdf(-critical))


def smallest_effect(sessions: int, level: float = PAPER_LEVEL, power: float = ENOUGH) -> float:
    """Return the effect, as :func:`t_test_power` takes it, that is found with such power.

    Infinite where there are too few sessions for any.
    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    low, high = 0.0, 1.0
    while t_test_power(high, sessions, level) < power:
        high *= 2
        if high > _NO_EFFECT:
            return math.inf
    while high - low > _CLOSE:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if t_test_power(middle, sessions, level) >= power else (middle, high)
        )
    return high


_NO_EFFECT, _CLOSE = 1_000.0, 1e-6


def sign_test_power(decided: int, share: float = PREFERRED, level: float = SIGN_LEVEL) -> float:
    """Return the power of the exact two-sided sign test where ``share`` of decided pairs are won.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    stats = scipy_stats()
    wins = np.arange(decided + 1)
    p = 2 * stats.binom.cdf(np.minimum(wins, decided - wins), decided, 0.5)
    return float(stats.binom.pmf(wins[p < level], decided, share).sum())


def quality_power(
    sessions: int,
    ratings: int,
    *,
    level: float = PAPER_LEVEL,
    spread: Spread | None = None,
    effects: Sequence[float] = EFFECTS,
) -> str:
    """Say what a quality study of so many sessions a set, rated so often, can show.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    spread = spread or Spread()
    unit = spread.of_means(ratings)
    powers = ", ".join(
        f"{t_test_power(effect / unit, sessions, level):.2f} for {effect:g}" for effect in effects
    )
    least = smallest_effect(sessions, level) * unit
    found = (
        f"{ENOUGH:.0%} of such studies find {least:.2f} points"
        if math.isfinite(least)
        else "it finds nothing, whatever there is"
    )
    return (
        f"What it can show: of two sets of {sessions} sessions, each rated by {ratings}, the "
        f"two-sided t-test of session means at p < {level:g} finds a difference in so many points "
        f"of the scale with power {powers}; {found}. Taken for granted: single ratings have a "
        f"standard deviation of {spread.rating:g} points within a set, and those of two people "
        f"correlate by {spread.correlation:g}."
    )


def pairwise_power(pairs: int, *, level: float = SIGN_LEVEL, share: float = PREFERRED) -> str:
    """Say what an interactive study of so many pairs can show, with none or some of them ties.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    decided = sorted({round(part * pairs) for part in _DECIDED}, reverse=True)
    powers = ", ".join(f"{sign_test_power(n, share, level):.2f} with {n}" for n in decided)
    return (
        f"What it can show: if {share:.0%} of the decided pairs are for the better of two systems, "
        f"the exact two-sided sign test at p < {level:g} finds it with power {powers} decided "
        f"pairs of {pairs}; ties decide nothing."
    )


_DECIDED = (1.0, 0.85, 0.7)
