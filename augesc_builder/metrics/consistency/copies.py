"""What differs between two clauses that are otherwise the same: said, and said again otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from augesc_builder.metrics.consistency.clauses import Clause, Word, stem_of
from augesc_builder.metrics.consistency.pairs import Pair
from augesc_builder.metrics.consistency.vocabulary import (
    COUNTERPARTS,
    HYPOTHETICAL,
    OPPOSITES,
    PAST,
    TIMES,
)

_OPPOSITES = frozenset(frozenset(map(stem_of, pair)) for pair in OPPOSITES)
_COUNTERPARTS = frozenset(frozenset(map(stem_of, pair)) for pair in COUNTERPARTS)
_TIMES = frozenset(map(stem_of, TIMES))

_NAME_IS = [stem_of("name"), stem_of("is")]

_COPY = 0.75
"""Likeness from which an utterance says another one again."""

_PARTLY, _UNKNOWN_CHANGE = 0.55, 0.35
"""Likeness from which an utterance says another one again but for a change that no rule knows, and
how sure that is to be a clash where it is nearly the same."""

_LEAST_COPIED = 4
"""Words of an utterance that is not said twice by chance."""

_LEAST_SHARED = 0.6
"""Share of a clause's words that the other has in the same places."""

_LONGEST_CHANGE = 4
"""Words that are put in place of others."""


class Clash(NamedTuple):
    """What clashes: spans of the later and of the earlier utterance, and how sure it is, 0..1."""

    kind: str
    score: float
    reason: str
    start: int
    end: int
    other_start: int
    other_end: int


def clash_of(pair: Pair) -> Clash | None:
    """Return what makes a clause the contrary of one that it copies, if anything does.

    Of an utterance that says another one again in part, it is something that was changed, however
    little is known of what: too unsure to count, but more than nothing.
    """
    found = (_contrary(pair), _changed(pair))
    return max((clash for clash in found if clash), key=lambda clash: clash.score, default=None)


def _changed(pair: Pair) -> Clash | None:
    if not pair.changed or pair.alike < _PARTLY or pair.size < _LEAST_COPIED:
        return None
    new, old = pair.clause, pair.before
    reason = "nearly said before, and changed"
    score = _UNKNOWN_CHANGE * pair.alike
    return Clash("change", score, reason, new.start, new.end, old.start, old.end)


def _contrary(pair: Pair) -> Clash | None:
    new, old = pair.clause, pair.before
    a, b = new.bare, old.bare
    longest = max(len(a), len(b))
    front = _same(a, b)
    back = min(_same(a[::-1], b[::-1]), len(a) - front, len(b) - front)
    if not longest or (front + back) / longest < _LEAST_SHARED:
        return None
    put, gone = a[front : len(a) - back], b[front : len(b) - back]
    kept = {word.stem for word in (*a[:front], *a[len(a) - back :])} & new.content
    if len(new.negators) != len(old.negators):
        return _denial(pair, len(kept), (front + back) / longest)
    if put and gone and max(len(put), len(gone)) <= _LONGEST_CHANGE and not new.negators:
        return _exchange(pair, put, gone, len(kept))
    return None


def _same(a: Sequence[Word], b: Sequence[Word]) -> int:
    """Return how many words two clauses begin with alike."""
    n = 0
    for one, other in zip(a, b, strict=False):
        if one.stem != other.stem:
            break
        n += 1
    return n


def _sureness(pair: Pair, kept: int) -> float:
    """Return how sure it is that two clauses speak of the same: much is kept, or all is a copy."""
    by_words = (0.1, 0.35, 0.55, 0.7, 0.8)[min(kept, 4)]
    if pair.alike >= _COPY and pair.size >= _LEAST_COPIED:
        return max(by_words, 0.3 + 0.6 * pair.alike)
    return by_words


def _denial(pair: Pair, kept: int, shared: float) -> Clash | None:
    new, old = pair.clause, pair.before
    denies = new if len(new.negators) > len(old.negators) else old
    negator = denies.negators[-1]
    score = _sureness(pair, kept) * shared
    if pair.alike < _COPY:
        if _tense(new) != _tense(old) or _is_open(new) != _is_open(old):
            score *= 0.6
        if new.asks or old.asks:
            score *= 0.5
    reason = f'"{negator.text}" in one of two clauses that say the same otherwise'
    return Clash("negation", score, reason, new.start, new.end, old.start, old.end)


def _exchange(pair: Pair, put: Sequence[Word], gone: Sequence[Word], kept: int) -> Clash | None:
    kind, weight = _kind_of(put, gone, pair)
    score = _sureness(pair, kept) * weight
    if pair.clause.asks or pair.before.asks:
        score *= 0.5
    now, then = (" ".join(word.text for word in words) for words in (put, gone))
    reason = f'"{now}" where "{then}" was said before'
    return Clash(kind, score, reason, put[0].start, put[-1].end, gone[0].start, gone[-1].end)


def _kind_of(put: Sequence[Word], gone: Sequence[Word], pair: Pair) -> tuple[str, float]:
    """Return the kind of an exchange, and how much of a clash such an exchange is."""
    one_for_one = len(put) == len(gone) == 1
    ends = frozenset((put[-1].stem, gone[-1].stem))
    before = [word.stem for word in pair.clause.bare if word.end <= put[0].start][-2:]
    kinds = (
        ("number", 1.0, one_for_one and put[0].stem[0] == gone[0].stem[0] == "#"),
        ("gender", 0.8, one_for_one and ends in _COUNTERPARTS),
        ("opposite", 1.0, one_for_one and ends in _OPPOSITES),
        ("name", 1.0, all(w.capital for w in (*put, *gone)) or before == _NAME_IS),
        ("place", 0.9, before[-1:] in (["from"], ["in"])),
        ("time", 0.8, all(any(w.stem in _TIMES for w in words) for words in (put, gone))),
    )
    return next(((kind, weight) for kind, weight, fits in kinds if fits), ("exchange", 0.5))


def _tense(clause: Clause) -> bool:
    """Whether a clause is of the past."""
    return any(word.text in PAST or word.text.endswith("ed") for word in clause.words)


def _is_open(clause: Clause) -> bool:
    """Whether a clause says how things might be."""
    return any(word.text in HYPOTHETICAL for word in clause.words)
