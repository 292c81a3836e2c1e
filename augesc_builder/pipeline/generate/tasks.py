"""TODO."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Generate
from augesc_builder.errors import InputError
from augesc_builder.readers.parquet import read_table
from augesc_builder.text.prompts import collapse


def read_queries(paths: Iterable[Path]) -> list[Row]:
    """Read queries tables; an empty one is an error."""
    rows: list[Row] = []
    for path in paths:
        table = read_table(path, ["query_id", "source", "text"])
        for number, row in enumerate(table.to_pylist(), 1):
            if not all(isinstance(value, str) and value.strip() for value in row.values()):
                raise InputError(f"query_id, source and text must be filled: {row}", path, number)
            rows.append({**row, "text": collapse(row["text"])})
        if not table.num_rows:
            raise InputError("empty; expected a query a row", path)
    return rows


Row = dict[str, Any]
"""A row of the generations table."""


@dataclass(frozen=True)
class Task:
    """One conversation to be generated."""

    query: dict[str, Any]
    sample: int


@dataclass(frozen=True)
class Place:
    """Where a conversation belongs: the number of its shard, and its row there."""

    shard: int
    row: int


def tasks(queries: Sequence[dict[str, Any]], settings: Generate) -> list[Task]:
    """List the conversations to generate: every sample of every query, in the queries' order."""
    return [
        Task(query, sample)
        for query in queries
        for sample in range(settings.samples_for(query["source"]))
    ]


def shard_of(all_tasks: Sequence[Task], number: int, size: int) -> Sequence[Task]:
    """Give the tasks of a shard."""
    return all_tasks[number * size : (number + 1) * size]


def n_shards(all_tasks: Sequence[Task], size: int) -> int:
    """Say how many shards of ``size`` the tasks fill."""
    return math.ceil(len(all_tasks) / size)
