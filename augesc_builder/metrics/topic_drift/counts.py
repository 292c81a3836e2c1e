"""Topic drift over a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augesc_builder.metrics.progress import Mean, ProgressMeans
from augesc_builder.metrics.scored import Scored
from augesc_builder.text.prompts import Message


class DriftCounts:
    """Means of sessions and turns; those of other sessions can be merged in."""

    def __init__(self) -> None:
        self._sessions = 0
        self._drift, self._drifted, self._changed, self._place = Mean(), Mean(), Mean(), Mean()
        self._turns = ProgressMeans()

    def add(self, session: Sequence[Message], scored: Scored) -> None:
        """Count a session."""
        where = scored.session["change_point"]
        self._sessions += 1
        self._drift.add(scored.session["drift"])
        self._drifted.add(scored.session["drifted"])
        if scored.session["drift"] is not None:
            self._changed.add(float(where is not None))
        if where is not None:
            self._place.add(where / len(session))
        self._turns.add(session, scored.scores)

    def merge(self, other: DriftCounts) -> None:
        """Add the counts of other sessions."""
        self._sessions += other._sessions
        self._drift.merge(other._drift)
        self._drifted.merge(other._drifted)
        self._changed.merge(other._changed)
        self._place.merge(other._place)
        self._turns.merge(other._turns)

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        supporter = self._turns.statistics()["supporter"]
        return {
            "sessions": self._sessions,
            "scored_sessions": self._drift.n,
            "drift": self._drift.value,
            "drifted_share": self._drifted.value,
            "change_share": self._changed.value,
            "change_place": self._place.value,
            "scored_turns": supporter["utterances"],
            "by_progress": supporter["by_progress"],
        }
