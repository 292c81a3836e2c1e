"""Parquet files of the user's: opened, read, and refused in words that say what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import InputError


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[Any]:
    """Open a Parquet file.

    Raises :class:`~augesc_builder.errors.InputError` where it is missing or broken, now
    or as it is read.
    """
    try:
        # What is buffered ahead is kept until the file is closed, all of it.
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"not a readable Parquet file ({reason})", path) from None


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a Parquet file.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read or lacks a column.
    """
    with open_table(path) as file:
        found = file.schema_arrow.names
        if missing := [column for column in columns if column not in found]:
            raise InputError(
                f"no column {', '.join(missing)}; found {', '.join(found) or 'none'}", path
            )
        return file.read(columns=columns)
