"""A random sample of sessions that depends on their texts and a seed alone.

A session's rank is a hash; the sample is the sessions of the lowest ranks. So parts merge in any
order, with one outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.partial import State
from augesc_builder.metrics.tokenized import Spoken, text_of

Item = TypeVar("Item", bound="tuple[int | str, ...]")


class Sample(Generic[Item]):
    """What is kept of the sessions in a sample of at most ``size``."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._ranked: list[tuple[int, Item]] = []

    def add(self, rank: int, item: Item) -> None:
        """Offer what is to be kept of a session of this rank."""
        self._ranked.append((rank, item))
        if len(self._ranked) > 2 * self.size:
            self._settle()

    def merge(self, other: Sample[Item]) -> None:
        """Add what another kept."""
        for rank, item in other._ranked:
            self.add(rank, item)

    def __iter__(self) -> Iterator[Item]:
        self._settle()
        return (item for _, item in self._ranked)

    def state(self) -> State:
        """Return the sample as data: its ranks, and each place of its items as a column."""
        self._settle()
        ranks = np.array([rank for rank, _ in self._ranked], np.uint64)
        places = zip(*(item for _, item in self._ranked), strict=True)
        return {"ranks": ranks, **{f"item/{i}": _column(place) for i, place in enumerate(places)}}

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned, where nothing is held yet."""
        n_places = len(state) - 1
        columns = (_values(state[f"item/{i}"]) for i in range(n_places))
        items: Any = zip(*columns, strict=True)
        self._ranked = list(zip(state["ranks"].tolist(), items, strict=True))

    def _settle(self) -> None:
        # Equal ranks are equal sessions, or one in 2 ** 64: then what is kept of them decides.
        self._ranked.sort()
        del self._ranked[self.size :]


def _column(values: Sequence[int | str]) -> Any:
    return list(values) if isinstance(values[0], str) else np.array(values, np.int64)


def _values(column: Any) -> list[Any]:
    return column if isinstance(column, list) else column.tolist()


def rank_of(session: Spoken, seed: int) -> int:
    """Return a session's place in the order that samples of this seed are drawn in."""
    return hash_of(text_of(session), seed=seed)
