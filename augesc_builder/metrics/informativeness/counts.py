"""What turns add, over a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augesc_builder.metrics.progress import Mean, ProgressMeans
from augesc_builder.metrics.scored import Scored
from augesc_builder.text.prompts import Message

NUMBERS = ("new_words", "new_facts", "new_share")


class InformativenessCounts:
    """Means of sessions and turns; those of other sessions can be merged in."""

    def __init__(self) -> None:
        self._sessions = 0
        self._numbers = {name: Mean() for name in NUMBERS}
        self._turns = ProgressMeans()

    def add(self, session: Sequence[Message], scored: Scored) -> None:
        """Count a session."""
        self._sessions += 1
        for name, mean in self._numbers.items():
            mean.add(scored.session[name])
        self._turns.add(session, scored.scores)

    def merge(self, other: InformativenessCounts) -> None:
        """Add the counts of other sessions."""
        self._sessions += other._sessions
        for name, mean in other._numbers.items():
            self._numbers[name].merge(mean)
        self._turns.merge(other._turns)

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        numbers = {name: mean.value for name, mean in self._numbers.items()}
        return {"sessions": self._sessions, **numbers, **self._turns.statistics()}
