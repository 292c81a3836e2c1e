"""Distinct n-grams, counted chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import LIMIT, DistinctItems, Hashes, hash_of, mixed
from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.tokenized import Spoken, mean, text_of

NAMES = ("unigrams", "bigrams", "trigrams")
POINTS = 100

_hashes: dict[str, int] = {}


class DiversityCounts:
    """Distinct n-grams that can be counted chunk by chunk and merged in any order."""

    def __init__(self, seed: int = 0, limit: int = LIMIT) -> None:
        self.seed = seed
        self.grams = [DistinctItems(limit) for _ in NAMES]
        self.totals = [0 for _ in NAMES]
        self.sessions = 0
        self._ranks: list[Hashes] = []
        self._at_places: Hashes | None = None

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        ranks = np.array([self._rank(session) for session in sessions], np.uint64)
        for n, (grams, at) in enumerate(hashed_grams(sessions)):
            self.totals[n] += len(grams)
            self.grams[n].add(grams, ranks[at])
        self.sessions += len(ranks)
        self._ranks.append(ranks)

    def merge(self, other: DiversityCounts) -> None:
        """Add the counts of other sessions."""
        for mine, theirs in zip(self.grams, other.grams, strict=True):
            mine.merge(theirs)
        self.totals = [a + b for a, b in zip(self.totals, other.totals, strict=True)]
        self.sessions += other.sessions
        self._ranks += other._ranks

    def take_ranks(self) -> Hashes:
        """Give away the ranks of the sessions, (sessions,): all that grows with their number.

        What is left is counted as before, once :meth:`settle` says which ranks are where.
        """
        ranks, self._ranks = _joined(self._ranks), []
        return ranks

    def places(self, points: int = POINTS) -> NDArray[np.int64]:
        """Return which of the sessions, in the order of their ranks from 1, growth is told at."""
        n = min(points, self.sessions)
        return np.unique(np.linspace(1, self.sessions, n).round().astype(np.int64))

    def settle(self, ranks: Hashes) -> None:
        """Take the ranks of the sessions at :meth:`places`, where all were given away."""
        self._at_places = ranks

    def state(self) -> State:
        """Return the counts as data, without ranks."""
        found: dict[str, Any] = {"totals": self.totals, "sessions": self.sessions}
        for name, grams in zip(NAMES, self.grams, strict=True):
            found |= below(name, grams.state())
        return found

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.totals, self.sessions = state["totals"], state["sessions"]
        for name, grams in zip(NAMES, self.grams, strict=True):
            grams.load(part_of(state, name))

    def statistics(self, points: int = POINTS) -> dict[str, Any]:
        """Return the measurement, at ``points`` places where ranks are held."""
        ranks = self._at_places
        at = self.places() if ranks is not None else self.places(points)
        if ranks is None:
            ranks = np.sort(_joined(self._ranks))[at - 1]
        growth = self.grams[1].growth(ranks)
        distinct = [items.count() for items in self.grams]
        return {
            **{
                f"distinct_{n}": mean(found, total)
                for n, (found, total) in enumerate(zip(distinct, self.totals, strict=True), 1)
            },
            **{f"unique_{name}": n for name, n in zip(NAMES, distinct, strict=True)},
            "exact": all(items.exact for items in self.grams),
            "bigram_growth": [[n, found] for n, found in zip(at.tolist(), growth, strict=True)],
        }

    def _rank(self, session: Spoken) -> int:
        return hash_of(text_of(session), seed=self.seed)


def hashed_grams(sessions: Sequence[Spoken]) -> Iterator[tuple[Hashes, NDArray[np.int64]]]:
    """Yield the hashes of all unigrams, bigrams and trigrams, (n,), and the session of each, (n,).

    Sessions are numbered from 0 as they come; no n-gram crosses the end of an utterance.
    """
    words = [_hash(word) for s in sessions for said in s for word in said.words]
    in_said = [len(said.words) for s in sessions for said in s]
    in_session = [sum(len(said.words) for said in session) for session in sessions]
    utterance = np.repeat(np.arange(len(in_said)), np.array(in_said, np.int64))
    session = np.repeat(np.arange(len(sessions)), np.array(in_session, np.int64))
    grams = hashed = np.array(words, np.uint64)
    for n in range(len(NAMES)):
        if n:
            grams = mixed(grams[:-1], hashed[n:])  # each one word longer
        whole = utterance[: len(grams)] == utterance[n:]
        yield grams[whole], session[: len(grams)][whole]


def _joined(hashes: Sequence[Hashes]) -> Hashes:
    return np.concatenate([np.empty(0, np.uint64), *hashes])


def _hash(word: str) -> int:
    found = _hashes.get(word)
    if found is None:
        if len(_hashes) >= 1 << 18:
            _hashes.clear()
        found = _hashes[word] = hash_of(word)
    return found
