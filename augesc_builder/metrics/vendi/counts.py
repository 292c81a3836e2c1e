"""The Vendi score of a sample of a corpus, counted chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augesc_builder.metrics.sample import Sample, rank_of
from augesc_builder.metrics.tokenized import Spoken
from augesc_builder.metrics.vendi.score import held_by, score_of

SESSIONS = 500
"""Sessions that are compared, at most: time grows with the cube of it, to about a second."""


class VendiCounts:
    """Sessions drawn by the seed and what they hold; parts merge in any order."""

    def __init__(self, seed: int = 0, size: int = SESSIONS) -> None:
        self.seed, self.sessions = seed, 0
        self._drawn: Sample[tuple[int, ...]] = Sample(size)

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Offer sessions."""
        self.sessions += len(sessions)
        for session, held in zip(sessions, held_by(sessions), strict=True):
            self._drawn.add(rank_of(session, self.seed), tuple(held.tolist()))

    def merge(self, other: VendiCounts) -> None:
        """Add the sessions of another."""
        self.sessions += other.sessions
        self._drawn.merge(other._drawn)

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        held = [np.array(item, np.uint64) for item in self._drawn]
        return {"vendi": score_of(held), "compared": len(held), "sessions": self.sessions}
