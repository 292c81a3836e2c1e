"""Distinct items of a corpus in bounded memory, and when each was first seen.

Every item is a 64-bit hash. The smallest hashes are kept, up to a limit: as long as fewer items are
distinct, nothing is lost; beyond it the kept ones are a uniform sample of all, and how densely they
lie says how many there are (bottom-k sketch; standard error 1 / sqrt(limit), 0.05% here). Parts
merge in any order, with one outcome.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.partial import State

Hashes = NDArray[np.uint64]

LIMIT = 1 << 22
"""Distinct items that are counted exactly."""

_ALL = 2.0**64


def hash_of(text: str, *, seed: int = 0) -> int:
    """Return 64 bits that depend on the text (lone surrogates too) and the seed alone."""
    key = seed.to_bytes(8, "little")
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), "little")


def mixed(hashes: Hashes, more: Hashes) -> Hashes:
    """Return the hashes of pairs of hashes, (n,); the order matters (splitmix64's finalizer)."""
    with np.errstate(over="ignore"):
        x = hashes * np.uint64(0x9E3779B97F4A7C15) + more
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: Hashes = x ^ (x >> np.uint64(31))
    return result


class DistinctItems:
    """Distinct items, each with the smallest rank that it was added with."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._hashes: Hashes = np.empty(0, np.uint64)
        self._ranks: Hashes = np.empty(0, np.uint64)
        self._full = False
        self._waiting: list[tuple[Hashes, Hashes]] = []
        self._n_waiting = 0

    def add(self, hashes: Hashes, ranks: Hashes) -> None:
        """Add items with the rank of the session they stand in; both are of shape (n,)."""
        self._waiting.append((hashes, ranks))
        self._n_waiting += len(hashes)
        if self._n_waiting > max(1 << 20, len(self._hashes)):
            self._settle()

    def merge(self, other: DistinctItems) -> None:
        """Add another's items."""
        self._full |= other._full
        self.add(*other._settle())
        for part in other._waiting:
            self.add(*part)

    def _settle(self) -> tuple[Hashes, Hashes]:
        """Bring what waits into order and return all: one entry an item, smallest hashes first."""
        if self._waiting:
            hashes = np.concatenate([self._hashes, *(h for h, _ in self._waiting)])
            ranks = np.concatenate([self._ranks, *(r for _, r in self._waiting)])
            order = np.lexsort((ranks, hashes))
            hashes, ranks = hashes[order], ranks[order]
            first = np.ones(len(hashes), bool)
            first[1:] = hashes[1:] != hashes[:-1]
            hashes, ranks = hashes[first], ranks[first]
            self._full |= len(hashes) > self.limit
            self._hashes, self._ranks = hashes[: self.limit], ranks[: self.limit]
            self._waiting, self._n_waiting = [], 0
        return self._hashes, self._ranks

    def state(self) -> State:
        """Return the items as data; a rank stands once, and items name it by its place."""
        hashes, ranks = self._settle()
        known, which = np.unique(ranks, return_inverse=True)
        small = np.uint16 if len(known) <= 1 << 16 else np.uint32
        facts = {"hashes": hashes, "ranks": known, "which": which.astype(small)}
        return {**facts, "full": self._full}

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned, where nothing is held yet."""
        self._hashes, self._ranks = state["hashes"], state["ranks"][state["which"]]
        self._full = state["full"]

    @property
    def exact(self) -> bool:
        """Whether every distinct item is still there."""
        self._settle()
        return not self._full

    def count(self) -> int:
        """Return the number of distinct items; beyond the limit an estimate."""
        hashes, _ = self._settle()
        return len(hashes) if not self._full else round((len(hashes) - 1) / (hashes[-1] / _ALL))

    def growth(self, ranks: Hashes) -> list[int]:
        """Return for each of the ``ranks``, in rising order, how many items have none above it."""
        hashes, seen = self._settle()
        found = np.searchsorted(np.sort(seen), ranks, side="right")
        scale = self.count() / len(hashes) if len(hashes) else 1.0
        return [round(n * scale) for n in found.tolist()]
