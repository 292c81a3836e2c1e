"""The requirements that a generated text meets to become a session (section 4.3).

A :class:`Requirement` says all there is to say of one: its heading in Table 1, its section of a
recipe, its test, and the paper's figures. Its test judges a batch of numbers that
:mod:`~augesc_builder.pipeline.filter.measure` computed, so that other thresholds need no other
measuring. A text with a line that has no role is not a conversation: its other measures are null,
and only ``format`` and ``session_length`` judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from augesc_builder import paper
from augesc_builder.config.base import Bounds, Section
from augesc_builder.config.plugins import load_plugins, note_module
from augesc_builder.config.requirements import (
    BalancedUtterances,
    ContinuousUtterances,
    Overlap,
    Requirements,
    RoleWords,
    SessionLength,
    UtteranceLength,
    add_requirement,
    requirements_model,
)
from augesc_builder.pipeline.filter import overlap
from augesc_builder.text.prompts import Message

Batch = Mapping[str, Sequence[Any]]
"""Columns of rows, by name."""

Judgement = list[bool | None]
"""For each row of a batch: does it meet the requirement? ``None`` where it cannot be judged."""


Measures = Mapping[str, Callable[[Sequence[Message]], float | None]]


@dataclass(frozen=True)
class Requirement:
    """A rule on a text's form.

    - ``name``: in violations and reports, and its section in a recipe's ``requirements``
    - ``heading``: its column in Table 1, short enough for a console
    - ``test``: given a batch of measured columns and its section, judges each row
    - ``settings``: the type of its section; ``None`` where it has no threshold. A requirement from
      outside the package must have one, and judges only where the recipe gives it.
    - ``measures``: numbers that it needs beyond those that are always measured, as functions of a
      conversation's utterances; each becomes a column of that name. Where they need its section
      too, a function that gives them for one.
    - ``paper``: per cent of texts that violate it in the paper's Table 1, by row, where it is there
    """

    name: str
    heading: str
    test: Callable[[Batch, Any], Judgement]
    settings: type[Section] | None = None
    measures: Measures | Callable[[Any], Measures] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)

    def measures_for(self, limits: Requirements) -> Measures:
        """Return the functions that measure what it needs, by the names of the columns."""
        if isinstance(self.measures, Mapping):
            return self.measures
        return self.measures(limits.section(self.name))


def format_(batch: Batch, _: None) -> Judgement:
    """Every line begins with a role word (after punctuation and white space)."""
    return [n is not None for n in batch["n_utterances"]]


def session_length(batch: Batch, limits: SessionLength) -> Judgement:
    """Prompt and continuation together have at most so many tokens."""
    return _judge(batch["total_tokens"], lambda n: n <= limits.max)


def total_utterances(batch: Batch, limits: Bounds) -> Judgement:
    """Between so many and so many utterances in all, the query included."""
    within = _within(limits)
    return _judge(batch["n_utterances"], lambda n: within(n, 1))


def continuous_utterances(batch: Batch, limits: ContinuousUtterances) -> Judgement:
    """Nobody has more than so many utterances in a row."""
    return _judge(batch["longest_run"], lambda run: run <= limits.max)


def balanced_utterances(batch: Batch, limits: BalancedUtterances) -> Judgement:
    """Nobody has more than so many times the other's utterances."""
    ratio = _exact(limits.max_ratio)

    def balanced(seeker: Sequence[int], supporter: Sequence[int]) -> bool:
        fewer, more = sorted((len(seeker), len(supporter)))
        return more * ratio.denominator <= ratio.numerator * fewer

    return [
        None if seeker is None else balanced(seeker, supporter)
        for seeker, supporter in zip(batch["seeker_words"], batch["supporter_words"], strict=True)
    ]


def role_words(batch: Batch, _: RoleWords) -> Judgement:
    """No utterance contains a role word."""
    return _judge(batch["n_role_words"], lambda n: n == 0)


def seeker_utterance_length(batch: Batch, limits: UtteranceLength) -> Judgement:
    """Seeker utterances are neither too short nor too long."""
    return _judge(batch["seeker_words"], _lengths_fit(limits))


def supporter_utterance_length(batch: Batch, limits: UtteranceLength) -> Judgement:
    """Supporter utterances are neither too short nor too long."""
    return _judge(batch["supporter_words"], _lengths_fit(limits))


def overlap_with_tests(batch: Batch, limits: Overlap) -> Judgement:
    """Nearly no session, and no long span, of what models are tested on."""
    near = _judge(batch["test_similarity"], lambda found: found < limits.similarity)
    if (most := limits.span) is None:
        return near
    spans = _judge(batch["test_span"], lambda words: words < most)
    return [a if a is None or not a else b for a, b in zip(near, spans, strict=True)]


def _of_the_paper(
    test: Callable[[Batch, Any], Judgement], heading: str, settings: type[Section] | None
) -> Requirement:
    name = test.__name__.rstrip("_")
    shares = {model: row[name] for model, row in paper.TABLE_1.items()}
    return Requirement(name, heading, test, settings, paper=shares)


REQUIREMENTS: dict[str, Requirement] = {
    requirement.name: requirement
    for requirement in (
        _of_the_paper(format_, "format", None),
        _of_the_paper(session_length, "session length", SessionLength),
        _of_the_paper(total_utterances, "total", Bounds),
        _of_the_paper(continuous_utterances, "continuous", ContinuousUtterances),
        _of_the_paper(balanced_utterances, "balanced", BalancedUtterances),
        _of_the_paper(role_words, "role words", RoleWords),
        _of_the_paper(seeker_utterance_length, "seeker length", UtteranceLength),
        _of_the_paper(supporter_utterance_length, "supporter length", UtteranceLength),
    )
}
"""The requirements by name: the paper's, in the order of its Table 1, ours, those from outside."""

_PAPERS = frozenset(REQUIREMENTS)

REQUIREMENTS["test_overlap"] = Requirement(
    "test_overlap", "test overlap", overlap_with_tests, Overlap, overlap.measures
)

_OWN = frozenset(REQUIREMENTS)


def register_requirement(requirement: Requirement) -> None:
    """Let recipes use a requirement from outside the package.

    Raises ``ValueError`` where the name is taken, or there is no section to switch it on by.
    """
    if requirement.name in _OWN:
        whose = "of the paper" if requirement.name in _PAPERS else "of augesc"
        raise ValueError(f"{requirement.name} is a requirement {whose}; choose another name")
    if requirement.settings is None:
        raise ValueError(f"{requirement.name}: settings must be a section; recipes switch it on")
    REQUIREMENTS[requirement.name] = requirement
    add_requirement(requirement.name, requirement.settings)
    note_module(requirement.test.__module__)


def active(limits: Requirements) -> list[Requirement]:
    """Return the requirements that judge: the paper's, and others whose section is given."""
    load_plugins()
    return [
        requirement
        for name, requirement in REQUIREMENTS.items()
        if name in _PAPERS or limits.section(name) is not None
    ]


def decide(batch: Batch, thresholds: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return, for each row of a measured batch, the names of all requirements that it fails."""
    limits = requirements_model().model_validate(thresholds)
    judgements = {
        requirement.name: requirement.test(batch, limits.section(requirement.name))
        for requirement in active(limits)
    }
    n_rows = len(judgements["format"])
    return {
        "violations": [
            [name for name, met in judgements.items() if met[row] is False] for row in range(n_rows)
        ]
    }


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
    """Return a test of ``total / n`` against bounds, in whole numbers."""
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
