"""Counts of a part of a corpus, as data: a table of one row, which nothing that reads it can run.

A state is a flat mapping of names to values. What makes it gives names; a text from sessions never
becomes one, but stands among the values:

- an array of numbers, (n,), becomes a list of the same type
- a list of texts becomes a list of bytes, as texts may hold lone surrogates
- anything else is JSON: numbers, and lists of them

Parquet has a column for each name, so that a reader may ask for some of them alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from augesc_builder.errors import DamagedError, InputError
from augesc_builder.readers.parquet import open_table

State = Mapping[str, Any]
"""Names to arrays (n,), lists of texts and JSON values."""


def below(name: str, state: State) -> dict[str, Any]:
    """Return a state as a part of a larger one."""
    return {f"{name}/{inner}": value for inner, value in state.items()}


def part_of(state: State, name: str) -> dict[str, Any]:
    """Return what :func:`below` put below a name."""
    begin = f"{name}/"
    return {key.removeprefix(begin): v for key, v in state.items() if key.startswith(begin)}


def to_table(state: State) -> pa.Table:
    """Return a state as a table."""
    return pa.table({name: _column(value) for name, value in state.items()})


def _column(value: Any) -> pa.Array:
    if isinstance(value, np.ndarray):
        return _one(pa.array(value))
    if isinstance(value, list) and value and all(type(item) is str for item in value):
        texts = [text.encode("utf-8", "surrogatepass") for text in value]
        return _one(pa.array(texts, pa.large_binary()))
    return pa.array([json.dumps(value, allow_nan=False)], pa.string())


def _one(values: pa.Array) -> pa.Array:
    """Return a column whose one value is a list."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def from_table(table: pa.Table) -> dict[str, Any]:
    """Return the state that a table holds."""
    return {name: _value(table.column(name)) for name in table.column_names}


def _value(column: pa.ChunkedArray) -> Any:
    if pa.types.is_string(column.type):
        return json.loads(column[0].as_py())
    values = column.combine_chunks().flatten()
    if pa.types.is_large_binary(values.type):
        return [text.decode("utf-8", "surrogatepass") for text in values.to_pylist()]
    return values.to_numpy(zero_copy_only=False)


def read_state(path: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Read a state that was written as Parquet, or the values of some ``names``.

    Raises :class:`~augesc_builder.errors.DamagedError` where the file is not as it was written.
    """
    try:
        with open_table(path) as file:
            asked = None if names is None else list(names)
            return from_table(file.read(columns=asked, use_threads=False))
    except DamagedError:
        raise
    except InputError as error:
        raise DamagedError(f"{error.message}; run the same command again", path) from None
