"""Hashes and sketches of sessions, made chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.metrics.distinct import Hashes, hash_of
from augesc_builder.metrics.tokenized import Spoken, mean, text_of
from augesc_builder.text.minhash import Sketches

DEFAULT = NearDuplicates(threshold=0.8, shingle=5, permutations=128)


class DuplicationCounts:
    """Counts and hashes of sessions; those of other sessions can be merged in."""

    def __init__(self, near: NearDuplicates | None = None) -> None:
        self.utterances = self.repeated = self.with_repetition = 0
        self._hashes: list[Hashes] = []
        self._sketches = None if near is None else Sketches(near)

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        self._hashes.append(
            np.array([hash_of(text_of(session)) for session in sessions], np.uint64)
        )
        for session in sessions:
            distinct = len({" ".join(said.text.casefold().split()) for said in session})
            self.utterances += len(session)
            self.repeated += len(session) - distinct
            self.with_repetition += distinct < len(session)
            if self._sketches is not None:
                self._sketches.add(" ".join(word for said in session for word in said.words))

    def merge(self, other: DuplicationCounts) -> None:
        """Add the counts of other sessions."""
        self.utterances += other.utterances
        self.repeated += other.repeated
        self.with_repetition += other.with_repetition
        self._hashes += other._hashes
        if self._sketches is not None and other._sketches is not None:
            self._sketches.merge(other._sketches)

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        duplicates = len(hashes) - len(np.unique(hashes))
        near = None if self._sketches is None else self._sketches.n_alike()
        return {
            "sessions": len(hashes),
            "duplicate_sessions": duplicates,
            "duplicate_share": mean(duplicates, len(hashes)),
            "near_duplicate_sessions": near,
            "near_duplicate_share": None if near is None else mean(near, len(hashes)),
            "utterances": self.utterances,
            "repeated_utterances": self.repeated,
            "repeated_share": mean(self.repeated, self.utterances),
            "sessions_with_repetition": self.with_repetition,
            "repetition_share": mean(self.with_repetition, len(hashes)),
        }
