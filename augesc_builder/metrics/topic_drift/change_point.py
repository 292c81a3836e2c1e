"""Where a session's turns begin to rank lower than before."""

from __future__ import annotations

import math
from collections.abc import Sequence

AT_LEAST = 2
"""Turns on each side of a change: one that strays and comes back is none."""


def change_point(ranks: Sequence[float], n: int, threshold: float) -> int | None:
    """Return the number of the first turn of the lower part, or ``None`` where there is no change.

    Ranks are from 0 to 1, each among ``n`` others. They are cut in two where their means differ
    most, which is measured as ``z``: the mean before less the mean behind, in standard errors of
    such a difference between ranks that are all drawn by chance. Each part has at least
    :data:`AT_LEAST` ranks. There is a change where ``z`` reaches the threshold; of equal cuts the
    first counts.
    """
    spread = math.sqrt((n + 2) / (12 * n))  # of n + 1 ranks that are equally likely
    total, before = math.fsum(ranks), 0.0
    best, found = threshold, None
    for n_before, rank in enumerate(ranks, 1):
        before += rank
        n_behind = len(ranks) - n_before
        if n_before < AT_LEAST or n_behind < AT_LEAST:
            continue
        error = spread * math.sqrt(1 / n_before + 1 / n_behind)
        z = (before / n_before - (total - before) / n_behind) / error
        if z > best or (found is None and z == best):
            best, found = z, n_before
    return found
