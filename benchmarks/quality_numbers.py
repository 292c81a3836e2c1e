"""How well numbers go with what people said: statistics, their intervals, and people's own.

Intervals are percentiles of a bootstrap over dialogs (Efron and Tibshirani 1993, chapter 13): what
is said of a dialog's utterances belongs together. Where one side is all of a kind a statistic is
undefined, and NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from augesc_builder.metrics.intervals import Estimate, Numbers
from augesc_builder.run.markdown import NOTHING

Places: TypeAlias = NDArray[np.intp]
"""Which of the items are looked at."""

Statistic = Callable[[Places], float]
"""A number of the items at these places."""


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return how often an item with the label is scored above one without, ties as half."""
    ranks, true = rankdata(scores), np.asarray(labels, bool)
    n, others = int(true.sum()), int((~true).sum())
    if not n or not others:
        return float("nan")
    return float((ranks[true].sum() - n * (n + 1) / 2) / (n * others))


def f1(said: ArrayLike, labels: ArrayLike) -> float:
    """Return twice what both call so, by what either does (the harmonic mean of two shares)."""
    a, b = np.asarray(said, bool), np.asarray(labels, bool)
    either = int(a.sum() + b.sum())
    return float(2 * (a & b).sum() / either) if either else float("nan")


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the lowest of the scores at or above which F1 is highest."""
    values, true = np.asarray(scores, float), np.asarray(labels, bool)
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    right = true[order].cumsum()
    both = 2 * right / (np.arange(1, len(falling) + 1) + true.sum())
    both[:-1][falling[:-1] == falling[1:]] = -1  # equal scores are taken together
    return float(falling[int(both.argmax())])


def kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Return the kappa of Cohen (1960) of two raters' labels."""
    first, second = np.asarray(a), np.asarray(b)
    chance = sum(
        float((first == x).mean() * (second == x).mean()) for x in np.union1d(first, second)
    )
    return float(((first == second).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return the rank correlation of Spearman (1904), by mean ranks where there are ties.

    The same as ``scipy.stats.spearmanr``, without its test, which costs a bootstrap most.
    """
    return _correlation(rankdata(a), rankdata(b))


def partial_spearman(
    a: ArrayLike, b: ArrayLike, given: ArrayLike, groups: ArrayLike | None = None
) -> float:
    """Return the rank correlation of two after a third, by its first-order formula.

    With ``groups`` it is that within them: every rank counts from the mean of its group.
    """
    x, y, z = (_within(rankdata(values), groups) for values in (a, b, given))
    ab, ac, bc = _correlation(x, y), _correlation(x, z), _correlation(y, z)
    if not np.isfinite([ac, bc]).all():  # the third is the same everywhere and explains nothing
        return ab
    left = (1 - ac**2) * (1 - bc**2)
    return float((ab - ac * bc) / np.sqrt(left)) if left > 1e-12 else float("nan")


def _within(ranks: Numbers, groups: ArrayLike | None) -> Numbers:
    if groups is None:
        return ranks
    _, which = np.unique(np.asarray(groups), return_inverse=True)
    found: Numbers = ranks - (np.bincount(which, ranks) / np.bincount(which))[which]
    return found


def _correlation(x: Numbers, y: Numbers) -> float:
    x, y = (values - values.sum() / max(1, len(values)) for values in (x, y))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-9 else float("nan")


def interval(statistic: Statistic, dialogs: Sequence[str], n: int, seed: int = 1) -> Estimate:
    """Return a statistic of all items with its interval, dialogs drawn again ``n`` times."""
    names, which = np.unique(np.asarray(dialogs), return_inverse=True)
    members = np.split(np.argsort(which, kind="stable"), np.bincount(which).cumsum()[:-1])
    value = statistic(np.arange(len(dialogs)))
    if not np.isfinite(value) or len(names) < 2:
        return Estimate(value if np.isfinite(value) else None)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))]))
        for _ in range(n)
    ]
    finite = [x for x in drawn if np.isfinite(x)]
    if not finite:
        return Estimate(value)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def left_out(ratings: Numbers) -> float:
    """Return how each rater goes with the mean of the others, on average.

    ``ratings`` are (items, raters), NaN where there is none: the mean of Spearman's correlations.
    """
    found = []
    for i in range(ratings.shape[1]):
        others = np.delete(ratings, i, axis=1)
        both = np.isfinite(ratings[:, i]) & np.isfinite(others).any(axis=1)
        found.append(spearman(ratings[both, i], np.nanmean(others[both], axis=1)))
    return float(np.mean(found))


def number_text(x: float | None) -> str:
    """Write a number as tables do."""
    return NOTHING if x is None or not np.isfinite(x) else f"{x:.2f}"


def span_text(estimate: Estimate) -> str:
    """Write a number with its interval."""
    if estimate.low is None or estimate.high is None:
        return number_text(estimate.value)
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
