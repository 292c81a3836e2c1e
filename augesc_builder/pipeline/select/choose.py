"""Which candidates are kept of each query: those that are best by a score."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from augesc_builder.config.generate import Quota

Reason = Literal["score", "beyond_keep"]
"""Why a candidate is not kept: others of its query are better, or enough are kept."""


@dataclass(frozen=True)
class Candidate:
    """A session that met the requirements; ``score`` is ``None`` where the measure says nothing."""

    session_id: str
    query_id: str
    source: str
    sample: int
    score: float | None


@dataclass(frozen=True)
class Verdict:
    """``reason`` is ``None`` for what is kept; ``best`` is the best candidate of the query."""

    candidate: Candidate
    reason: Reason | None
    best: Candidate


def ranked(candidates: Sequence[Candidate], order: str) -> list[Candidate]:
    """Return the candidates of a query, the best first: ties by sample number, no score last."""
    sign = -1 if order == "highest" else 1

    def rank(one: Candidate) -> tuple[bool, float, int]:
        has_none = one.score is None or math.isnan(one.score)
        return has_none, 0.0 if has_none or one.score is None else sign * one.score, one.sample

    return sorted(candidates, key=rank)


def choose(
    candidates: Sequence[Candidate],
    order: str,
    per_query: int | None,
    quotas: Sequence[Quota] = (),
) -> dict[str, Verdict]:
    """Return the verdict on each candidate by its id.

    Queries come in the order of their first candidates. ``per_query`` ``None`` keeps all of each.
    Where ``quotas`` say how many are kept, the first queries give them.
    """
    by_query: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_query.setdefault(one.query_id, []).append(one)
    kept: Counter[str | None] = Counter()
    limits = {quota.source: quota.keep for quota in quotas}
    found: dict[str, Verdict] = {}
    for of_query in by_query.values():
        best_first = ranked(of_query, order)
        best, n = best_first[0], per_query or len(best_first)
        for i, one in enumerate(best_first):
            source = None if None in limits else one.source
            reason: Reason | None = None
            if i >= n:
                reason = "score"
            elif limits and kept[source] >= limits.get(source, 0):
                reason = "beyond_keep"
            else:
                kept[source] += 1
            found[one.session_id] = Verdict(one, reason, best)
    return found
