"""Near duplicates among sketches of which this process holds a few at a time.

What stands the same in a band of two sketches makes them candidates, and their estimated Jaccard
similarity decides: the same pairs as of datasketch's ``MinHashLSH``, with no table of all texts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import Hashes, mixed
from augesc_builder.text.minhash import Values

Rows = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Fetch = Callable[[Rows], Values]
"""From rows, in rising order and each once, to their sketches, (rows, permutations)."""

AT_ONCE = 1 << 16
"""Sketches that are held at a time, at most: half a kilobyte each."""

_ROWS, _OTHERS = 64, 256
"""Sketches that are compared at a time, with how many others."""


def band_keys(sketches: Values, band: tuple[int, int]) -> Hashes:
    """Return 64 bits of a band of each sketch, (texts,): equal where the band is."""
    start, end = band
    keys = np.zeros(len(sketches), np.uint64)
    for i in range(start, end):
        keys = mixed(keys, sketches[:, i].astype(np.uint64))
    return keys


@dataclass(frozen=True)
class Bucket:
    """Rows that have one key; ``columns`` say which column of the report each is of."""

    rows: Rows
    columns: NDArray[np.int64]
    at: NDArray[np.int64]
    """Where they stand among all that were given."""


def near_duplicates(
    keys: Hashes,
    rows: Rows,
    columns: NDArray[np.int64],
    band: tuple[int, int],
    threshold: float,
    fetch: Fetch,
) -> tuple[Flags, Flags]:
    """Tell which rows, all (n,), have a near duplicate of those that have the same key.

    Returns two answers, (n,): of all columns, and of the row's own alone.
    """
    compare = _Comparison(band, threshold)
    every, own = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
    for batch in _batches(keys, rows, columns):
        if len(batch) == 1:
            found = [compare.bucket(batch[0], _by_blocks(batch[0].rows, fetch))]
        else:
            wanted = np.unique(np.concatenate([bucket.rows for bucket in batch]))
            sketches = fetch(wanted)
            found = []
            for bucket in batch:
                here = sketches[np.searchsorted(wanted, bucket.rows)]
                found.append(compare.bucket(bucket, _held(here)))
        for bucket, (of_all, of_own) in zip(batch, found, strict=True):
            every[bucket.at], own[bucket.at] = of_all, of_own
    return every, own


def _batches(keys: Hashes, rows: Rows, columns: NDArray[np.int64]) -> Iterator[list[Bucket]]:
    """Yield buckets of several rows, so many at a time as may be held; a larger one alone."""
    order = np.lexsort((rows, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)])
    ends = np.append(starts[1:], len(keys))
    several = ends - starts > 1
    batch: list[Bucket] = []
    held = 0
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        at = order[start:end]
        if batch and held + len(at) > AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(Bucket(rows[at], columns[at], at))
        held += len(at)
    if batch:
        yield batch


def _held(sketches: Values) -> Callable[[int, int], Values]:
    return lambda start, end: sketches[start:end]


def _by_blocks(rows: Rows, fetch: Fetch) -> Callable[[int, int], Values]:
    """Return how the sketches of one bucket are had, of which only some blocks are held."""
    size = AT_ONCE // 8

    @functools.lru_cache(maxsize=4)
    def block(number: int) -> Values:
        return fetch(rows[number * size : (number + 1) * size])

    def get(start: int, end: int) -> Values:
        number = start // size  # which a step of rows never leaves
        return block(number)[start - number * size : end - number * size]

    return get


class _Comparison:
    """Compares sketches by their estimated similarity, where a band is the same in fact."""

    def __init__(self, band: tuple[int, int], threshold: float) -> None:
        self._band, self._threshold = slice(*band), threshold

    def bucket(self, bucket: Bucket, get: Callable[[int, int], Values]) -> tuple[Flags, Flags]:
        """Tell which rows of a bucket are alike, in all columns and in their own."""
        n, columns = len(bucket.rows), bucket.columns
        every, own = np.zeros(n, bool), np.zeros(n, bool)
        for start in range(0, n, _ROWS):
            end = min(n, start + _ROWS)
            mine = get(start, end)
            # Those beside it first: where many say the same, one step is enough.
            first = start // _OTHERS
            for step in range(-(-n // _OTHERS)):
                other = (first + step) % -(-n // _OTHERS) * _OTHERS
                beyond = min(n, other + _OTHERS)
                left = np.flatnonzero(~(every[start:end] & own[start:end]))
                if not len(left):
                    break
                alike = self._alike(mine[left], get(other, beyond))
                itself = start + left[:, None] == np.arange(other, beyond)[None, :]
                alike &= ~itself
                same = columns[start + left][:, None] == columns[other:beyond][None, :]
                every[start + left] |= alike.any(axis=1)
                own[start + left] |= (alike & same).any(axis=1)
        return every, own

    def _alike(self, some: Values, others: Values) -> Flags:
        """Return which pairs are near duplicates, (some, others)."""
        same = some[:, None, :] == others[None, :, :]
        share = np.count_nonzero(same, axis=2) / some.shape[1]
        found: Flags = (share >= self._threshold) & same[:, :, self._band].all(axis=2)
        return found
