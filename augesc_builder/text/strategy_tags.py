"""Support strategies as tags before what a supporter says (``prompt.strategies``).

``AI: [Question] How long has it been?``: the model names its strategy and then follows it. Tables
hold utterances without tags, and the strategies beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from augesc_builder.text.prompts import SUPPORTER, Message, parse

_TAG = re.compile(r"\[([^\[\]\s](?:[^\[\]\n]{0,38}[^\[\]\s])?)\]\s+(?=\S)")
"""A tag before words: a name of at most 40 characters."""

Strategies = Sequence[str | None]
"""Those of a conversation, one a message; ``None`` for the seeker and where none is given."""


def tagged(messages: Sequence[Message], strategies: Strategies | None) -> list[Message]:
    """Return messages with their strategies as tags.

    Raises ``ValueError`` where they would not come back by :func:`untagged`: for a strategy that is
    no name, one of the seeker, more or fewer than messages, and a supporter's utterance that begins
    as if it were tagged.
    """
    found: list[Message] = []
    for message, strategy in zip(messages, strategies or [None] * len(messages), strict=True):
        role, content = message["role"], message["content"]
        if strategy is not None:
            content = f"[{strategy}] {content}"
        read = _split(content) if role == "assistant" else (None, content)
        if read != (strategy, message["content"]):
            raise ValueError(f"the strategy {strategy!r} does not come back from {content!r:.80}")
        found.append({"role": role, "content": content})
    return found


def untagged(messages: Sequence[Message]) -> tuple[list[Message], list[str | None]]:
    """Return messages without the tags of supporters, and their strategies."""
    found: list[Message] = []
    strategies: list[str | None] = []
    for message in messages:
        strategy, content = None, message["content"]
        if message["role"] == "assistant":
            strategy, content = _split(content)
        strategies.append(strategy)
        found.append({"role": message["role"], "content": content})
    return found, strategies


def without_tags(text: str) -> tuple[str, list[str | None] | None]:
    """Take the tags out of what continues a query: lines behind the supporter's cue.

    Returns the rest as it stands, with the strategy of every message, the query's ``None`` first.
    A text that is no conversation is left as it is, with ``None`` for strategies.
    """
    cued = f"{SUPPORTER}:"
    lines: list[str] = []
    strategies: list[str | None] = [None]
    for line in f"{cued}{text}".split("\n"):
        messages = parse(line)
        if messages is None:
            return text, None
        bare, found = untagged(messages)
        # A line holds one message, or none where it has no words.
        for message, other in zip(messages, bare, strict=True):
            before, _, after = line.rpartition(message["content"])
            lines.append(f"{before}{other['content']}{after}")
        if not messages:
            lines.append(line)
        strategies += found
    return "\n".join(lines).removeprefix(cued), strategies


def _split(content: str) -> tuple[str | None, str]:
    tag = _TAG.match(content)
    return (None, content) if tag is None else (tag[1], content[tag.end() :])
