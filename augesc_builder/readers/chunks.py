"""Files of rows in chunks that worker processes can take: Parquet tables and lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.readers.jsonl import Line, json_of, read_json_rows
from augesc_builder.readers.parquet import open_table, rows_of
from augesc_builder.readers.records import USUAL, Limits, parse_each

PARQUET = ".parquet"


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one file, not yet looked at: a table, or numbered lines.

    ``first_in_file`` rows stand before them there, and ``first`` in all files together.
    """

    path: Path
    first: int
    first_in_file: int
    rows: pa.Table | list[Line]
    limits: Limits = USUAL

    def numbers(self) -> Iterable[int]:
        """Return the row or line number of each row, from 1."""
        if isinstance(self.rows, list):
            return [number for number, _ in self.rows]
        return range(self.first_in_file + 1, self.first_in_file + 1 + self.rows.num_rows)

    def values(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """Yield ``(row or line number, value)`` of each row, of a table with ``columns`` alone.

        The value of a row that cannot be read is the error that says so.
        """
        if isinstance(self.rows, list):
            lines = parse_each(self.rows, lambda line, n: json_of(line, self.path, n), self.path)
            yield from zip(self.numbers(), lines, strict=True)
            return
        named = [name for name in columns or () if name in self.rows.column_names]
        table = self.rows.select(named) if named else self.rows
        yield from rows_of(table, self.path, self.first_in_file + 1, self.limits)


def count_rows(path: Path, limits: Limits = USUAL) -> int:
    """Return the number of rows of a file without parsing them, those that are bad among them.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read.
    """
    if path.suffix == PARQUET:
        with open_table(path) as file:
            return int(file.metadata.num_rows)
    return sum(1 for _ in read_json_rows(path, limits))


def read_chunks(
    path: Path, first: int, size: int, limits: Limits = USUAL, skip: int = 0
) -> Iterator[Chunk]:
    """Yield a file in chunks of ``size`` rows; ``first`` rows stand before it in other files.

    The first ``skip`` rows are left out: of a table, without reading row groups that hold no other.
    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read.
    """
    start = skip
    table = path.suffix == PARQUET
    for rows in (
        _table_chunks(path, size, skip) if table else _line_chunks(path, size, limits, skip)
    ):
        yield Chunk(path, first + start, start, rows, limits)
        start += len(rows)


def _table_chunks(path: Path, size: int, skip: int) -> Iterator[pa.Table]:
    """Yield tables of ``size`` rows, whatever the row groups are."""
    with open_table(path) as file:
        groups, skip = _groups_behind(file.metadata, skip)
        rest: list[pa.RecordBatch] = []
        for whole in file.iter_batches(batch_size=size, row_groups=groups):
            batch = whole.slice(min(skip, whole.num_rows))
            skip -= whole.num_rows - batch.num_rows
            if not batch.num_rows:
                continue
            if batch.num_rows == size and not rest:
                yield pa.Table.from_batches([batch])
                continue
            rest.append(batch)
            while sum(part.num_rows for part in rest) >= size:
                table = pa.Table.from_batches(rest)
                yield table.take(pa.array(range(size)))  # a copy: a slice pickles as its whole
                rest = table.slice(size).to_batches()
        if any(part.num_rows for part in rest):
            yield pa.Table.from_batches(rest)


def _groups_behind(metadata: pq.FileMetaData, skip: int) -> tuple[list[int], int]:
    """Return the row groups behind ``skip`` rows, and how many of those stand in the first."""
    for group in range(metadata.num_row_groups):
        n_rows = metadata.row_group(group).num_rows
        if n_rows > skip:
            return [*range(group, metadata.num_row_groups)], skip
        skip -= n_rows
    return [], 0


def _line_chunks(path: Path, size: int, limits: Limits, skip: int) -> Iterator[list[Line]]:
    part: list[Line] = []
    for line in islice(read_json_rows(path, limits), skip, None):
        part.append(line)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
