"""How far the words that tell sets apart are those that another figure prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def agreement(scores: Mapping[str, float], printed: Mapping[str, float]) -> dict[str, Any]:
    """Compare z of all words with those printed for the highest of them.

    - ``printed``: how many words that is
    - ``shared``: how many of them are among as many of ours
    - ``rank_correlation``: Spearman's, over printed words that ours has, ties at their mean rank;
      ``None`` where fewer than three are had, or one side does not vary
    """
    ours = sorted(scores, key=lambda word: (-scores[word], word))[: len(printed)]
    known = [word for word in printed if word in scores]
    return {
        "printed": len(printed),
        "shared": len(set(ours) & set(printed)),
        "rank_correlation": rank_correlation(
            [scores[word] for word in known], [printed[word] for word in known]
        ),
    }


def rank_correlation(some: Sequence[float], others: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; ``None`` below three pairs, or where a side is level."""
    ranks = [_ranks(values) for values in (some, others)]
    if len(some) < 3 or any(np.ptp(side) == 0 for side in ranks):  # noqa: PLR2004
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Sequence[float]) -> Any:
    """Return the rank of each value; equal ones share the mean of theirs."""
    _, at, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[at]
