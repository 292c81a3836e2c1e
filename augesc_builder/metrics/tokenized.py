"""A session whose words are counted once, for every measurement that asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from augesc_builder.text.prompts import Message
from augesc_builder.text.words import tokenize

ROLES = {"user": "seeker", "assistant": "supporter"}
"""What the paper calls the roles of messages."""


class Utterance(NamedTuple):
    """What somebody said at a time; ``role`` is ``user`` or ``assistant``."""

    role: str
    text: str
    words: list[str]


Spoken = list[Utterance]


def spoken(messages: Sequence[Message]) -> Spoken:
    """Return a session with the words of each utterance."""
    return [Utterance(m["role"], m["content"], tokenize(m["content"])) for m in messages]


def text_of(session: Spoken) -> str:
    """Return all that is said in a session, and by whom: equal for equal sessions alone."""
    return "\n".join(f"{said.role} {said.text}" for said in session)


def mean(total: float, n: int) -> float | None:
    """Return a mean; that of nothing is undefined."""
    return total / n if n else None
