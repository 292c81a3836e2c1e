"""Numbers of a corpus from sums over its sessions, their intervals, and paired tests.

Responses of one session depend on each other, so sessions are what is drawn: intervals are
percentiles of a bootstrap over sessions, and the test of two models swaps their outputs session by
session (approximate randomization). Distinct-n is no function of sums: a bootstrap sample says the
same things twice and so is always less diverse; its intervals are a jackknife's, over sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Metric = Callable[[Numbers], Numbers]
"""From sums over sessions, (R, columns), to a number for each row, (R,)."""

_NORMAL_95 = 1.959964
"""Standard errors on each side of a normal distribution's 95%."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; ``None`` where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


def bootstrap(sums: Numbers, metrics: dict[str, Metric], n: int, seed: int) -> dict[str, Estimate]:
    """Return estimates of metrics; ``sums`` (sessions, columns) are the sums of each session."""
    rng = np.random.default_rng(seed)
    sessions = len(sums)
    counts = rng.multinomial(sessions, np.full(sessions, 1 / sessions), size=n)  # (R, sessions)
    drawn = counts @ sums  # (R, columns)
    found = {}
    for name, metric in metrics.items():
        value = metric(sums.sum(0, keepdims=True))[0]
        spread = metric(drawn)
        spread = spread[np.isfinite(spread)]
        if not np.isfinite(value):
            found[name] = Estimate(None)
        elif sessions < 2 or not len(spread):  # noqa: PLR2004 - one session says nothing of others
            found[name] = Estimate(float(value))
        else:
            low, high = np.percentile(spread, [2.5, 97.5])
            found[name] = Estimate(float(value), float(low), float(high))
    return found


def paired_randomization_test(
    first: Numbers, second: Numbers, metrics: dict[str, Metric], n: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return ``second - first`` of two models, and its two-sided p-value, for each metric.

    Both are sums (sessions, columns) over the same sessions.
    """
    rng = np.random.default_rng(seed)
    swapped = rng.random((n, len(first))) < 0.5  # noqa: PLR2004 - a fair coin
    moved = swapped @ (second - first)  # (R, columns)
    a, b = first.sum(0) + moved, second.sum(0) - moved
    found = {}
    for name, metric in metrics.items():
        seen = metric(second.sum(0, keepdims=True))[0] - metric(first.sum(0, keepdims=True))[0]
        chance = metric(b) - metric(a)
        found[name] = (float(seen), _p_value(float(seen), chance))
    return found


@dataclass(frozen=True)
class Grams:
    """N-grams of all responses as numbers, and the session that each stands in."""

    ids: NDArray[np.int64]
    session: NDArray[np.int64]


def number_grams(
    words: Sequence[Sequence[Sequence[str]]], n: int, known: dict[tuple[str, ...], int]
) -> Grams:
    """Return n-grams of sessions of responses of words as numbers; ``known`` is added to."""
    ids, where = [], []
    for i, responses in enumerate(words):
        for response in responses:
            for gram in zip(*(response[k:] for k in range(n)), strict=False):
                ids.append(known.setdefault(gram, len(known)))
                where.append(i)
    return Grams(np.array(ids, np.int64), np.array(where, np.int64))


def distinct(grams: Grams, n_sessions: int) -> Estimate:
    """Return distinct n-grams by all n-grams, with the interval of a jackknife."""
    total = len(grams.ids)
    if not total:
        return Estimate(None)
    unique, inverse = np.unique(grams.ids, return_inverse=True)
    value = len(unique) / total
    first = np.full(len(unique), n_sessions)
    last = np.full(len(unique), -1)
    np.minimum.at(first, inverse, grams.session)
    np.maximum.at(last, inverse, grams.session)
    only = np.bincount(first[first == last], minlength=n_sessions)  # grams of that session alone
    size = np.bincount(grams.session, minlength=n_sessions)
    left = total - size
    if n_sessions < 2 or not left.all():  # noqa: PLR2004
        return Estimate(value)
    without = (len(unique) - only) / left
    error = np.sqrt((n_sessions - 1) * np.mean((without - without.mean()) ** 2))
    spread = _NORMAL_95 * float(error)
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread))


def distinct_test(
    first: Grams, second: Grams, n_sessions: int, n: int, seed: int
) -> tuple[float, float]:
    """Return what :func:`paired_randomization_test` does for distinct-n.

    The n-grams of both models are numbered alike.
    """
    rng = np.random.default_rng(seed)
    ids = np.concatenate([first.ids, second.ids])
    session = np.concatenate([first.session, second.session])
    is_second = np.repeat([False, True], [len(first.ids), len(second.ids)])

    def difference(swapped: NDArray[np.bool_]) -> float:
        in_second = is_second ^ swapped[session]
        shares = [
            np.count_nonzero(np.bincount(ids[part])) / max(1, int(part.sum()))
            for part in (~in_second, in_second)
        ]
        return shares[1] - shares[0]

    seen = difference(np.zeros(n_sessions, np.bool_))
    chance = [difference(rng.random(n_sessions) < 0.5) for _ in range(n)]  # noqa: PLR2004
    return seen, _p_value(seen, np.array(chance))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many of them there are (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = most
    return corrected


def _p_value(seen: float, chance: Numbers) -> float:
    """Return the share of differences by chance that are as large, the seen one counted in."""
    if not np.isfinite(seen):
        return 1.0
    as_large = np.count_nonzero(np.abs(chance) >= abs(seen) - 1e-12)
    return float((as_large + 1) / (len(chance) + 1))
