"""Sessions and what is found in them, for the tests of consistency."""

from __future__ import annotations

from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.metrics.scored import Finding
from augesc_builder.text.prompts import Message


def session(*texts: str) -> list[Message]:
    """Give a session in which the seeker and the supporter speak in turns, the seeker first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def by_seeker(*texts: str) -> list[Message]:
    """Give a session in which the seeker says these texts, and the supporter nothing of note."""
    return [message for text in texts for message in session(text, "I see.")]


def findings(messages: list[Message]) -> tuple[Finding, ...]:
    """Give what is found in one session."""
    return Consistency().score([messages])[0].findings


def kinds(*texts: str) -> list[str]:
    """Give the kinds of what is found where the seeker says these texts."""
    return [found.kind for found in findings(by_seeker(*texts))]
