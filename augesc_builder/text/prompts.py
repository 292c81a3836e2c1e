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


BACKGROUND = "Background"
"""What stands before the background of a conversation, as the role words before utterances."""


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


def check_background(background: str, wanted: bool) -> None:
    """Refuse a background that would not come back from a text.

    Raises ``ValueError`` for one that is not one line of trimmed text (see :func:`collapse`), and
    for any where the template is not ``wanted`` to have one.
    """
    if not wanted:
        raise ValueError("this template has no background; set its background to True")
    check([{"role": "user", "content": background}])


def background_cue(spoken: str, begun: str) -> str:
    """Return what is said, and behind it the cue of the background, or how that begins."""
    return f"{spoken}\n{BACKGROUND}:" + (f" {begun}" if begun else "")


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

    The task instruction, where there is one, stands on lines of its own before the conversation;
    with ``background``, a line ``Background: ...`` may stand between them (ours: what the paper's
    section 6.4 misses), of which the model is given a conversation's query and writes the rest.

    ``parse(for_session(messages, background)) == messages``, ``parse_background`` of it is the
    background, and what ``parse`` finds behind ``for_query(query)`` is the query and what continues
    it.
    """

    instruction: str = ""
    background: bool = False

    @property
    def prefix(self) -> str:
        """Return what stands before the conversation, where that has no background."""
        return self.opening()

    def opening(self, background: str | None = None) -> str:
        """Return what stands before the conversation.

        Raises ``ValueError`` for a background that is not one line of trimmed text, or that the
        template has no place for.
        """
        lines = [self.instruction] if self.instruction else []
        if background is not None:
            check_background(background, self.background)
            lines.append(f"{BACKGROUND}: {background}")
        return "".join(f"{line}\n" for line in lines)

    def for_session(self, messages: Sequence[Message], background: str | None = None) -> str:
        """Return a whole conversation; raises as :func:`render` and :meth:`opening` do."""
        return self.opening(background) + render(messages)

    def for_query(self, query: str, background: str | None = None) -> str:
        """Return a query and the supporter's cue, which the model continues."""
        return self.opening(background) + render_query(query)

    def for_background(self, query: str, begun: str = "") -> str:
        """Return a query and the cue of its background, which the model continues to a line's end.

        ``begun`` is what the background begins with.
        """
        return self.opening() + background_cue(render([{"role": "user", "content": query}]), begun)

    def lines(self, text: str) -> str:
        """Return what continues a query as the tables have it, with control tokens as such in it.

        Each becomes the beginning of a line without a role (the ``format`` requirement).
        """
        return readable(text)

    def parse(self, text: str) -> list[Message] | None:
        """Return the utterances behind the instruction, as :func:`parse` reads them.

        Raises ``ValueError`` for a text that does not begin with the instruction.
        """
        return parse(text[len(self.opening(self.parse_background(text))) :])

    def parse_background(self, text: str) -> str | None:
        """Return the background of a conversation's text; ``None`` where it has none.

        Raises ``ValueError`` for a text that does not begin with the instruction.
        """
        if not text.startswith(self.prefix):
            raise ValueError(f"expected {self.prefix[:60]!r} first, found {text[:60]!r}")
        line, end, _ = text[len(self.prefix) :].partition("\n")
        background = line.removeprefix(f"{BACKGROUND}: ")
        fits = background != line and background and background == background.strip()
        return background if self.background and end and fits else None


PLAIN = PromptTemplate()
"""The template without an instruction: generations and sessions hold none."""


def whole_text(
    query: str | None,
    text: str,
    template: PromptTemplate = PLAIN,
    background: str | None = None,
) -> str:
    """Return a continuation behind its background and query; a text without a query is whole."""
    if query is None:
        return template.opening(background) + text
    return template.for_query(collapse(query), background) + text


def read_text(
    query: str | None,
    text: str,
    template: PromptTemplate = PLAIN,
    background: str | None = None,
) -> str:
    """Return the text of the conversation that is read from a continuation, and its prompt.

    What reading takes away, such as punctuation at a line's beginning, is gone (section 4.3). What
    is no conversation is returned as it is.
    """
    messages = template.parse(whole := whole_text(query, text, template, background))
    if messages is None:
        return whole
    return template.for_session(messages, template.parse_background(whole))


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
