"""Every sample of every query in one fixed order, any shard of which is read as it is needed.

Those of a query stand together, queries in the order of their tables. Nothing but the number of
rows of each row group is held in memory: a hundred million queries take what a thousand do.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augesc_builder.config.generate import Generate
from augesc_builder.errors import InputError
from augesc_builder.pipeline.generate.tasks import FILLED, LABELS, Row, Task
from augesc_builder.readers.parquet import open_table, read_group
from augesc_builder.text.prompts import collapse

_WORD = r"[!-~]"
"""What no blank text holds; others are looked at one by one."""


class _Group(NamedTuple):
    """A row group of a table of queries: the tasks ``first`` and so many more."""

    path: Path
    number: int
    first: int


class Order:
    """The tasks of queries tables by their shards of ``settings.shard_size`` rows.

    Raises :class:`~augesc_builder.errors.InputError` for an empty table, and, where it is
    ``checked``, for an empty value.
    """

    def __init__(self, files: Iterable[Path], settings: Generate, *, checked: bool) -> None:
        self._settings, self._checked = settings, checked
        self._groups: list[_Group] = []
        self.n_tasks = 0
        for path in files:
            self._add(path)
        self._last: tuple[int, pa.Table] | None = None

    @property
    def n_shards(self) -> int:
        """Return how many shards there are."""
        return -(-self.n_tasks // self._settings.shard_size)

    def n_rows(self, shard: int) -> int:
        """Return how many rows a shard has."""
        size = self._settings.shard_size
        return min(size, self.n_tasks - shard * size)

    def tasks(self, shard: int) -> list[Task]:
        """Return the tasks of a shard."""
        first = shard * self._settings.shard_size
        wanted = itertools.islice(self._from(first), self.n_rows(shard))
        return [Task(query, sample, shard, row) for row, (query, sample) in enumerate(wanted)]

    # -- inside ----------------------------------------------------------------------------------

    def _add(self, path: Path) -> None:
        n_rows = 0
        with open_table(path) as file:
            for number in range(file.num_row_groups):
                # Only to count, the sources alone are read, and where they do not matter, nothing.
                n = file.metadata.row_group(number).num_rows
                each = self._settings.samples_per_query
                if self._checked or not isinstance(each, int):
                    columns = FILLED if self._checked else ["source"]
                    table = read_group(file, number, columns, path, LABELS if self._checked else ())
                    if self._checked:
                        _check(table, path, n_rows)
                    n_tasks = int(self._samples(table).sum())
                else:
                    n_tasks = n * each
                if n_tasks:
                    self._groups.append(_Group(path, number, self.n_tasks))
                self.n_tasks += n_tasks
                n_rows += n
        if not n_rows:
            raise InputError("empty; expected a query a row", path)

    def _samples(self, table: pa.Table) -> Any:
        """Return how many samples each row of a table has."""
        each = self._settings.samples_per_query
        if isinstance(each, int):
            return np.full(table.num_rows, each)
        return np.array([self._settings.samples_for(s) for s in table["source"].to_pylist()], int)

    def _from(self, first: int) -> Iterator[tuple[Row, int]]:
        """Yield queries with the numbers of their samples, from the task ``first`` on."""
        at = bisect_right([group.first for group in self._groups], first) - 1
        for number in range(at, len(self._groups)):
            table = self._table(number)
            ends = np.cumsum(self._samples(table))
            before = max(0, first - self._groups[number].first)
            row = int(np.searchsorted(ends, before, side="right"))
            while row < table.num_rows:
                (query,) = table.slice(row, 1).to_pylist()
                query["text"] = collapse(query["text"])
                start = int(ends[row - 1]) if row else 0
                for sample in range(max(0, before - start), int(ends[row]) - start):
                    yield query, sample
                row += 1

    def _table(self, group: int) -> pa.Table:
        """Return a row group; the last one stays in memory, for the next shard is of it, too."""
        if self._last is None or self._last[0] != group:
            path, number, _ = self._groups[group]
            with open_table(path) as file:
                self._last = group, read_group(file, number, FILLED, path, LABELS)
        return self._last[1]


def _check(table: pa.Table, path: Path, n_before: int) -> None:
    """Refuse rows with an empty value; ``n_before`` stand before them in their file."""
    doubtful: Sequence[int] = np.flatnonzero(
        np.logical_or.reduce(
            [
                ~np.asarray(pc.fill_null(pc.match_substring_regex(column, _WORD), False), bool)
                for column in map(table.column, FILLED)
            ]
        )
    ).tolist()
    for number in doubtful:
        (row,) = table.slice(number, 1).to_pylist()
        if not all(isinstance(row[name], str) and row[name].strip() for name in FILLED):
            raise InputError(
                f"query_id, source and text must be filled: {row}", path, n_before + number + 1
            )
    for name in {*LABELS} & {*table.column_names}:
        if pa.types.is_string(table.field(name).type):
            continue
        for number, value in enumerate(table[name].to_pylist(), n_before + 1):
            if not isinstance(value, str | None):
                raise InputError(
                    f"column {name}: expected a text, found {value!r:.60}", path, number
                )
