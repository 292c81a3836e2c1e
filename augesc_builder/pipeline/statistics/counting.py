"""The sessions of one shard, counted: what does not grow with them, and a row for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augesc_builder.metrics.duplication.alike import band_keys
from augesc_builder.metrics.partial import State, below, part_of, read_state
from augesc_builder.pipeline.statistics.jobs import (
    STAGE,
    Column,
    Maker,
    in_ranges,
    named,
    state_path,
    write,
)
from augesc_builder.pipeline.statistics.measure import Counts
from augesc_builder.pipeline.statistics.plan import Plan
from augesc_builder.readers.records import BadLines
from augesc_builder.run.shards import Shards
from augesc_builder.text.minhash import bands_of

COUNTS, HASHES, RANKS, SKETCHES = "counts", "hashes", "ranks", "sketches"
"""Tables of a counted shard."""

BLOCK = 256
"""Sketches in a column of their table, which are read together."""


def band_table(band: int) -> str:
    """Return the table of the keys of a band."""
    return f"band-{band:02d}"


class Counting(Maker):
    """Counts the sessions of a shard."""

    def make(self, shards: Shards, number: int) -> None:
        """Count the sessions of a shard, each source apart."""
        index = self.plan.part_of(number)
        what = self.plan.parts[index].what
        counted, unread, bad = dict[str, Counts](), 0, BadLines()
        for chunk in self.plan.chunks(number):
            unreadable = BadLines(what.strict)
            unread += what.chunk(chunk, counted, unreadable)
            bad.merge(unreadable)
        columns = named([(index, source) for source in counted])
        states = self._rows([*counted.values()] or [Counts(what)], columns)
        counts_state: dict[str, Any] = {
            **columns,
            "unread": unread,
            "bad": bad.count,
            "examples": bad.examples,
        }
        for i, counts in enumerate(counted.values()):
            counts_state |= below(str(i), counts.state())
        write(shards, STAGE, number, self.plan.n_shards, {COUNTS: counts_state, **states})

    def _rows(self, counted: list[Counts], columns: State) -> dict[str, State]:
        """Take what is kept of each session; ranges of it are columns of a table."""
        taken = [counts.take_rows() for counts in counted]
        n_ranges = self.plan.n_ranges

        def of(name: str) -> Any:
            return np.repeat(
                np.arange(len(taken), dtype=np.uint16), [len(rows.get(name, ())) for rows in taken]
            )

        states: dict[str, State] = {}
        for name in (HASHES, RANKS):
            values = [rows[name] for rows in taken if name in rows]
            if values:
                ranges = in_ranges(np.concatenate(values), n_ranges, of=of(name))
                states[name] = {**columns, **ranges}
        sketches = [rows[SKETCHES] for rows in taken if SKETCHES in rows]
        if sketches and self.plan.near is not None:
            together = np.concatenate(sketches).astype(np.uint32, copy=False)
            states[SKETCHES] = {"rows": len(together)} | {
                str(i): together[start : start + BLOCK].ravel()
                for i, start in enumerate(range(0, len(together), BLOCK))
            }
            rows, columns_of = np.arange(len(together), dtype=np.uint32), of(SKETCHES)
            for i, band in enumerate(bands_of(self.plan.near)):
                keys = band_keys(together, band)
                ranges = in_ranges(keys, n_ranges, of=columns_of, rows=rows)
                states[band_table(i)] = {**columns, **ranges}
        return states


@dataclass
class Counted:
    """The counts of each column, how many texts are no conversations, what could not be read."""

    columns: dict[Column, Counts] = field(default_factory=dict)
    unread: int = 0
    bad: BadLines = field(default_factory=BadLines)

    def merge(self, shards: Shards, plan: Plan, number: int) -> None:
        """Add the counts of a shard.

        Raises :class:`~augesc_builder.errors.DamagedError` where they are not as written.
        """
        state = read_state(state_path(shards, STAGE, COUNTS, number, plan.n_shards))
        self.unread += state["unread"]
        self.bad.merge(BadLines(count=state["bad"], examples=state["examples"]))
        for i, column in enumerate(zip(state["column/set"], state["column/source"], strict=True)):
            what = plan.parts[column[0]].what
            counts = Counts(what)
            counts.load(part_of(state, str(i)))
            if column in self.columns:
                self.columns[column].merge(counts)
            else:
                self.columns[column] = counts
