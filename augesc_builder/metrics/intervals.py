"""Intervals for numbers of a corpus, by drawing its sessions (or queries) again.

What one session says depends on itself, so sessions are what is drawn, never utterances: intervals
are percentiles of a bootstrap over sessions (Efron and Tibshirani 1993, chapter 13). A number is a
function of sums over sessions, so a replicate is weights by sums, and no text is looked at twice.
Distinct-n is no function of sums: a bootstrap sample says the same things twice and so is always
less diverse; its intervals are a jackknife's, over sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Metric = Callable[[Numbers], Numbers]
"""From sums over sessions, (R, columns), to a number for each row, (R,)."""

NORMAL_95 = 1.959964
"""Standard errors on each side of a normal distribution's 95%."""

Name = TypeVar("Name", bound=Hashable)

_AT_ONCE = 1 << 22
"""Weights that are held at a time, which bounds the memory."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; ``None`` where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None


def bootstrap(
    sums: Numbers, metrics: Mapping[Name, Metric], n: int, seed: int
) -> dict[Name, Estimate]:
    """Return estimates of metrics; ``sums`` (sessions, columns) are the sums of each session.

    Of the ``n`` replicates those count in which a metric is defined.
    """
    drawn = np.concatenate([weights @ sums for weights in _weights(len(sums), n, seed)])
    found = {}
    for name, metric in metrics.items():
        value = metric(sums.sum(0, keepdims=True))[0]
        spread = metric(drawn)
        spread = spread[np.isfinite(spread)]
        if not np.isfinite(value):
            found[name] = Estimate(None)
        elif len(sums) < 2 or not len(spread):  # noqa: PLR2004 - one says nothing of others
            found[name] = Estimate(float(value))
        else:
            low, high = np.percentile(spread, [2.5, 97.5])
            found[name] = Estimate(float(value), float(low), float(high))
    return found


def _weights(sessions: int, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each session is drawn in ``n`` replicates, (some of n, sessions)."""
    rng = np.random.default_rng(seed)
    share = np.full(sessions, 1 / sessions)
    at_once = max(1, _AT_ONCE // sessions)
    for start in range(0, n, at_once):
        yield rng.multinomial(sessions, share, size=min(at_once, n - start))


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
    found = distinct_moves(grams, n_sessions)
    if found is None:
        return Estimate(None)
    value, moves = found
    estimate = jackknife(value, moves)
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(value, max(0.0, estimate.low), min(1.0, estimate.high))


def distinct_moves(grams: Grams, n_sessions: int) -> tuple[float, Numbers] | None:
    """Return distinct n-grams by all, and how it moves without each session, (n_sessions,).

    Moves are from their mean: a set of fewer sessions is always more diverse. ``None`` where there
    are no n-grams; what is left without a session may be none, too: all moves are NaN.
    """
    total = len(grams.ids)
    if not total:
        return None
    unique, inverse = np.unique(grams.ids, return_inverse=True)
    first = np.full(len(unique), n_sessions)
    last = np.full(len(unique), -1)
    np.minimum.at(first, inverse, grams.session)
    np.maximum.at(last, inverse, grams.session)
    only = np.bincount(first[first == last], minlength=n_sessions)  # grams of that session alone
    left = total - np.bincount(grams.session, minlength=n_sessions)
    with np.errstate(invalid="ignore"):
        without: Numbers = (len(unique) - only) / left
    return len(unique) / total, without - without.mean()


def jackknife(value: float, moves: Numbers) -> Estimate:
    """Return a number with the interval of the jackknife, by how it moves without each session."""
    n = len(moves)
    if n < 2 or not np.isfinite(moves).all():  # noqa: PLR2004 - one says nothing of others
        return Estimate(value)
    error = np.sqrt((n - 1) * np.mean(moves**2))
    spread = NORMAL_95 * float(error)
    return Estimate(value, value - spread, value + spread)
