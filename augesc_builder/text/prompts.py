"""Conversations as text and back (section 4.1, figure 2).

``parse(render(messages)) == messages`` for every list of utterances that :func:`render` accepts.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from augesc_builder.models.token_codec import readable

SEEKER, SUPPORTER = "Human", "AI"
"""The role words of the paper's template."""

ROLE_WORD = {"user": SEEKER, "assistant": SUPPORTER}
ROLE = {word: role for role, word in ROLE_WORD.items()}

SPEAKER = {"user": "Seeker", "assistant": "Supporter"}
"""Who speaks, as pages for people say it."""


class Message(TypedDict):
    """One utterance: ``role`` is ``user`` (seeker) or ``assistant`` (supporter)."""

    role: str
    content: str


def check(messages: Sequence[Message]) -> None:
    """Refuse utterances that would not come back from a text.

    Raises ``ValueError`` for one that is empty, has a line break or white space at its ends (see
    :func:`collapse`), or half of a surrogate pair, which is no text.
    """
    for message in messages:
        content = message["content"]
        if not content or "\n" in content or content != content.strip():
            raise ValueError(f"not one line of trimmed text: {content!r}; use collapse() on it")
        content.encode()


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


@dataclass(frozen=True)
class PromptTemplate:
    """The one form that a model is trained on and continues (section 4.1, figure 2).

    The task instruction, where there is one, stands on lines of its own before the conversation.
    ``parse(for_session(messages)) == messages``, and what ``parse`` finds behind
    ``for_query(query)`` is the query and what continues it.
    """

    instruction: str = ""

    @property
    def prefix(self) -> str:
        """Return what stands before the conversation."""
        return f"{self.instruction}\n" if self.instruction else ""

    def for_session(self, messages: Sequence[Message]) -> str:
        """Return a whole conversation; raises as :func:`render` does."""
        return self.prefix + render(messages)

    def for_query(self, query: str) -> str:
        """Return a query and the supporter's cue, which the model continues."""
        return self.prefix + render_query(query)

    def lines(self, text: str) -> str:
        """Return what continues a query as the tables have it, with control tokens as such in it.

        Each becomes the beginning of a line without a role (the ``format`` requirement).
        """
        return readable(text)

    def parse(self, text: str) -> list[Message] | None:
        """Return the utterances behind the instruction, as :func:`parse` reads them.

        Raises ``ValueError`` for a text that does not begin with the instruction.
        """
        if not text.startswith(self.prefix):
            raise ValueError(f"expected {self.prefix[:60]!r} first, found {text[:60]!r}")
        return parse(text[len(self.prefix) :])


PLAIN = PromptTemplate()
"""The template without an instruction: generations and sessions hold none."""


def whole_text(query: str | None, text: str, template: PromptTemplate = PLAIN) -> str:
    """Return a continuation behind its query; a text without one is whole."""
    return template.prefix + text if query is None else template.for_query(collapse(query)) + text


def read_text(query: str | None, text: str, template: PromptTemplate = PLAIN) -> str:
    """Return the text of the conversation that is read from a continuation, and its prompt.

    What reading takes away, such as punctuation at a line's beginning, is gone (section 4.3). What
    is no conversation is returned as it is.
    """
    messages = template.parse(whole := whole_text(query, text, template))
    return whole if messages is None else template.for_session(messages)


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
