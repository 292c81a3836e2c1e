"""What sessions share with those that models are tested on; exact, as those are few."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from augesc_builder.metrics.novelty.counts import NoveltyCounts, automaton_of
from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.tokenized import Spoken, mean
from augesc_builder.text.minhash import shingles
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import tokenize

SHINGLE, SIMILARITY, SPAN = 5, 0.8, 13
"""Words of a shingle; Jaccard similarity from which sessions are near duplicates; words in a row
from which a span is more than a common phrase."""

Said = tuple[str, ...]
"""The utterances of a session, without who said them."""


class Known:
    """Sessions that models are tested on, indexed by what stands in them."""

    def __init__(self, sessions: Sequence[Said], span: int = SPAN) -> None:
        self.span = span
        self._utterances = tuple(text for session in sessions for text in session)
        self._with_shingle: dict[str, list[int]] = {}
        self._sizes: list[int] = []
        for number, session in enumerate(sessions):
            found = shingles(" ".join(session), SHINGLE)
            self._sizes.append(len(found))
            for shingle in found:
                self._with_shingle.setdefault(shingle, []).append(number)
        self._with_span: dict[str, list[int]] = {}
        for number, session in enumerate(sessions):
            for text in session:
                for gram in _grams(tokenize(text), span):
                    self._with_span.setdefault(gram, []).append(number)

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def utterances(self) -> Said:
        """Return all that is said in them."""
        return self._utterances

    def similarities(self, texts: Iterable[str]) -> dict[int, float]:
        """Return the Jaccard similarity of a session with each that shares a shingle with it."""
        mine = shingles(" ".join(texts), SHINGLE)
        shared = Counter(n for shingle in mine for n in self._with_shingle.get(shingle, ()))
        return {n: both / (len(mine) + self._sizes[n] - both) for n, both in shared.items()}

    def longest_span(self, utterances: Iterable[Sequence[str]]) -> int:
        """Return how many words in a row of one utterance stand in one of theirs, at most."""
        automaton = automaton_of(self._utterances)
        return max((max(automaton.matches(words), default=0) for words in utterances), default=0)

    def with_spans_of(self, utterances: Iterable[Sequence[str]]) -> set[int]:
        """Return the numbers of the sessions that share a span of ``span`` words."""
        grams = (gram for words in utterances for gram in _grams(words, self.span))
        return {n for gram in grams for n in self._with_span.get(gram, ())}


def _grams(words: Sequence[str], n: int) -> Iterator[str]:
    for i in range(len(words) - n + 1):
        yield " ".join(words[i : i + n])


@functools.lru_cache(maxsize=4)
def known_sessions(sessions: tuple[Said, ...], span: int = SPAN) -> Known:
    """Return sessions indexed by what stands in them, the same for the same."""
    return Known(sessions, span)


def said_in(sessions: Iterable[Sequence[Message]]) -> tuple[Said, ...]:
    """Return sessions as :func:`known_sessions` takes them."""
    return tuple(tuple(message["content"] for message in session) for session in sessions)


class OverlapCounts:
    """What sessions share with those that models are tested on; mergeable."""

    def __init__(
        self, tested_on: tuple[Said, ...], similarity: float = SIMILARITY, span: int = SPAN
    ) -> None:
        self._tested_on, self._similarity, self._span = tested_on, similarity, span
        self._novelty = NoveltyCounts(known_sessions(tested_on, span).utterances)
        self.sessions = self.near = self.spanned = 0
        self.near_tests: set[int] = set()
        self.spanned_tests: set[int] = set()

    def add(self, session: Spoken) -> None:
        """Count a session."""
        known = known_sessions(self._tested_on, self._span)
        alike = known.similarities(said.text for said in session)
        near = {n for n, similarity in alike.items() if similarity >= self._similarity}
        spanned = known.with_spans_of(said.words for said in session)
        self.sessions += 1
        self.near += bool(near)
        self.spanned += bool(spanned)
        self.near_tests |= near
        self.spanned_tests |= spanned
        self._novelty.add(session)

    def merge(self, other: OverlapCounts) -> None:
        """Add the counts of other sessions."""
        self.sessions += other.sessions
        self.near += other.near
        self.spanned += other.spanned
        self.near_tests |= other.near_tests
        self.spanned_tests |= other.spanned_tests
        self._novelty.merge(other._novelty)

    def state(self) -> State:
        """Return the counts as data."""
        return {
            **{"sessions": self.sessions, "near": self.near, "spanned": self.spanned},
            "near_tests": sorted(self.near_tests),
            "spanned_tests": sorted(self.spanned_tests),
            **below("novelty", self._novelty.state()),
        }

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.sessions, self.near = state["sessions"], state["near"]
        self.spanned = state["spanned"]
        self.near_tests, self.spanned_tests = set(state["near_tests"]), set(state["spanned_tests"])
        self._novelty.load(part_of(state, "novelty"))

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        spans = self._novelty.statistics()
        return {
            "sessions": self.sessions,
            "test_sessions": len(self._tested_on),
            "similarity": self._similarity,
            "near_duplicate_sessions": self.near,
            "near_duplicate_share": mean(self.near, self.sessions),
            "near_duplicated_test_sessions": len(self.near_tests),
            "span": self._span,
            "span_sessions": self.spanned,
            "span_share": mean(self.spanned, self.sessions),
            "span_test_sessions": len(self.spanned_tests),
            "n": spans["n"],
            "ngrams": spans["ngrams"],
            "shared_ngrams": spans["memorized_ngrams"],
            "shared_share": spans["memorized_share"],
            "longest_spans": spans["longest_spans"],
            "longest_by_session": spans["longest_by_session"],
        }


class SeveralOverlaps:
    """The same against several sets of test sessions, by their names."""

    def __init__(self, tested_on: Mapping[str, tuple[Said, ...]]) -> None:
        self._parts = {name: OverlapCounts(sessions) for name, sessions in tested_on.items()}

    def add(self, session: Spoken) -> None:
        """Count a session."""
        for part in self._parts.values():
            part.add(session)

    def merge(self, other: SeveralOverlaps) -> None:
        """Add the counts of other sessions."""
        for name, part in self._parts.items():
            part.merge(other._parts[name])

    def state(self) -> State:
        """Return the counts as data; the sets by their numbers, as a name may be any text."""
        found: dict[str, Any] = {"sets": len(self._parts)}
        for number, part in enumerate(self._parts.values()):
            found |= below(str(number), part.state())
        return found

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        for number, part in enumerate(self._parts.values()):
            part.load(part_of(state, str(number)))

    def statistics(self) -> dict[str, Any]:
        """Return the measurement of each set."""
        return {name: part.statistics() for name, part in self._parts.items()}
