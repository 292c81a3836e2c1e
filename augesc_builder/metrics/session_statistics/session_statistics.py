"""Statistics of sessions, as the paper's Table 2 has them.

Offline, as a class::

    SessionStatistics().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/session_statistics", module_type="measurement")``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import evaluate

from augesc_builder.metrics.spoken import FEATURES, ROLES, Spoken, mean, spoken
from augesc_builder.prompts import Message

DESCRIPTION = """\
Sessions, their mean length in words, unique words; and for seeker and supporter: utterances,
utterances a session, words an utterance, unique words. Words are NLTK's, case-sensitive, with
punctuation marks (section 4.2 of the AugESC paper). The histograms are those beside its Table 2.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order; the seeker is
        "user", the supporter "assistant".
Returns:
    sessions (count), mean_session_words (words of all utterances of a session), unique_words,
    session_utterances: a histogram, a list of [utterances of a session, sessions];
    and the dictionaries seeker and supporter with utterances (count), mean_utterances (a session),
    mean_utterance_words, unique_words, and utterance_words: a histogram, a list of [words of an
    utterance, utterances]. A mean of nothing is None.
"""

CITATION = "Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, section 5.1."


@dataclass
class RoleCounts:
    """What one role said: how long its utterances are, and all its words."""

    lengths: Counter[int] = field(default_factory=Counter)
    vocabulary: set[str] = field(default_factory=set)

    @property
    def utterances(self) -> int:
        """Count its utterances."""
        return self.lengths.total()

    @property
    def words(self) -> int:
        """Count its words."""
        return sum(length * n for length, n in self.lengths.items())


@dataclass
class SessionCounts:
    """Counts that can be made piece by piece and merged in any order."""

    utterances: Counter[int] = field(default_factory=Counter)
    """For each number of utterances, how many sessions have so many."""

    roles: dict[str, RoleCounts] = field(
        default_factory=lambda: {role: RoleCounts() for role in ROLES}
    )

    def add(self, session: Spoken) -> None:
        """Count a session."""
        self.utterances[len(session)] += 1
        for said in session:
            role = self.roles[said.role]
            role.lengths[len(said.words)] += 1
            role.vocabulary.update(said.words)

    def merge(self, other: SessionCounts) -> None:
        """Add the counts of other sessions."""
        self.utterances.update(other.utterances)
        for name, theirs in other.roles.items():
            role = self.roles[name]
            role.lengths.update(theirs.lengths)
            role.vocabulary |= theirs.vocabulary

    def statistics(self) -> dict[str, Any]:
        """Give the numbers of Table 2; a mean of nothing is ``None``."""
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
                    "utterance_words": _histogram(role.lengths),
                }
                for label, role in (("seeker", seeker), ("supporter", supporter))
            },
        }


def _histogram(counts: Counter[int]) -> list[list[int]]:
    return [[value, n] for value, n in sorted(counts.items())]


def count_sessions(sessions: Iterable[Sequence[Message]]) -> SessionCounts:
    """Count many sessions."""
    counts = SessionCounts()
    for messages in sessions:
        counts.add(spoken(messages))
    return counts


class SessionStatistics(evaluate.Measurement):  # type: ignore[misc]
    """Table 2 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(self, messages: Iterable[Sequence[Message]]) -> dict[str, Any]:
        return count_sessions(messages).statistics()
