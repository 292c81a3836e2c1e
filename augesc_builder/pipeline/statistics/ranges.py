"""What needs all sessions at once, a range or a band's range at a time.

Equal texts have equal hashes, and so lie in one range, whatever shards they are of. Near duplicates
have equal keys in some band. The owner only adds up what ranges come to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import Hashes
from augesc_builder.metrics.duplication.alike import near_duplicates
from augesc_builder.metrics.partial import State, below, read_state
from augesc_builder.pipeline.statistics.counting import (
    BLOCK,
    HASHES,
    RANKS,
    SKETCHES,
    band_table,
)
from augesc_builder.pipeline.statistics.jobs import (
    BANDS,
    RANGES,
    STAGE,
    Column,
    Columns,
    Maker,
    state_path,
    write,
)
from augesc_builder.pipeline.statistics.measure import Counts
from augesc_builder.pipeline.statistics.plan import Plan
from augesc_builder.run.shards import Shards
from augesc_builder.text.minhash import Values, bands_of

_FOUND, _ALIKE = "ranges", "alike"
"""Tables of ranges, and of bands' ranges."""

_NAMES = ("column/set", "column/source")
_KEPT_BY = {HASHES: "duplication", RANKS: "lexical_diversity"}
"""The measurement that each table is of."""

_SHARD = np.uint64(32)
"""Bits that a row's number in its shard has, below the shard's."""


class Ranges(Maker):
    """Counts distinct hashes of a range, and brings its ranks into order."""

    def make(self, shards: Shards, number: int) -> None:
        """Read one range out of every shard, and count it."""
        columns = Columns()
        hashes, of = self._read(shards, HASHES, number, columns)
        ranks, ranks_of = self._read(shards, RANKS, number, columns)
        every = range(len(columns.known))
        found: dict[str, Any] = {
            **columns.named(),
            "together": len(np.unique(hashes)),
            "distinct": [len(np.unique(hashes[of == i])) for i in every],
            **{f"ranks/{i}": np.sort(ranks[ranks_of == i]) for i in every},
        }
        write(shards, RANGES, number, self.plan.n_ranges, {_FOUND: found})

    def _read(
        self, shards: Shards, table: str, number: int, columns: Columns
    ) -> tuple[Hashes, NDArray[np.int64]]:
        """Return the hashes of a range, (n,), and the column of each, (n,)."""
        values, of = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for shard in self.plan.shards_with(_KEPT_BY[table]):
            names = [*_NAMES, str(number), f"{number}/of"]
            state = read_state(self.path(shards, table, shard), names)
            known = np.array(columns.numbers(state), np.int64)
            values.append(state[str(number)])
            of.append(known[state[f"{number}/of"]])
        return np.concatenate(values), np.concatenate(of)


class Bands(Maker):
    """Finds near duplicates in a range of the keys of a band."""

    def make(self, shards: Shards, number: int) -> None:
        """Read one range of a band out of every shard; write which rows have a near duplicate."""
        near, n_ranges = self.plan.near, self.plan.n_ranges
        if near is None:
            return
        bands = bands_of(near)
        band, part = divmod(number, n_ranges)
        columns = Columns()
        keys, rows, of = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for shard in self.plan.shards_with(_KEPT_BY[HASHES]):
            names = [*_NAMES, str(part), f"{part}/rows", f"{part}/of"]
            state = read_state(self.path(shards, band_table(band), shard), names)
            known = np.array(columns.numbers(state), np.int64)
            keys.append(state[str(part)])
            rows.append(state[f"{part}/rows"] | (np.uint64(shard) << _SHARD))
            of.append(known[state[f"{part}/of"]])
        fetch = _Sketches(shards, self.plan, near.permutations)
        ids, columns_of = np.concatenate(rows), np.concatenate(of)
        every, own = near_duplicates(
            np.concatenate(keys), ids, columns_of, bands[band], near.threshold, fetch
        )
        found = {
            **columns.named(),
            **below("every", self._by_shards(ids[every])),
            **below("own", self._by_shards(ids[own], columns_of[own])),
        }
        write(shards, BANDS, number, len(bands) * n_ranges, {_ALIKE: found})

    def _by_shards(self, ids: Hashes, columns: NDArray[np.int64] | None = None) -> State:
        """Part rows by their shards, so that those of some shards are read together."""
        group = (ids >> _SHARD).astype(np.int64) * self.plan.n_ranges // self.plan.n_shards
        found: dict[str, Any] = {}
        for i in range(self.plan.n_ranges):
            found[str(i)] = ids[group == i]
            if columns is not None:
                found[f"{i}/of"] = columns[group == i]
        return found


