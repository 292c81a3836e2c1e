"""Distinct n-grams, counted chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import LIMIT, DistinctItems, Hashes, hash_of, mixed
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
        self._sessions: list[Hashes] = []

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        ranks = np.array([self._rank(session) for session in sessions], np.uint64)
        for n, (grams, at) in enumerate(hashed_grams(sessions)):
            self.totals[n] += len(grams)
            self.grams[n].add(grams, ranks[at])
        self._sessions.append(ranks)

    def merge(self, other: DiversityCounts) -> None:
        """Add the counts of other sessions."""
        for mine, theirs in zip(self.grams, other.grams, strict=True):
            mine.merge(theirs)
        self.totals = [a + b for a, b in zip(self.totals, other.totals, strict=True)]
        self._sessions += other._sessions

    def statistics(self, points: int = POINTS) -> dict[str, Any]:
        """Return the measurement."""
        ranks = np.sort(np.concatenate([np.empty(0, np.uint64), *self._sessions]))
        at = np.unique(np.linspace(1, len(ranks), min(points, len(ranks))).round().astype(int))
        growth = self.grams[1].growth(ranks[at - 1])
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


def _hash(word: str) -> int:
    found = _hashes.get(word)
    if found is None:
        if len(_hashes) >= 1 << 18:
            _hashes.clear()
        found = _hashes[word] = hash_of(word)
    return found
