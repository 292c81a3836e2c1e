"""Paired tests of two models on the same sessions.

Responses of one session depend on each other, so a test swaps the outputs of two models session by
session (approximate randomization). Intervals are in :mod:`augesc_builder.metrics.intervals`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.intervals import Grams, Metric, Numbers


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
