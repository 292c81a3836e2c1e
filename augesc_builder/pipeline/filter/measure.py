"""The numbers behind every requirement, text by text (section 4.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from augesc_builder.config.requirements import Requirements
from augesc_builder.pipeline.filter.requirements import Batch, active
from augesc_builder.text import words
from augesc_builder.text.prompts import PLAIN, Message, whole_text

_NOT_PARSED: dict[str, Any] = dict.fromkeys(
    (
        *("n_utterances", "longest_run", "utterance_ratio", "n_role_words"),
        *("seeker_words", "supporter_words", "seeker_mean_words", "supporter_mean_words"),
    )
)


def measured_columns(limits: Requirements) -> list[str]:
    """Return the columns that requirements from outside the package add to ``MEASURED``."""
    return [name for requirement in active(limits) for name in requirement.measures_for(limits)]


def measure_conversations(
    found: Sequence[list[Message] | None], tokens: Sequence[int | None], limits: Requirements
) -> dict[str, list[Any]]:
    """Return the columns of ``tables.MEASURED`` but for its keys, and those of other requirements.

    ``found`` has the utterances of each text, ``None`` where it is no conversation; ``tokens``,
    those of prompt and continuation, ``None`` where nothing counted them.
    """
    counter = _RoleWords(tuple(limits.role_words.words))
    rows = [_measure(messages, counter) for messages in found]
    columns: dict[str, list[Any]] = {"total_tokens": list(tokens)}
    columns |= {name: [row[name] for row in rows] for name in _NOT_PARSED}
    for requirement in active(limits):
        for name, function in requirement.measures_for(limits).items():
            columns[name] = [None if m is None else function(m) for m in found]
    return columns


def conversations(batch: Batch) -> list[list[Message] | None]:
    """Return each row's utterances: its messages, or its text behind its query, or its text alone.

    ``None`` stands where a line of the text has no role.
    """
    if "messages" in batch:
        return list(batch["messages"])
    rows = zip(batch["query"], batch["text"], strict=True)
    return [PLAIN.parse(whole_text(query, text)) for query, text in rows]


def _measure(messages: list[Message] | None, role_words: _RoleWords) -> dict[str, Any]:
    if messages is None:
        return _NOT_PARSED
    run = longest = n_role_words = 0
    previous = ""
    lengths: dict[str, list[int]] = {"user": [], "assistant": []}
    for message in messages:
        role, content = message["role"], message["content"]
        run = run + 1 if role == previous else 1
        previous = role
        longest = max(longest, run)
        n_role_words += role_words.count(content)
        lengths[role].append(words.count(content))
    seeker, supporter = lengths["user"], lengths["assistant"]
    fewer, more = sorted((len(seeker), len(supporter)))
    return {
        "n_utterances": len(messages),
        "longest_run": longest,
        "utterance_ratio": more / fewer if fewer else None,
        "n_role_words": n_role_words,
        "seeker_words": seeker,
        "supporter_words": supporter,
        "seeker_mean_words": sum(seeker) / len(seeker) if seeker else None,
        "supporter_mean_words": sum(supporter) / len(supporter) if supporter else None,
    }


class _RoleWords:
    """Counts whole words in texts; nearly all texts have none, which a plain look tells."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        either = "|".join(re.escape(word) for word in words)
        self._pattern = re.compile(rf"\b(?:{either})\b")

    def count(self, text: str) -> int:
        for word in self._words:
            if word in text:
                return len(self._pattern.findall(text))
        return 0