@dataclass(frozen=True)
class _Sketches:
    """Reads sketches out of the tables of their shards."""

    shards: Shards
    plan: Plan
    permutations: int

    def __call__(self, ids: Hashes) -> Values:
        """Return the sketches of rows in rising order, (rows, permutations)."""
        found = np.empty((len(ids), self.permutations), np.uint32)
        shard_of = ids >> _SHARD
        row_of = (ids & np.uint64((1 << 32) - 1)).astype(np.int64)
        for shard in np.unique(shard_of).tolist():
            here = np.flatnonzero(shard_of == np.uint64(shard))
            blocks = row_of[here] // BLOCK
            wanted = np.unique(blocks).tolist()
            path = state_path(self.shards, STAGE, SKETCHES, shard, self.plan.n_shards)
            state = read_state(path, map(str, wanted))
            for block in wanted:
                at = here[blocks == block]
                sketches = state[str(block)].reshape(-1, self.permutations)
                found[at] = sketches[row_of[at] % BLOCK]
        return found


Scope = tuple[Counts, Sequence[Column]]
"""Counts, and the columns that they are of."""


def settle(shards: Shards, plan: Plan, scopes: Sequence[Scope]) -> None:
    """Tell counts what all their sessions come to: distinct texts, near duplicates, ranks.

    Counts are those of one column, or of all that are not beside, or have no duplicates counted.
    """
    distinct: dict[Column, int] = {}
    together = 0
    pickers = [_Picker(counts, columns) for counts, columns in scopes]
    for number in range(plan.n_ranges):
        state = read_state(state_path(shards, RANGES, _FOUND, number, plan.n_ranges))
        together += state["together"]
        named = dict(zip(_columns(state), range(len(state["column/set"])), strict=True))
        for column, i in named.items():
            distinct[column] = distinct.get(column, 0) + state["distinct"][i]
        for picker in pickers:
            picker.take([state[f"ranks/{named[c]}"] for c in picker.columns if c in named])
    for picker in pickers:
        picker.settle()
    every, own = _count_alike(shards, plan) if plan.near is not None else (None, None)
    for counts, columns in scopes:
        if (duplication := counts.parts.get("duplication")) is not None:
            alone = len(columns) == 1
            near = every
            if alone and own is not None:
                near = own.get(columns[0], 0)
            duplication.settle(distinct.get(columns[0], 0) if alone else together, near)


class _Picker:
    """Finds the ranks at some places among all, which come in order, a range at a time."""

    def __init__(self, counts: Counts, columns: Sequence[Column]) -> None:
        self.columns = columns
        self._diversity = counts.parts.get("lexical_diversity")
        here = self._diversity
        self._places = np.empty(0, np.int64) if here is None else here.places() - 1
        self._before = 0
        self._found: list[Hashes] = [np.empty(0, np.uint64)]

    def take(self, ranks: Sequence[Hashes]) -> None:
        """Look at the ranks of a range."""
        if self._diversity is None:
            return
        ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *ranks]))
        here = self._places - self._before
        self._found.append(ordered[here[(here >= 0) & (here < len(ordered))]])
        self._before += len(ordered)

    def settle(self) -> None:
        """Tell the counts."""
        if self._diversity is not None:
            self._diversity.settle(np.concatenate(self._found))


def _count_alike(shards: Shards, plan: Plan) -> tuple[int, dict[Column, int]]:
    """Count the rows that have a near duplicate in any band: in all columns, in each alone."""
    n = n_bands(plan) * plan.n_ranges
    every, own = 0, dict[Column, int]()
    for group in range(plan.n_ranges):
        rows = [np.empty(0, np.uint64)]
        by_column: dict[Column, list[Hashes]] = {}
        names = [*_NAMES, f"every/{group}", f"own/{group}", f"own/{group}/of"]
        for number in range(n):
            state = read_state(state_path(shards, BANDS, _ALIKE, number, n), names)
            rows.append(state[f"every/{group}"])
            for i, column in enumerate(_columns(state)):
                mine = state[f"own/{group}"][state[f"own/{group}/of"] == i]
                by_column.setdefault(column, []).append(mine)
        every += len(np.unique(np.concatenate(rows)))
        for column, found in by_column.items():
            own[column] = own.get(column, 0) + len(np.unique(np.concatenate(found)))
    return every, own


def n_bands(plan: Plan) -> int:
    """Return how many bands sketches have; none where near-duplicates are not searched."""
    return 0 if plan.near is None else len(bands_of(plan.near))


def _columns(state: State) -> Iterator[Column]:
    return zip(state["column/set"], state["column/source"], strict=True)
