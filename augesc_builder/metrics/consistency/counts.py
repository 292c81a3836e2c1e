"""Contradictions and confusions of roles of a corpus, by who said them and what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from augesc_builder.metrics.scored import Scored
from augesc_builder.metrics.tokenized import ROLES, mean
from augesc_builder.text.prompts import Message

ROLE_CONFUSIONS = ("seeker supports", "supporter asks", "story taken over")
"""Kinds of findings that are no contradictions."""


class ConsistencyCounts:
    """Counts of findings; those of other sessions can be merged in."""

    def __init__(self) -> None:
        self.sessions = self.contradicting = self.confused = 0
        self._of: Counter[tuple[str, str]] = Counter()

    def add(self, sessions: Sequence[Sequence[Message]], scored: Sequence[Scored]) -> None:
        """Count what was found in sessions."""
        for messages, found in zip(sessions, scored, strict=True):
            self.sessions += 1
            self.contradicting += any(f.kind not in ROLE_CONFUSIONS for f in found.findings)
            self.confused += any(f.kind in ROLE_CONFUSIONS for f in found.findings)
            self._of.update((ROLES[messages[f.utterance]["role"]], f.kind) for f in found.findings)

    def merge(self, other: ConsistencyCounts) -> None:
        """Add the counts of other sessions."""
        self.sessions += other.sessions
        self.contradicting += other.contradicting
        self.confused += other.confused
        self._of.update(other._of)

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        confusions = sum(n for (_, kind), n in self._of.items() if kind in ROLE_CONFUSIONS)
        contradictions = self._of.total() - confusions
        return {
            "sessions": self.sessions,
            "contradictions": contradictions,
            "contradictions_per_session": mean(contradictions, self.sessions),
            "sessions_with_contradiction": self.contradicting,
            "contradicting_share": mean(self.contradicting, self.sessions),
            "role_confusions": confusions,
            "role_confusions_per_session": mean(confusions, self.sessions),
            "sessions_with_role_confusion": self.confused,
            "confused_share": mean(self.confused, self.sessions),
            "by_speaker_and_kind": {
                speaker: {kind: n for (who, kind), n in sorted(self._of.items()) if who == speaker}
                for speaker in ROLES.values()
            },
        }
