"""Hashes and sketches of sessions, made chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.metrics.distinct import Hashes, hash_of
from augesc_builder.metrics.partial import State
from augesc_builder.metrics.tokenized import Spoken, mean, text_of
from augesc_builder.text.minhash import Sketches, Values

DEFAULT = NearDuplicates(threshold=0.8, shingle=5, permutations=128)

_SUMS = ("sessions", "utterances", "repeated", "with_repetition")


class DuplicationCounts:
    """Counts and hashes of sessions; those of other sessions can be merged in."""

    def __init__(self, near: NearDuplicates | None = None) -> None:
        self.sessions = self.utterances = self.repeated = self.with_repetition = 0
        self._hashes: list[Hashes] = []
        self._settled: tuple[int, int | None] | None = None
        self._sketches = None if near is None else Sketches(near)

    def add(self, sessions: Sequence[Spoken]) -> None:
        """Count sessions."""
        self.sessions += len(sessions)
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
        self.sessions += other.sessions
        self.utterances += other.utterances
        self.repeated += other.repeated
        self.with_repetition += other.with_repetition
        self._hashes += other._hashes
        if self._sketches is not None and other._sketches is not None:
            self._sketches.merge(other._sketches)

    def take(self) -> tuple[Hashes, Values | None]:
        """Give away the hash and the sketch of each session: all that grows with their number.

        Hashes are (sessions,), sketches (sessions, permutations) where near-duplicates are asked
        for. What is left is counted as before, once :meth:`settle` says what they come to.
        """
        hashes, self._hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes]), []
        return hashes, None if self._sketches is None else self._sketches.take()

    def settle(self, distinct: int, near: int | None) -> None:
        """Take how many texts are distinct and how many sessions have a near duplicate."""
        self._settled = distinct, near

    def state(self) -> State:
        """Return the counts as data, without hashes and sketches."""
        return {name: getattr(self, name) for name in _SUMS}

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        for name in _SUMS:
            setattr(self, name, state[name])

    def _distinct_and_near(self) -> tuple[int, int | None]:
        distinct = len(np.unique(np.concatenate([np.empty(0, np.uint64), *self._hashes])))
        return distinct, None if self._sketches is None else self._sketches.n_alike()

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        distinct, near = self._settled or self._distinct_and_near()
        duplicates = self.sessions - distinct
        return {
            "sessions": self.sessions,
            "duplicate_sessions": duplicates,
            "duplicate_share": mean(duplicates, self.sessions),
            "near_duplicate_sessions": near,
            "near_duplicate_share": None if near is None else mean(near, self.sessions),
            "utterances": self.utterances,
            "repeated_utterances": self.repeated,
            "repeated_share": mean(self.repeated, self.utterances),
            "sessions_with_repetition": self.with_repetition,
            "repetition_share": mean(self.with_repetition, self.sessions),
        }
