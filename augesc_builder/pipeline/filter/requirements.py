"""The eight requirements that a generated text meets to become a session (section 4.3).

First :func:`measure` computes numbers for every text, then each requirement judges a batch of them
with the recipe's thresholds: other thresholds need no other measuring. Both go through
``Dataset.map``, and ``Dataset.filter`` parts the rows. A text with a line that has no role is not a
conversation: its other measures are null, and only ``format`` and ``session_length`` judge it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from augesc_builder.config.base import Bounds
from augesc_builder.config.recipe import Requirements, UtteranceLength
from augesc_builder.text import words
from augesc_builder.text.prompts import Message, collapse, parse, render_query

Batch = Mapping[str, Sequence[Any]]
Judgement = list[bool | None]
"""For each row of a batch: does it meet the requirement? ``None`` where it cannot be judged."""


def measure(batch: Batch, role_words: Sequence[str]) -> dict[str, list[Any]]:
    """Measure a batch of generations; gives the columns of ``tables.MEASURED`` but for its keys."""
    counter = _RoleWords(tuple(role_words))
    rows = [_measure(messages, counter) for messages in conversations(batch)]
    tokens = zip(batch["n_prompt_tokens"], batch["n_tokens"], strict=True)
    return {
        "total_tokens": [None if None in pair else sum(pair) for pair in tokens],
        **{name: [row[name] for row in rows] for name in _NOT_PARSED},
    }


def conversations(batch: Batch) -> list[list[Message] | None]:
    """Give each row's utterances: its messages, or its text behind its query, or its text alone.

    ``None`` stands where a line of the text has no role.
    """
    if "messages" in batch:
        return list(batch["messages"])
    rows = zip(batch["query"], batch["text"], strict=True)
    return [parse(whole_text(query, text)) for query, text in rows]


def whole_text(query: str | None, text: str) -> str:
    """Put a continuation behind its query; a text without one is whole."""
    return text if query is None else render_query(collapse(query)) + text


_NOT_PARSED: dict[str, Any] = dict.fromkeys(
    (
        *("n_utterances", "longest_run", "utterance_ratio", "n_role_words"),
        *("seeker_words", "supporter_words", "seeker_mean_words", "supporter_mean_words"),
    )
)


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


def format_(batch: Batch, _: Requirements) -> Judgement:
    """Every line begins with a role word (after punctuation and white space)."""
    return [n is not None for n in batch["n_utterances"]]


def session_length(batch: Batch, limits: Requirements) -> Judgement:
    """Prompt and continuation together have at most so many tokens."""
    return _judge(batch["total_tokens"], lambda n: n <= limits.session_length.max)


def total_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Between so many and so many utterances in all, the query included."""
    within = _within(limits.total_utterances)
    return _judge(batch["n_utterances"], lambda n: within(n, 1))


def continuous_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Nobody has more than so many utterances in a row."""
    return _judge(batch["longest_run"], lambda run: run <= limits.continuous_utterances.max)


def balanced_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Nobody has more than so many times the other's utterances."""
    ratio = _exact(limits.balanced_utterances.max_ratio)

    def balanced(seeker: Sequence[int], supporter: Sequence[int]) -> bool:
        fewer, more = sorted((len(seeker), len(supporter)))
        return more * ratio.denominator <= ratio.numerator * fewer

    return [
        None if seeker is None else balanced(seeker, supporter)
        for seeker, supporter in zip(batch["seeker_words"], batch["supporter_words"], strict=True)
    ]


def role_words(batch: Batch, _: Requirements) -> Judgement:
    """No utterance contains a role word."""
    return _judge(batch["n_role_words"], lambda n: n == 0)


def seeker_utterance_length(batch: Batch, limits: Requirements) -> Judgement:
    """Seeker utterances are neither too short nor too long."""
    return _judge(batch["seeker_words"], _lengths_fit(limits.seeker_utterance_length))


def supporter_utterance_length(batch: Batch, limits: Requirements) -> Judgement:
    """Supporter utterances are neither too short nor too long."""
    return _judge(batch["supporter_words"], _lengths_fit(limits.supporter_utterance_length))


REQUIREMENTS: dict[str, Callable[[Batch, Requirements], Judgement]] = {
    "format": format_,
    "session_length": session_length,
    "total_utterances": total_utterances,
    "continuous_utterances": continuous_utterances,
    "balanced_utterances": balanced_utterances,
    "role_words": role_words,
    "seeker_utterance_length": seeker_utterance_length,
    "supporter_utterance_length": supporter_utterance_length,
}
"""The requirements by name, in the order of the paper's Table 1."""


def decide(batch: Batch, thresholds: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Name, for each row of a measured batch, every requirement that it fails."""
    limits = Requirements.model_validate(thresholds)
    judgements = {name: judge(batch, limits) for name, judge in REQUIREMENTS.items()}
    n_rows = len(judgements["format"])
    return {
        "violations": [
            [name for name, met in judgements.items() if met[row] is False] for row in range(n_rows)
        ]
    }


def passed(batch: Batch) -> list[bool]:
    """Say which rows failed nothing, for ``Dataset.filter``."""
    return [not names for names in batch["violations"]]


def failed(batch: Batch) -> list[bool]:
    """Say which rows failed something, for ``Dataset.filter``."""
    return [bool(names) for names in batch["violations"]]


def _judge(column: Sequence[Any], met: Callable[[Any], bool]) -> Judgement:
    return [None if value is None else met(value) for value in column]


def _lengths_fit(limits: UtteranceLength) -> Callable[[Sequence[int]], bool]:
    share, mean_fits = _exact(limits.max_short_share), _within(limits.mean)

    def fit(lengths: Sequence[int]) -> bool:
        if not lengths:  # a mean of nothing is within no bounds
            return False
        n_short = sum(length < limits.short for length in lengths)
        return (
            mean_fits(sum(lengths), len(lengths))
            and n_short * share.denominator <= share.numerator * len(lengths)
            and max(lengths) <= limits.max
        )

    return fit


def _within(bounds: Bounds) -> Callable[[int, int], bool]:
    """Give a test of ``total / n`` against bounds, in whole numbers."""
    low, high = _exact(bounds.min), _exact(bounds.max)

    def within(total: int, n: int) -> bool:
        return (
            low.numerator * n <= total * low.denominator
            and total * high.denominator <= high.numerator * n
        )

    return within


def _exact(threshold: float) -> Fraction:
    """Read a threshold as the decimal that the recipe says, so that bounds are hit exactly."""
    return Fraction(str(threshold))
