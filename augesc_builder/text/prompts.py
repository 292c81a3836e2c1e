"""Conversations as text and back (section 4.1, figure 2).

``parse(render(messages)) == messages`` for every list of utterances that :func:`render` accepts.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from typing import TypedDict

SEEKER, SUPPORTER = "Human", "AI"
"""The role words of the paper's template."""

ROLE_WORD = {"user": SEEKER, "assistant": SUPPORTER}
ROLE = {word: role for role, word in ROLE_WORD.items()}


class Message(TypedDict):
    """One utterance: ``role`` is ``user`` (seeker) or ``assistant`` (supporter)."""

    role: str
    content: str


def render(messages: Sequence[Message]) -> str:
    r"""Write a conversation as lines ``Human: ...`` and ``AI: ...``, separated by ``\n``.

    Raises ``ValueError`` for an utterance that would not come back: empty, with a line break, or
    with white space at its ends; see :func:`collapse`.
    """
    for message in messages:
        content = message["content"]
        if not content or "\n" in content or content != content.strip():
            raise ValueError(f"not one line of trimmed text: {content!r}; use collapse() on it")
    return "\n".join(f"{ROLE_WORD[m['role']]}: {m['content']}" for m in messages)


def render_query(query: str) -> str:
    """Write a trigger query and the supporter's cue, which the model continues."""
    return f"{render([{'role': 'user', 'content': query}])}\n{SUPPORTER}:"


def with_instruction(instruction: str, conversation: str) -> str:
    """Put the task instruction in front of a conversation's text."""
    return f"{instruction}\n{conversation}"


def parse(text: str) -> list[Message] | None:
    """Read a conversation's text; ``None`` when a line has no role (the ``format`` requirement).

    A line's role stands behind any punctuation and white space at its start. Blank lines are
    skipped, and so are lines with a role and nothing else: an utterance has words.
    """
    messages: list[Message] = []
    for line in text.split("\n"):
        word, colon, content = line.partition(":")
        if word not in ROLE:  # or not at first sight
            spoken = _strip_start(line)
            if not spoken:
                if line.strip():
                    return None
                continue
            word, colon, content = spoken.partition(":")
        if not colon or word not in ROLE:
            return None
        if content := content.strip():
            messages.append({"role": ROLE[word], "content": content})
    return messages


def collapse(text: str) -> str:
    """Collapse every run of white space to one blank and trim the ends."""
    return " ".join(text.split())


def _strip_start(line: str) -> str:
    """Remove punctuation (ASCII symbols such as ``*`` and ``>`` too) and white space in front."""
    for i, char in enumerate(line):
        if not (
            char.isspace()
            or char in string.punctuation
            or unicodedata.category(char).startswith("P")
        ):
            return line[i:]
    return ""
