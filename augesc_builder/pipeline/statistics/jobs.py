"""Statistics as jobs over shards: counts of each, then ranges of hashes, then bands of sketches.

::

    rows of a shard ─► counts ───────────────────────────────────► merged by the owner, in order
                    ├► hashes and ranks, by ranges ─► a range ──┐
                    └► sketches, and their bands ───► a band's ─┴► numbers of each column

What grows with the number of sessions never comes together in one process: a worker holds one
range, in whatever shards its hashes lie. Everything is written as data
(:mod:`augesc_builder.metrics.partial`) below ``partial``, and goes when the stage is done.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.metrics.distinct import Hashes
from augesc_builder.metrics.partial import State, to_table
from augesc_builder.pipeline.statistics.plan import Plan
from augesc_builder.run import layout
from augesc_builder.run.shards import Shards
from augesc_builder.run.shared import ShardwiseJob, ShardwiseWorker
from augesc_builder.run.workers import ordered_map

STAGE = "statistics"
RANGES, BANDS = f"{STAGE}-ranges", f"{STAGE}-bands"

Column = tuple[int, str]
"""The number of a set in the plan, and a source."""


@dataclass(frozen=True)
class PooledJob(ShardwiseJob):
    """A job of which each process of this machine makes a shard at a time, where it is alone."""

    num_proc: int = 1

    helps: bool = False
    """Whether the run is another's: its shards and their marks go when the stage is done."""

    def is_done(self, number: int) -> bool:
        """Whether a shard has its mark, or had it."""
        return (self.helps and STAGE in self.shards.marks) or super().is_done(number)

    def worker(self, *, alone: bool) -> ShardwiseWorker:
        """Make a worker in this process."""
        return _Pool(self) if alone and self.num_proc > 1 else super().worker(alone=alone)


class _Pool(ShardwiseWorker):
    """Makes several shards at once."""

    def __init__(self, job: PooledJob) -> None:
        super().__init__(job, alone=True)
        self._pooled = job

    def _make(self, numbers: Iterator[int]) -> Iterator[int]:
        preload = "augesc_builder.pipeline.statistics.measure"
        make = partial(_make_one, self._pooled)
        yield from ordered_map(make, numbers, self._pooled.num_proc, preload)


def _make_one(job: PooledJob, number: int) -> int:
    if not job.is_done(number):
        job.check_run()
        job.maker()(job.shards, number)
    return number


@dataclass(frozen=True)
class Maker(ABC):
    """Makes the shards of a job of a plan; it is pickled, and makes them itself."""

    plan: Plan

    def __call__(self) -> Callable[[Shards, int], object]:
        """Return what makes a shard."""
        return self.make

    @abstractmethod
    def make(self, shards: Shards, number: int) -> None:
        """Make a shard."""

    def path(self, shards: Shards, table: str, number: int) -> Path:
        """Return where a table of a counted shard lies, which is fetched if it is elsewhere."""
        return state_path(shards, STAGE, table, number, self.plan.n_shards)


def table_name(table: str) -> str:
    """Name a table of partial counts below the run's folder."""
    return f"{layout.PARTIAL}/{table}"


def state_path(shards: Shards, stage: str, table: str, number: int, n_shards: int) -> Path:
    """Return where a shard of a table of a stage's partial counts lies; it may be fetched first."""
    shards.bring(stage, number)
    return shards.path / layout.shard_path(table_name(table), number, n_shards)


def write(shards: Shards, stage: str, number: int, n_shards: int, states: dict[str, State]) -> None:
    """Write a shard of each table of partial counts."""
    tables = {table_name(name): to_table(state) for name, state in states.items()}
    shards.add_shard(stage, number, n_shards, tables)


def in_ranges(values: Hashes, n_ranges: int, **others: Any) -> dict[str, Any]:
    """Part hashes, (n,), by their leading bits, and ``others``, (n,), with them.

    A range's are named by its number, and the others by that and their name.
    """
    order = values.argsort(kind="stable")
    ordered = values[order]
    width = (1 << 64) // n_ranges
    lows = np.array([p * width for p in range(n_ranges)], np.uint64)
    cuts = [*ordered.searchsorted(lows).tolist(), len(values)]
    found = {}
    for p in range(n_ranges):
        part = slice(cuts[p], cuts[p + 1])
        found[str(p)] = ordered[part]
        found |= {f"{p}/{name}": column[order[part]] for name, column in others.items()}
    return found


class Columns:
    """Numbers of columns as they are met."""

    def __init__(self) -> None:
        self.known: dict[Column, int] = {}

    def numbers(self, state: State) -> list[int]:
        """Return the number here of each column of a state that :func:`named` gave."""
        of = zip(state["column/set"], state["column/source"], strict=True)
        return [self.known.setdefault(column, len(self.known)) for column in of]

    def named(self) -> State:
        """Return the columns as data."""
        return named(list(self.known))


def named(columns: Sequence[Column]) -> State:
    """Return columns as data."""
    sets, sources = [number for number, _ in columns], [source for _, source in columns]
    return {"column/set": sets, "column/source": sources}
