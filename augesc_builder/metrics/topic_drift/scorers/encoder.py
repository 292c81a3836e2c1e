"""By how near a turn's vector is to those of the trigger and of all that the seeker has said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.metrics.topic_drift.scorers.base import Answer, Question
from augesc_builder.models.sentence_encoder import SentenceEncoder, Vectors, load_encoder

NAME = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "8b3219a92973c328a8e22fadcfa821b5dc75636a"
"""A small English one (22 million weights, Apache-2.0) at a pinned commit."""

_KEY = "quality.topic_drift.model"
_BATCH = 32
_TINY = 1e-9


class Encoder:
    """A sentence encoder's cosine with the trigger and with the mean of the seeker's utterances.

    The two are added. ``texts`` is the pool of distractors, whose vectors are made once.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        *,
        name: str,
        commit: str | None = None,
        texts: Sequence[str] = (),
    ) -> None:
        self._encoder, self._name, self._commit = encoder, name, commit
        self._texts = list(texts)
        self._place = {text: n for n, text in enumerate(self._texts)}
        self._blocks: dict[int, Vectors] = {}

    @classmethod
    def load(
        cls, name: str | Path = NAME, *, revision: str | None = None, texts: Sequence[str] = ()
    ) -> Encoder:
        """Load an encoder from the Hub or a folder; the default one at :data:`REVISION`.

        Raises :class:`~augesc_builder.errors.DownloadError` where neither the Hub nor the cache has
        it, and :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded.
        """
        pinned = REVISION if name == NAME and revision is None else revision
        encoder, commit = load_encoder(name, pinned, _KEY)
        return cls(encoder, name=str(name), commit=commit, texts=texts)

    def settings(self) -> dict[str, Any]:
        """Return the encoder's name and commit."""
        return {"scorer": "encoder", "model": self._name, "commit": self._commit}

    def fit(self, questions: Sequence[Question]) -> list[Answer]:
        """Score the candidates of each session."""
        return [self._fit(question) for question in questions]

    def _fit(self, question: Question) -> Answer:
        session = question.session
        needed = {m["content"] for m in session if m["role"] == "user"}
        needed |= {text for texts in question.candidates.values() for text in texts}
        vectors = self._vectors(sorted(needed - self._place.keys()))
        vectors |= {text: self._pooled(text) for text in needed & self._place.keys()}
        answer: Answer = {}
        trigger = so_far = None
        for i, message in enumerate(session):
            if i in question.candidates and trigger is not None and so_far is not None:
                # The direction alone of the mean: with its length the two would weigh unevenly.
                asked = trigger + so_far / max(float(np.linalg.norm(so_far)), _TINY)
                answer[i] = [float(asked @ vectors[text]) for text in question.candidates[i]]
            if message["role"] == "user":
                vector = vectors[message["content"]]
                trigger = vector if trigger is None else trigger
                so_far = vector if so_far is None else so_far + vector
        return answer

    def _vectors(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return the vectors of a session's own texts, those of about one length together."""
        found: dict[str, Vectors] = {}
        by_length = sorted(texts, key=lambda text: (len(text), text))
        for first in range(0, len(by_length), _BATCH):
            batch = by_length[first : first + _BATCH]
            found.update(zip(batch, self._encoder.encode(batch), strict=True))
        return found

    def _pooled(self, text: str) -> Vectors:
        """Return the vector of a turn of the pool, made with its block in the pool's order."""
        block, at = divmod(self._place[text], _BATCH)
        if block not in self._blocks:
            first = block * _BATCH
            self._blocks[block] = self._encoder.encode(self._texts[first : first + _BATCH])
        vector: Vectors = self._blocks[block][at]
        return vector
