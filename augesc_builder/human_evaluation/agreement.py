"""How far people who rated the same items agree: shares, kappas, alphas, with intervals.

All of these are functions of one table, the coincidences of values (Krippendorff 2019, chapter 12):
how often two ratings of the same item were such values, each item counted by its ratings. It is a
sum over sessions, so sessions are what intervals draw again. Ratings may be missing; an item that
fewer than two people rated says nothing. Every coefficient is 1 less the disagreement that is seen
by that which chance would make: 1 is agreement, 0 is chance, and there is none (NaN) where all
ratings are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from augesc_builder.metrics.intervals import Estimate, Metric, Numbers, bootstrap

Items = Sequence[Sequence[int]]
"""The ratings of each item, in any order."""

MEASURES: dict[str, str] = {
    "within_one": "Δ ≤ 1",
    "fleiss_kappa": "Fleiss' kappa",
    "weighted_kappa": "weighted kappa",
    "alpha_ordinal": "alpha, ordinal",
    "alpha_nominal": "alpha, nominal",
}
"""What is told of agreement, and how tables call it."""

_PAIR = 2


def agreement(sessions: Sequence[Items], n: int, seed: int) -> dict[str, Estimate]:
    """Return :data:`MEASURES` of the items of each session, drawn again ``n`` times."""
    values = _levels([item for items in sessions for item in items])
    if not len(values):
        return dict.fromkeys(MEASURES, Estimate(None))
    paired = [[item for item in items if len(item) >= _PAIR] for items in sessions]
    tables = [coincidences(items, values).reshape(-1) for items in paired if items]
    spans = [[len(items), sum(map(_is_within_one, items))] for items in paired if items]
    with np.errstate(invalid="ignore", divide="ignore"):
        return bootstrap(np.column_stack([spans, tables]), _metrics(values), n, seed)


def within_one(items: Items) -> float:
    """Return the share of items whose ratings differ by at most one (row Δ ≤ 1 of Table 3)."""
    paired = [item for item in items if len(item) >= _PAIR]
    return sum(map(_is_within_one, paired)) / len(paired) if paired else float("nan")


def fleiss_kappa(items: Items) -> float:
    """Return the kappa of Fleiss (1971); items may have different numbers of ratings."""
    values = _levels(items)
    return float(kappa(coincidences(items, values), values, weights="nominal"))


def weighted_kappa(items: Items) -> float:
    """Return the kappa of Fleiss where a disagreement counts by its square."""
    values = _levels(items)
    return float(kappa(coincidences(items, values), values, weights="quadratic"))


def krippendorff_alpha(items: Items, scale: Literal["nominal", "ordinal"]) -> float:
    """Return the alpha of Krippendorff (2019, chapter 12) for a scale."""
    return float(alpha(coincidences(items, _levels(items)), scale))


def coincidences(items: Items, values: Numbers) -> Numbers:
    """Return how often two ratings of an item were such ``values`` (L,): (L, L), symmetric."""
    paired = [item for item in items if len(item) >= _PAIR]
    if not paired:
        return np.zeros((len(values), len(values)))
    counts = np.array([(np.asarray(item)[:, None] == values).sum(0) for item in paired], float)
    weights = 1 / (counts.sum(1) - 1)
    both: Numbers = (counts * weights[:, None]).T @ counts
    return both - np.diag((counts * weights[:, None]).sum(0))


def kappa(tables: Numbers, values: Numbers, *, weights: Literal["nominal", "quadratic"]) -> Numbers:
    """Return kappas of coincidences (..., L, L): (...)."""
    apart = values[:, None] - values
    distance = (apart != 0).astype(float) if weights == "nominal" else apart**2.0
    n = tables.sum(-1)
    seen, chance = (tables * distance).sum((-2, -1)), _products(n, distance)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = 1 - seen * n.sum(-1) / chance
    return found


def alpha(tables: Numbers, scale: Literal["nominal", "ordinal"]) -> Numbers:
    """Return alphas of coincidences (..., L, L), whose values stand in order: (...).

    On an ordinal scale two values are as far apart as the ratings that lie between them.
    """
    n = tables.sum(-1)
    if scale == "nominal":
        distance = 1 - np.broadcast_to(np.eye(n.shape[-1]), tables.shape)
    else:
        rank = n.cumsum(-1) - n / 2
        distance = (rank[..., :, None] - rank[..., None, :]) ** 2
    seen, chance = (tables * distance).sum((-2, -1)), _products(n, distance)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = 1 - seen * (n.sum(-1) - 1) / chance
    return found


def _products(n: Numbers, distance: Numbers) -> Numbers:
    """Return the disagreement of values that are paired by chance, times the square of their sum.

    The product of a value with itself has distance 0.
    """
    found: Numbers = (n[..., :, None] * n[..., None, :] * distance).sum((-2, -1))
    return found


def _metrics(values: Numbers) -> Mapping[str, Metric]:
    """Return :data:`MEASURES` as functions of items, those within one, and coincidences."""
    size = len(values)

    def tables(sums: Numbers) -> Numbers:
        return sums[:, 2:].reshape(-1, size, size)

    def of(measure: Metric, sums: Numbers) -> Numbers:
        return measure(tables(sums))

    return {
        "within_one": lambda sums: sums[:, 1] / sums[:, 0],
        "fleiss_kappa": partial(of, partial(kappa, values=values, weights="nominal")),
        "weighted_kappa": partial(of, partial(kappa, values=values, weights="quadratic")),
        "alpha_ordinal": partial(of, partial(alpha, scale="ordinal")),
        "alpha_nominal": partial(of, partial(alpha, scale="nominal")),
    }


def _levels(items: Items) -> Numbers:
    """Return the values that were given to items with two ratings or more, in order."""
    return np.unique([value for item in items if len(item) >= _PAIR for value in item]).astype(
        float
    )


def _is_within_one(item: Sequence[int]) -> bool:
    return max(item) - min(item) <= 1
