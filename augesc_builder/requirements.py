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

from augesc_builder import words
from augesc_builder.prompts import Message, parse, render_query
from augesc_builder.settings import Bounds, Requirements, UtteranceLength

Batch = Mapping[str, Sequence[Any]]
Judgement = list[bool | None]
"""For each row of a batch: does it meet the requirement? ``None`` where it cannot be judged."""


def measure(batch: Batch, role_words: Sequence[str]) -> dict[str, list[Any]]:
    """Measure a batch of generations.

    Returns columns: ``messages`` (null where the format fails), ``total_tokens``,
    ``longest_run`` (utterances of one speaker in a row), ``n_role_words``, ``seeker_words`` and
    ``supporter_words`` (the length of each utterance in words).
    """
    rows = [
        _measure(parse(render_query(query) + text), role_words)
        for query, text in zip(batch["query"], batch["text"], strict=True)
    ]
    columns = {name: [row[name] for row in rows] for name in _NOT_PARSED} if rows else {}
    tokens = zip(batch["n_prompt_tokens"], batch["n_tokens"], strict=True)
    return {**columns, "total_tokens": [prompt + new for prompt, new in tokens]}


_NOT_PARSED: dict[str, Any] = dict.fromkeys(
    ("messages", "longest_run", "n_role_words", "seeker_words", "supporter_words")
)


def _measure(messages: list[Message] | None, role_words: Sequence[str]) -> dict[str, Any]:
    if messages is None:
        return _NOT_PARSED
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in role_words) or r"(?!)")
    run = longest = 0
    previous = ""
    for message in messages:
        run = run + 1 if message["role"] == previous else 1
        previous = message["role"]
        longest = max(longest, run)
    lengths: dict[str, list[int]] = {"user": [], "assistant": []}
    for message in messages:
        lengths[message["role"]].append(words.count(message["content"]))
    return {
        "messages": messages,
        "longest_run": longest,
        "n_role_words": sum(len(pattern.findall(m["content"])) for m in messages),
        "seeker_words": lengths["user"],
        "supporter_words": lengths["assistant"],
    }


def format_(batch: Batch, _: Requirements) -> Judgement:
    """Every line begins with a role word (after punctuation and white space)."""
    return [messages is not None for messages in batch["messages"]]


def session_length(batch: Batch, limits: Requirements) -> Judgement:
    """Prompt and continuation together have at most so many tokens."""
    return [n <= limits.session_length.max for n in batch["total_tokens"]]


def total_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Between so many and so many utterances in all, the query included."""
    bounds = limits.total_utterances
    return _judge(batch["messages"], lambda messages: _within(Fraction(len(messages)), bounds))


def continuous_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Nobody has more than so many utterances in a row."""
    return _judge(batch["longest_run"], lambda run: run <= limits.continuous_utterances.max)


def balanced_utterances(batch: Batch, limits: Requirements) -> Judgement:
    """Nobody has more than so many times the other's utterances."""
    ratio = _exact(limits.balanced_utterances.max_ratio)

    def balanced(seeker: Sequence[int], supporter: Sequence[int]) -> bool:
        fewer, more = sorted((len(seeker), len(supporter)))
        return more <= ratio * fewer

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
    share = _exact(limits.max_short_share)

    def fit(lengths: Sequence[int]) -> bool:
        if not lengths:  # a mean of nothing is within no bounds
            return False
        return (
            _within(Fraction(sum(lengths), len(lengths)), limits.mean)
            and sum(length < limits.short for length in lengths) <= share * len(lengths)
            and max(lengths) <= limits.max
        )

    return fit


def _within(value: Fraction, bounds: Bounds) -> bool:
    return _exact(bounds.min) <= value <= _exact(bounds.max)


def _exact(threshold: float) -> Fraction:
    """Read a threshold as the decimal that the recipe says, so that bounds are hit exactly."""
    return Fraction(str(threshold))
