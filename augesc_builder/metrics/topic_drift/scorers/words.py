"""By the words that a turn shares with the trigger and with all that the seeker has said (BM25)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.topic_drift.scorers.base import Answer, Question

_K1, _B = 1.2, 0.75
"""Robertson and Zaragoza (2009), section 3.3: values that do well on most collections."""


class Words:
    """BM25 with a turn as the document; needs no model.

    There are two queries, and a turn has the sum of what it has for each: the content words of the
    trigger, and those of all that the seeker has said so far. Document frequencies and the mean
    length are those of ``texts``, the pool of distractors.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        documents = [content_words(text) for text in texts]
        n_containing = Counter(word for words in documents for word in set(words))
        self._n = len(documents)
        self._idf = {word: self._rarity(n) for word, n in n_containing.items()}
        self._unseen = self._rarity(0)
        self._mean_length = max(1.0, sum(map(len, documents)) / max(1, len(documents)))

    def _rarity(self, n_containing: int) -> float:
        return math.log1p((self._n - n_containing + 0.5) / (n_containing + 0.5))

    def settings(self) -> dict[str, Any]:
        """Return the scorer's name and parameters; what it counted is the pool."""
        return {"scorer": "words", "k1": _K1, "b": _B}

    def fit(self, questions: Sequence[Question]) -> list[Answer]:
        """Score the candidates of each session."""
        return [self._fit(question) for question in questions]

    def _fit(self, question: Question) -> Answer:
        asked: Counter[str] = Counter()  # the queries that hold a word: two for the trigger's
        answer: Answer = {}
        triggered = False
        for i, message in enumerate(question.session):
            if i in question.candidates:
                answer[i] = [self._bm25(asked, text) for text in question.candidates[i]]
            if message["role"] == "user":
                words = content_words(message["content"])
                for word in words:
                    asked.setdefault(word, 1 if triggered else 2)
                triggered = triggered or bool(words)  # a "Hi!" is no trigger
        return answer

    def _bm25(self, asked: Counter[str], text: str) -> float:
        words = content_words(text)
        damped = _K1 * (1 - _B + _B * len(words) / self._mean_length)
        return math.fsum(
            asked[word] * self._idf.get(word, self._unseen) * n * (_K1 + 1) / (n + damped)
            for word, n in Counter(words).items()
            if word in asked
        )
