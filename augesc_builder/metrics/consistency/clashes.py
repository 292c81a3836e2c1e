"""Typed facts of one speaker that cannot both be so, each clash named."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from augesc_builder.metrics.consistency.facts import Fact

SURENESS = {
    "age": 0.8,
    "duration": 0.6,
    "count": 0.7,
    "kinship": 0.7,
    "life": 0.6,
    "name": 0.8,
    "gender": 0.9,
    "work": 0.5,
    "place": 0.5,
    "negation": 0.6,
}
"""How sure a clash of each kind is, as seen in real sessions (docs/quality.md)."""

_REMEMBERED = 8
_SAME_DURATION = 0.85
"""What durations are rounded by: a year and twelve months, six weeks and a month and a half."""


class FactClash(NamedTuple):
    """A fact and an earlier one that it clashes with, and the numbers of their utterances."""

    kind: str
    later: int
    fact: Fact
    earlier: int
    before: Fact


def clashes_of(claims: Sequence[Sequence[Fact]], speakers: Sequence[str]) -> Iterator[FactClash]:
    """Yield facts that clash with an earlier one of the same speaker, in another utterance."""
    known: dict[tuple[str, ...], deque[tuple[int, Fact]]] = defaultdict(
        lambda: deque(maxlen=_REMEMBERED)
    )
    for later, (facts, speaker) in enumerate(zip(claims, speakers, strict=True)):
        for fact in facts:
            for key in _keys(fact):
                for earlier, before in reversed(known[(speaker, *key)]):
                    if earlier != later and _clash(fact, before):
                        kind = "negation" if fact.kind == "deed" else fact.kind
                        yield FactClash(kind, later, fact, earlier, before)
                        break
        for fact in facts:
            for key in _keys(fact):
                known[(speaker, *key)].append((later, fact))


def _keys(fact: Fact) -> list[tuple[str, ...]]:
    """Return what facts that may clash have in common."""
    if fact.kind == "deed":
        subject, verb, tense, *objects = fact.about
        return [(fact.kind, subject, verb, tense, word) for word in objects]
    return [(fact.kind, *fact.about)]


def _clash(fact: Fact, before: Fact) -> bool:
    """Whether two facts of one key cannot both be so."""
    if fact.value == before.value:
        return False
    if fact.kind == "life":
        return before.value == "dead"
    if fact.kind == "duration":
        short, long = sorted((float(fact.value), float(before.value)))
        return short < _SAME_DURATION * long
    if fact.kind == "deed":
        objects, others = set(fact.about[3:]), set(before.about[3:])
        return 2 * len(objects & others) >= len(objects | others)
    return True
