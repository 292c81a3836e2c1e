"""Statistics of sessions, as the paper's Table 2 has them.

Offline, as a class::

    SessionStatistics().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/session_statistics", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import evaluate

from augesc_builder.prompts import Message
from augesc_builder.words import tokenize

DESCRIPTION = """\
Sessions, their mean length in words, unique words; and for seeker and supporter: utterances,
utterances a session, words an utterance, unique words. Words are NLTK's, case-sensitive, with
punctuation marks (section 4.2 of the AugESC paper).
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order; the seeker is
        "user", the supporter "assistant".
Returns:
    sessions (count), mean_session_words (words of all utterances of a session), unique_words,
    and the dictionaries seeker and supporter with utterances (count), mean_utterances (a session),
    mean_utterance_words, unique_words. A mean of nothing is None.
"""

CITATION = "Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, section 5.1."


@dataclass
class RoleCounts:
    """What one role said."""

    utterances: int = 0
    words: int = 0
    vocabulary: set[str] = field(default_factory=set)


@dataclass
class SessionCounts:
    """Counts that can be made piece by piece and merged in any order."""

    sessions: int = 0
    roles: dict[str, RoleCounts] = field(
        default_factory=lambda: {"user": RoleCounts(), "assistant": RoleCounts()}
    )

    def add(self, messages: Sequence[Message]) -> None:
        """Count a session."""
        self.sessions += 1
        for message in messages:
            role, words = self.roles[message["role"]], tokenize(message["content"])
            role.utterances += 1
            role.words += len(words)
            role.vocabulary.update(words)

    def merge(self, other: SessionCounts) -> None:
        """Add the counts of other sessions."""
        self.sessions += other.sessions
        for name, theirs in other.roles.items():
            role = self.roles[name]
            role.utterances += theirs.utterances
            role.words += theirs.words
            role.vocabulary |= theirs.vocabulary

    def statistics(self) -> dict[str, Any]:
        """Give the numbers of Table 2; a mean of nothing is ``None``."""
        seeker, supporter = self.roles["user"], self.roles["assistant"]
        return {
            "sessions": self.sessions,
            "mean_session_words": _mean(seeker.words + supporter.words, self.sessions),
            "unique_words": len(seeker.vocabulary | supporter.vocabulary),
            "seeker": self._role(seeker),
            "supporter": self._role(supporter),
        }

    def _role(self, role: RoleCounts) -> dict[str, Any]:
        return {
            "utterances": role.utterances,
            "mean_utterances": _mean(role.utterances, self.sessions),
            "mean_utterance_words": _mean(role.words, role.utterances),
            "unique_words": len(role.vocabulary),
        }


def count_sessions(sessions: Iterable[Sequence[Message]]) -> SessionCounts:
    """Count many sessions."""
    counts = SessionCounts()
    for messages in sessions:
        counts.add(messages)
    return counts


class SessionStatistics(evaluate.Measurement):  # type: ignore[misc]
    """Table 2 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=datasets.Features(
                {
                    "messages": [
                        {"role": datasets.Value("string"), "content": datasets.Value("string")}
                    ]
                }
            ),
        )

    def _compute(self, messages: Iterable[Sequence[Message]]) -> dict[str, Any]:
        return count_sessions(messages).statistics()


def _mean(total: int, n: int) -> float | None:
    return total / n if n else None
