"""Which clauses of a speaker are near in their words to which of their earlier ones.

Found by an index of the words that are still being compared, each with the last clauses that it
stood in: the work grows with the words that are said, not with the pairs of utterances.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from augesc_builder.metrics.consistency.clauses import Clause, Said, stem_of
from augesc_builder.metrics.consistency.vocabulary import STOP_WORDS

NEAREST, REMEMBERED = 6, 24
"""Earlier clauses that one is compared with, and clauses that a word is remembered in."""

_LIGHT = 0.2
"""What a shared stop word counts beside a shared word of content."""

_STOP = frozenset(map(stem_of, STOP_WORDS))


class Pair(NamedTuple):
    """A clause and an earlier one of the same speaker, with the numbers of their utterances.

    ``alike`` is how much of the longer of the two utterances stands in the other, 0..1, ``size``
    how many words the shorter one has, and ``changed`` whether a word of content stands in one
    alone.
    """

    earlier: int
    before: Clause
    later: int
    clause: Clause
    alike: float
    size: int
    changed: bool


def near_clauses(said: Sequence[Said], speakers: Sequence[str]) -> Iterator[Pair]:
    """Yield pairs of clauses of the same speaker and of different utterances, nearest first."""
    posted: dict[tuple[str, str], deque[tuple[int, Clause]]] = defaultdict(
        lambda: deque(maxlen=REMEMBERED)
    )
    for later, (utterance, speaker) in enumerate(zip(said, speakers, strict=True)):
        alike: dict[int, tuple[float, int, bool]] = {}
        for clause in utterance.clauses:
            for earlier, before in _nearest(clause, speaker, posted):
                if earlier not in alike:
                    bags = said[earlier].bag, utterance.bag
                    size = min(bag.total() for bag in bags)
                    alike[earlier] = (likeness(*bags), size, _differ(*bags))
                yield Pair(earlier, before, later, clause, *alike[earlier])
        for clause in utterance.clauses:
            for stem in {word.stem for word in clause.bare}:
                posted[speaker, stem].append((later, clause))


def _nearest(
    clause: Clause, speaker: str, posted: dict[tuple[str, str], deque[tuple[int, Clause]]]
) -> list[tuple[int, Clause]]:
    """Return the earlier clauses that share most with one, those said last first among equals."""
    shared: dict[tuple[int, int], float] = defaultdict(float)
    clauses: dict[tuple[int, int], Clause] = {}
    for stem in {word.stem for word in clause.bare}:
        for earlier, before in posted.get((speaker, stem), ()):
            key = (earlier, before.start)
            shared[key] += 1.0 if stem in clause.content else _LIGHT
            clauses[key] = before
    order = sorted(shared, key=lambda key: (-shared[key], -key[0], key[1]))
    return [(key[0], clauses[key]) for key in order[:NEAREST]]


def likeness(a: Counter[str], b: Counter[str]) -> float:
    """Return how many of the words of the longer text stand in the shorter one, 0..1."""
    longest = max(a.total(), b.total())
    return (a & b).total() / longest if longest else 0.0


def _differ(a: Counter[str], b: Counter[str]) -> bool:
    """Whether a word of content stands in one of two texts alone."""
    return any(stem not in _STOP for stem in a.keys() ^ b.keys())


def near_utterances(said: Sequence[Said], speakers: Sequence[str], most: int) -> list[list[int]]:
    """Return for each utterance the earlier ones of its speaker that share words of content.

    Those that share most words come first, each word counted the less the more utterances it is
    in; at most ``most`` of them.
    """
    posted: dict[tuple[str, str], deque[int]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
    content = [frozenset().union(*(c.content for c in utterance.clauses)) for utterance in said]
    spread = Counter(stem for stems in content for stem in stems)
    near: list[list[int]] = []
    for later, (stems, speaker) in enumerate(zip(content, speakers, strict=True)):
        shared: dict[int, float] = defaultdict(float)
        for stem in sorted(stems):
            for earlier in posted.get((speaker, stem), ()):
                shared[earlier] += 1 / spread[stem]
            posted[speaker, stem].append(later)
        near.append(sorted(shared, key=lambda i: (-shared[i], -i))[:most])
    return near
