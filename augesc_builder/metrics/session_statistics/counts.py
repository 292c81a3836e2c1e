"""Counts behind Table 2, made chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.tokenized import ROLES, Spoken, mean, spoken
from augesc_builder.text.prompts import Message


@dataclass
class RoleCounts:
    """What one role said: how much of it, how long its utterances are, and all its words."""

    in_session: Counter[int] = field(default_factory=Counter)
    """For each number of utterances of this role, how many sessions have so many."""

    lengths: Counter[int] = field(default_factory=Counter)
    vocabulary: set[str] = field(default_factory=set)

    def state(self) -> State:
        """Return the counts as data."""
        return {
            "in_session": _histogram(self.in_session),
            "lengths": _histogram(self.lengths),
            "vocabulary": sorted(self.vocabulary),
        }

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.in_session, self.lengths = (
            Counter(dict(state[name])) for name in ("in_session", "lengths")
        )
        self.vocabulary = set(state["vocabulary"])

    @property
    def utterances(self) -> int:
        """Return the number of its utterances."""
        return self.lengths.total()

    @property
    def words(self) -> int:
        """Return the number of its words."""
        return sum(length * n for length, n in self.lengths.items())


@dataclass
class SessionCounts:
    """Counts that can be made chunk by chunk and merged in any order."""

    utterances: Counter[int] = field(default_factory=Counter)
    """For each number of utterances, how many sessions have so many."""

    roles: dict[str, RoleCounts] = field(
        default_factory=lambda: {role: RoleCounts() for role in ROLES}
    )

    def add(self, session: Spoken) -> None:
        """Count a session."""
        self.utterances[len(session)] += 1
        for name, role in self.roles.items():
            role.in_session[sum(said.role == name for said in session)] += 1
        for said in session:
            role = self.roles[said.role]
            role.lengths[len(said.words)] += 1
            role.vocabulary.update(said.words)

    def merge(self, other: SessionCounts) -> None:
        """Add the counts of other sessions."""
        self.utterances.update(other.utterances)
        for name, theirs in other.roles.items():
            role = self.roles[name]
            role.in_session.update(theirs.in_session)
            role.lengths.update(theirs.lengths)
            role.vocabulary |= theirs.vocabulary

    def state(self) -> State:
        """Return the counts as data."""
        found: dict[str, Any] = {"utterances": _histogram(self.utterances)}
        for name, role in self.roles.items():
            found |= below(name, role.state())
        return found

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.utterances = Counter(dict(state["utterances"]))
        for name, role in self.roles.items():
            role.load(part_of(state, name))

    def statistics(self) -> dict[str, Any]:
        """Return the numbers of Table 2; a mean of nothing is ``None``."""
        seeker, supporter = self.roles["user"], self.roles["assistant"]
        sessions = self.utterances.total()
        return {
            "sessions": sessions,
            "mean_session_words": mean(seeker.words + supporter.words, sessions),
            "unique_words": len(seeker.vocabulary | supporter.vocabulary),
            "session_utterances": _histogram(self.utterances),
            **{
                label: {
                    "utterances": role.utterances,
                    "mean_utterances": mean(role.utterances, sessions),
                    "mean_utterance_words": mean(role.words, role.utterances),
                    "unique_words": len(role.vocabulary),
                    "session_utterances": _histogram(role.in_session),
                    "utterance_words": _histogram(role.lengths),
                }
                for label, role in (("seeker", seeker), ("supporter", supporter))
            },
        }


def _histogram(counts: Counter[int]) -> list[list[int]]:
    return [[value, n] for value, n in sorted(counts.items())]


def count_sessions(sessions: Iterable[Sequence[Message]]) -> SessionCounts:
    """Return the counts of many sessions."""
    counts = SessionCounts()
    for messages in sessions:
        counts.add(spoken(messages))
    return counts
