"""The interface of all scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from augesc_builder.text.prompts import Message


class Question(NamedTuple):
    """A session, and by the number of an utterance what might have stood there: itself first."""

    session: Sequence[Message]
    candidates: Mapping[int, Sequence[str]]


Answer = dict[int, list[float]]
"""By the number of an utterance how well each of its candidates fits there: higher is better."""


class Scorer(Protocol):
    """Says how well turns fit a conversation.

    Only the order of what stands for one utterance means anything. The answer for an utterance
    depends on what was said before it and on its candidates alone.
    """

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on, as plain JSON; ``scorer`` is its name."""

    def fit(self, questions: Sequence[Question]) -> list[Answer]:
        """Score the candidates of each session."""
