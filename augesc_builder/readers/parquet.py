"""Parquet files of the user's: opened, read, and refused in words that say what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import InputError
from augesc_builder.readers.records import BROKEN, USUAL, Limits, broken, too_long

Row: TypeAlias = tuple[int, "dict[str, Any] | InputError"]
"""A row and its number, from 1; or what is wrong with it."""

_BATCH = 4096


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[Any]:
    """Open a Parquet file.

    Raises :class:`~augesc_builder.errors.InputError` where it is missing or broken, now
    or as it is read.
    """
    try:
        with _opened(path) as file:
            yield file
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"not a readable Parquet file ({reason})", path) from None


def _opened(path: Path) -> Any:
    try:
        # What is buffered ahead is kept until the file is closed, all of it.
        file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        names = list(file.schema_arrow.names)
    except UnicodeDecodeError:
        raise InputError("names of columns that are not UTF-8; name them anew", path) from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"several columns called {', '.join(twice)}; name them anew", path)
    return file


def read_table(path: Path, columns: list[str], optional: Iterable[str] = ()) -> pa.Table:
    """Read columns of a Parquet file, and those of ``optional`` that it has.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read, lacks a column, or
    holds text that is not UTF-8.
    """
    with open_table(path) as file:
        _check(file, columns, path)
        there = set(file.schema_arrow.names) - set(columns)
        table = file.read(columns=[*columns, *(name for name in optional if name in there)])
        table.validate(full=True)
        return table


def read_group(
    file: Any, number: int, columns: Sequence[str], path: Path, optional: Iterable[str] = ()
) -> pa.Table:
    """Read columns of a row group of a table that :func:`open_table` has opened.

    Those of ``optional`` that it has are read, too.

    Raises :class:`~augesc_builder.errors.InputError` as :func:`read_table` does.
    """
    _check(file, columns, path)
    there = set(file.schema_arrow.names) - set(columns)
    wanted = [*columns, *(name for name in optional if name in there)]
    table = file.read_row_group(number, columns=wanted)
    table.validate(full=True)
    return table


def _check(file: Any, needed: Sequence[str], path: Path) -> None:
    found = file.schema_arrow.names
    if missing := [column for column in needed if column not in found]:
        raise InputError(
            f"no column {', '.join(missing)}; found {', '.join(found) or 'none'}", path
        )


def read_rows(
    path: Path, columns: Sequence[str], limits: Limits = USUAL, *, needed: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield the rows of a Parquet file, with those of ``columns`` that it has.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read or lacks one that is
    ``needed``.
    """
    with open_table(path) as file:
        _check(file, needed, path)
        found = file.schema_arrow.names
        first = 1
        for batch in file.iter_batches(_BATCH, columns=[c for c in columns if c in found]):
            yield from rows_of(batch, path, first, limits)
            first += batch.num_rows


def rows_of(
    table: pa.Table | pa.RecordBatch, path: Path, first: int, limits: Limits = USUAL
) -> list[Row]:
    """Return the rows of a table, the first of them number ``first``; a bad one spoils no other."""
    if not table.num_rows:
        return []
    try:
        fits = table.nbytes <= limits.max_line_bytes
        if not fits and table.num_rows == 1:
            table = _decoded(table)
            if table.nbytes > limits.max_line_bytes:
                return [(first, too_long(path, first, limits))]
            fits = True
        if fits:
            return list(enumerate(table.to_pylist(), first))
    except (*BROKEN, pa.ArrowException) as error:
        if table.num_rows == 1:
            return [(first, broken(error, path, first))]
    half = table.num_rows // 2
    before, behind = table.slice(0, half), table.slice(half)
    return [*rows_of(before, path, first, limits), *rows_of(behind, path, first + half, limits)]


def _decoded(table: pa.Table | pa.RecordBatch) -> pa.Table | pa.RecordBatch:
    """Return a table without dictionaries, which hold the values of all rows."""
    schema = pa.schema(
        (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    )
    return table.cast(schema)
