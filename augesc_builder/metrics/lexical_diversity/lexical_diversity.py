"""Distinct n-grams, and how unique bigrams grow with sessions (Figure 5).

Offline, as a class::

    LexicalDiversity().compute(messages=dataset["messages"])

or by ``evaluate.load("PATH/lexical_diversity", module_type="measurement")``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import evaluate
import numpy as np

from augesc_builder.metrics.sketch import LIMIT, DistinctItems, Hashes, hash_of, mixed
from augesc_builder.metrics.spoken import FEATURES, Spoken, mean, spoken
from augesc_builder.prompts import Message

DESCRIPTION = """\
Distinct-n (Li et al. 2016), for n = 1, 2, 3: distinct n-grams of words by all n-grams, of the whole
corpus, within utterances. And the growth curve of unique bigrams over sessions in random order
(Figure 5 of the AugESC paper). Words are NLTK's, case-sensitive, punctuation marks included.

The order of sessions is that of a hash of their text and the seed, so it does not depend on the
order they come in. N-grams are counted as 64-bit hashes: among ten million, two share one with a
chance of 3 in a million. Up to four million distinct n-grams the counts are exact; beyond, they are
estimated with a standard error of 0.05%, and "exact" says so. Distinct-n falls with the size of a
corpus: compare corpora of one size.
"""

INPUTS_DESCRIPTION = """\
Args:
    messages: for each session its utterances, a list of {"role", "content"} in order.
    seed: of the order of the sessions in the curve.
    points: how many points the curve has at most.
Returns:
    distinct_1, distinct_2, distinct_3: shares from 0 to 1, None where there is no such n-gram;
    unique_unigrams, unique_bigrams, unique_trigrams: counts; exact: whether all of them are exact;
    bigram_growth: a list of [sessions, unique bigrams in them].
"""

CITATION = """\
Li, Galley, Brockett, Gao, Dolan (2016): A Diversity-Promoting Objective Function for Neural
Conversation Models. Zheng, Sabour, Wen, Huang (2022): AugESC. arXiv 2202.13047, Figure 5.
"""

_NAMES = ("unigrams", "bigrams", "trigrams")
_POINTS = 100

_hashes: dict[str, int] = {}


class DiversityCounts:
    """Distinct n-grams that can be counted piece by piece and merged in any order."""

    def __init__(self, seed: int = 0, limit: int = LIMIT) -> None:
        self.seed = seed
        self.grams = [DistinctItems(limit) for _ in _NAMES]
        self.totals = [0 for _ in _NAMES]
        self._sessions: list[Hashes] = []

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        words = [_hash(word) for s in sessions for said in s for word in said.words]
        in_said = [len(said.words) for s in sessions for said in s]
        ranks = np.array([self._rank(session) for session in sessions], np.uint64)
        in_session = [sum(len(said.words) for said in session) for session in sessions]
        utterance = np.repeat(np.arange(len(in_said)), np.array(in_said, np.int64))
        rank = np.repeat(ranks, np.array(in_session, np.int64))
        grams = hashed = np.array(words, np.uint64)
        for n, items in enumerate(self.grams):
            if n:
                grams = mixed(grams[:-1], hashed[n:])  # each one word longer
            whole = utterance[: len(grams)] == utterance[n:]
            self.totals[n] += int(whole.sum())
            items.add(grams[whole], rank[: len(grams)][whole])
        self._sessions.append(ranks)

    def merge(self, other: DiversityCounts) -> None:
        """Add the counts of other sessions."""
        for mine, theirs in zip(self.grams, other.grams, strict=True):
            mine.merge(theirs)
        self.totals = [a + b for a, b in zip(self.totals, other.totals, strict=True)]
        self._sessions += other._sessions

    def statistics(self, points: int = _POINTS) -> dict[str, Any]:
        """Give the measurement."""
        ranks = np.sort(np.concatenate([np.empty(0, np.uint64), *self._sessions]))
        at = np.unique(np.linspace(1, len(ranks), min(points, len(ranks))).round().astype(int))
        growth = self.grams[1].growth(ranks[at - 1])
        distinct = [items.count() for items in self.grams]
        return {
            **{
                f"distinct_{n}": mean(found, total)
                for n, (found, total) in enumerate(zip(distinct, self.totals, strict=True), 1)
            },
            **{f"unique_{name}": n for name, n in zip(_NAMES, distinct, strict=True)},
            "exact": all(items.exact for items in self.grams),
            "bigram_growth": [[n, found] for n, found in zip(at.tolist(), growth, strict=True)],
        }

    def _rank(self, session: Spoken) -> int:
        return hash_of("\n".join(f"{u.role} {u.text}" for u in session), seed=self.seed)


def _hash(word: str) -> int:
    found = _hashes.get(word)
    if found is None:
        if len(_hashes) >= 1 << 18:
            _hashes.clear()
        found = _hashes[word] = hash_of(word)
    return found


class LexicalDiversity(evaluate.Measurement):  # type: ignore[misc]
    """Distinct-n and Figure 5 of the paper as an ``evaluate`` measurement."""

    def _info(self) -> evaluate.MeasurementInfo:
        return evaluate.MeasurementInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS_DESCRIPTION,
            features=FEATURES,
        )

    def _compute(
        self, messages: Iterable[Sequence[Message]], seed: int = 0, points: int = _POINTS
    ) -> dict[str, Any]:
        counts = DiversityCounts(seed)
        counts.add([spoken(session) for session in messages])
        return counts.statistics(points)
