"""Tests of what is measured by machine, and of what people rated or preferred.

Responses of one session depend on each other, so a test of two models swaps their outputs session
by session (approximate randomization). Intervals are in :mod:`augesc_builder.metrics.intervals`.
Ratings of two sets are of different sessions: they are two samples. All tests are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from augesc_builder.errors import MissingExtraError, install_extra
from augesc_builder.metrics.intervals import Grams, Metric, Name, Numbers

TwoSamples = Literal["student", "welch", "mann-whitney"]
TWO_SAMPLES: tuple[str, ...] = get_args(TwoSamples)

_TINY = 1e-9


def paired_randomization_test(
    first: Numbers, second: Numbers, metrics: Mapping[Name, Metric], n: int, seed: int
) -> dict[Name, tuple[float, float]]:
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


def two_samples(test: TwoSamples, first: Numbers, second: Numbers) -> Numbers:
    """Return p-values of two independent samples, (..., n) and (..., m): (...).

    NaN where a sample has fewer than two numbers; 1 where all numbers of both are the same.
    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    stats = scipy_stats()
    n, m = first.shape[-1], second.shape[-1]
    if min(n, m) < 2:  # noqa: PLR2004 - one says nothing of others
        return np.full(np.broadcast_shapes(first.shape[:-1], second.shape[:-1]), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if test == "mann-whitney":
            found = stats.mannwhitneyu(first, second, axis=-1, method="asymptotic").pvalue
        else:
            found = stats.ttest_ind_from_stats(
                *(first.mean(-1), first.std(-1, ddof=1), n),
                *(second.mean(-1), second.std(-1, ddof=1), m),
                equal_var=test == "student",
            ).pvalue
    low = np.minimum(first.min(-1), second.min(-1))
    high = np.maximum(first.max(-1), second.max(-1))
    return np.where(low == high, 1.0, found)


def within_blocks_test(values: Numbers, is_second: NDArray[np.bool_], blocks: Numbers) -> Numbers:
    """Return p-values of a t-test of two samples that frees them from what their blocks share.

    ``values`` (..., n) are modelled as the mean of their sample and the effects of blocks, of which
    ``blocks`` (n, b) holds each one's share in each value. With one value of each sample in every
    block this is Student's paired t-test. NaN where no block has values of both samples, or where
    nothing is left to estimate an error by; 1 where there is no difference at all.
    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    stats = scipy_stats()
    effects = np.column_stack([np.ones(len(is_second)), blocks])
    # What of the samples' difference the blocks cannot say: all evidence is in it.
    contrast = is_second - effects @ (np.linalg.pinv(effects) @ is_second)
    information = float(contrast @ contrast)
    design = np.column_stack([effects, is_second])
    freedom = len(is_second) - int(np.linalg.matrix_rank(design))
    if information < _TINY * max(1, len(is_second)) or freedom < 1:
        return np.full(values.shape[:-1], np.nan)
    difference = values @ contrast / information
    rest = values - values @ (design @ np.linalg.pinv(design))
    error = np.sqrt((rest**2).sum(-1) / freedom / information)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 2 * stats.t.sf(np.abs(difference) / error, freedom)
    return np.where(np.abs(difference) < _TINY, 1.0, found)


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of so many wins and losses; ties are left out.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    return float(scipy_stats().binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def scipy_stats() -> Any:
    """Return ``scipy.stats``.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without scipy.
    """
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError(
            f"tests of what people said need scipy: {install_extra('app')}"
        ) from None
    return stats


def tested(
    tests: Sequence[Mapping[Name, tuple[float, float]]],
) -> list[dict[Name, dict[str, float | None]]]:
    """Return differences and p-values as reports have them, with Holm's correction for all.

    There is a mapping for each model that is tested against the first.
    """
    corrected = iter(holm([p for of_one in tests for _, p in of_one.values()]))
    return [
        {
            name: {
                "difference": difference if math.isfinite(difference) else None,
                "p": p,
                "p_holm": next(corrected),
            }
            for name, (difference, p) in of_one.items()
        }
        for of_one in tests
    ]


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
