"""Means of a number an utterance over a corpus: in all, by role, and by how far the session is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from augesc_builder.metrics.tokenized import ROLES
from augesc_builder.text.prompts import Message

PARTS = 5
"""Equal parts of a session's utterances, first to last."""


class Mean:
    """A mean of numbers that is the same in whatever order and pieces they come: sums are exact."""

    def __init__(self) -> None:
        self.n = 0
        self._total = Fraction(0)

    def add(self, value: float | None) -> None:
        """Count a finite number; ``None`` counts for nothing."""
        if value is not None:
            self.n += 1
            self._total += Fraction(value)

    def merge(self, other: Mean) -> None:
        """Add the numbers of another."""
        self.n += other.n
        self._total += other._total

    @property
    def value(self) -> float | None:
        """Return the mean; that of nothing is undefined."""
        return float(self._total / self.n) if self.n else None


class ProgressMeans:
    """Means by role and part of the session; those of other sessions can be merged in."""

    def __init__(self) -> None:
        self._means = {(role, part): Mean() for role in ROLES for part in range(PARTS)}

    def add(self, session: Sequence[Message], scores: Sequence[float | None]) -> None:
        """Count a session with its number an utterance, ``None`` where there is none."""
        for i, (message, score) in enumerate(zip(session, scores, strict=True)):
            self._means[message["role"], i * PARTS // len(session)].add(score)

    def merge(self, other: ProgressMeans) -> None:
        """Add the means of other sessions."""
        for key, mean in other._means.items():
            self._means[key].merge(mean)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return for seeker and supporter ``utterances`` (count), ``mean`` and ``by_progress``.

        The last are the means of :data:`PARTS` equal parts of the sessions, first to last.
        """
        found = {}
        for role, label in ROLES.items():
            whole = Mean()
            parts = [self._means[role, part] for part in range(PARTS)]
            for part in parts:
                whole.merge(part)
            found[label] = {
                "utterances": whole.n,
                "mean": whole.value,
                "by_progress": [part.value for part in parts],
            }
        return found
