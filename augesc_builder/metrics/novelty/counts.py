"""What is memorized, counted chunk by chunk, and the automaton that finds it."""

from __future__ import annotations

import functools
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from augesc_builder.metrics.partial import State
from augesc_builder.metrics.tokenized import Spoken, mean
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import tokenize

N, TOP = 4, 10
_REMEMBERED = 1000
"""Spans that are kept to find the longest among; so many that those inside others do no harm."""


def _longest_first(span: tuple[int, str]) -> tuple[int, str]:
    return -span[0], span[1]


class Automaton:
    """Every span of words of some utterances, in memory that grows with their number of words."""

    def __init__(self, utterances: Iterable[Sequence[str]]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._link, self._length = [-1], [0]
        for words in utterances:
            last = 0  # spans do not cross the end of an utterance
            for word in words:
                last = self._extend(last, word)

    def _extend(self, last: int, word: str) -> int:
        """Add a word behind the state ``last``; return the state of the longer span."""
        known = self._next[last].get(word)
        if known is not None:
            if self._length[known] == self._length[last] + 1:
                return known
            return self._clone(known, last, word)
        state = self._state(self._length[last] + 1, {}, 0)
        at = last
        while at != -1 and word not in self._next[at]:
            self._next[at][word] = state
            at = self._link[at]
        if at != -1:
            target = self._next[at][word]
            fits = self._length[target] == self._length[at] + 1
            self._link[state] = target if fits else self._clone(target, at, word)
        return state

    def _clone(self, target: int, at: int, word: str) -> int:
        copy = self._state(self._length[at] + 1, dict(self._next[target]), self._link[target])
        self._link[target] = copy
        while at != -1 and self._next[at].get(word) == target:
            self._next[at][word] = copy
            at = self._link[at]
        return copy

    def _state(self, length: int, following: dict[str, int], link: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        return len(self._next) - 1

    def matches(self, words: Sequence[str]) -> list[int]:
        """Return for each word the length of the longest known span that ends with it."""
        found, state, length = [], 0, 0
        for word in words:
            while state and word not in self._next[state]:
                state = self._link[state]
                length = self._length[state]
            following = self._next[state].get(word)
            if following is None:
                length = 0
            else:
                state, length = following, length + 1
            found.append(length)
        return found


@functools.lru_cache(maxsize=4)
def automaton_of(utterances: tuple[str, ...]) -> Automaton:
    """Return the automaton of texts, the same for the same."""
    return Automaton(tokenize(text) for text in utterances)


class NoveltyCounts:
    """What sessions have memorized of the texts their model was trained on; mergeable."""

    def __init__(self, trained_on: tuple[str, ...], n: int = N, top: int = TOP) -> None:
        self._trained_on, self._n, self._top = trained_on, n, top
        self.ngrams = self.memorized = 0
        self._by_session: Counter[int] = Counter()
        self._spans: set[tuple[int, str]] = set()

    def add(self, session: Spoken) -> None:
        """Count a session."""
        longest, automaton = 0, automaton_of(self._trained_on)
        for said in session:
            matches = automaton.matches(said.words)
            self.ngrams += max(0, len(matches) - self._n + 1)
            self.memorized += sum(length >= self._n for length in matches)
            for end, length in enumerate(matches, 1):
                grows = end < len(matches) and matches[end] > length
                if length >= self._n and not grows:
                    longest = max(longest, length)
                    self._spans.add((length, " ".join(said.words[end - length : end])))
        self._by_session[longest] += 1
        if len(self._spans) > 2 * _REMEMBERED:
            self._trim()

    def merge(self, other: NoveltyCounts) -> None:
        """Add the counts of other sessions."""
        self.ngrams += other.ngrams
        self.memorized += other.memorized
        self._by_session.update(other._by_session)
        self._spans |= other._spans
        self._trim()

    def state(self) -> State:
        """Return the counts as data."""
        spans = sorted(self._spans)
        return {
            "ngrams": self.ngrams,
            "memorized": self.memorized,
            "by_session": sorted(self._by_session.items()),
            "spans/words": np.array([length for length, _ in spans], np.int64),
            "spans/text": [text for _, text in spans],
        }

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.ngrams, self.memorized = state["ngrams"], state["memorized"]
        self._by_session = Counter(dict(state["by_session"]))
        lengths = state["spans/words"].tolist()
        self._spans = set(zip(lengths, state["spans/text"], strict=True))

    def _trim(self) -> None:
        self._spans = set(heapq.nsmallest(_REMEMBERED, self._spans, key=_longest_first))

    def _longest(self) -> list[tuple[int, str]]:
        """Return the longest spans; of two where one holds the other, the one."""
        self._trim()
        kept: list[tuple[int, str]] = []
        for length, text in sorted(self._spans, key=_longest_first):
            if len(kept) == self._top:
                break
            if not any(f" {text} " in f" {longer} " for _, longer in kept):
                kept.append((length, text))
        return kept

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        return {
            "n": self._n,
            "ngrams": self.ngrams,
            "memorized_ngrams": self.memorized,
            "memorized_share": mean(self.memorized, self.ngrams),
            "longest_spans": [{"words": n, "text": text} for n, text in self._longest()],
            "longest_by_session": [[n, count] for n, count in sorted(self._by_session.items())],
        }


def utterances_of(sessions: Iterable[Sequence[Message]]) -> tuple[str, ...]:
    """Return what is said in sessions, as :class:`NoveltyCounts` takes it."""
    return tuple(message["content"] for session in sessions for message in session)
