"""What is to be generated: samples of queries, each with its place in a shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError
from augesc_builder.readers.parquet import read_table
from augesc_builder.text.prompts import collapse

Row = dict[str, Any]
"""A row of the generations table, or of the queries table."""


FILLED, LABELS = ("query_id", "source", "text"), ("emotion", "subreddit")
"""What each query has, and what its source may say of it."""


@dataclass(frozen=True)
class Task:
    """One conversation to be generated: sample ``sample`` (from 0) of a row of the queries table.

    Its row is number ``row`` of shard ``shard``, both from 0. Its background, where it has one,
    begins with the ``persona``.
    """

    query: Row
    sample: int
    shard: int
    row: int
    persona: str | None = None


def read_queries(paths: Iterable[Path]) -> list[Row]:
    """Return the rows of queries tables.

    Raises :class:`~augesc_builder.errors.InputError` for an empty table and an empty value.
    """
    rows: list[Row] = []
    for path in paths:
        table = read_table(path, [*FILLED], optional=LABELS)
        for number, row in enumerate(table.to_pylist(), 1):
            if not all(isinstance(row[name], str) and row[name].strip() for name in FILLED):
                raise InputError(f"query_id, source and text must be filled: {row}", path, number)
            for name in LABELS:
                if not isinstance(row.get(name), str | None):
                    found = f"{row[name]!r:.60}"
                    raise InputError(f"column {name}: expected a text, found {found}", path, number)
            rows.append({**row, "text": collapse(row["text"])})
        if not table.num_rows:
            raise InputError("empty; expected a query a row", path)
    return rows


def with_personas(some: Iterable[Task], bank: Sequence[str], seed: int) -> list[Task]:
    """Return tasks with a persona of the bank each, drawn from the random stream of its row."""
    from augesc_builder.engine.sampling import stream_key

    return [
        replace(
            task,
            persona=bank[
                stream_key(seed, task.query["query_id"], task.sample, "persona") % len(bank)
            ],
        )
        for task in some
    ]


def batches(some: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Yield the tasks of each query together, which share its prompt, at most ``size`` at a time.

    Samples that an earlier run made are missing among them.
    """
    together = groupby(some, key=lambda task: (task.query["query_id"], task.sample // size))
    return (list(batch) for _, batch in together)


def generation_row(
    task: Task,
    text: str,
    seed: int,
    *,
    finish_reason: str = "eos",
    n_prompt_tokens: int | None = None,
    n_tokens: int | None = None,
    **grounds: Any,
) -> Row:
    """Return the row of a task: ``text`` is what follows the prompt, nothing stripped.

    Token counts are null where nothing counted them. ``grounds`` are columns of the table that
    only some recipes fill.
    """
    return {
        "query_id": task.query["query_id"],
        "sample": task.sample,
        "source": task.query["source"],
        "query": task.query["text"],
        "text": text,
        "n_prompt_tokens": n_prompt_tokens,
        "n_tokens": n_tokens,
        "finish_reason": finish_reason,
        "seed": seed,
        **{name: task.query.get(name) for name in LABELS},
        **grounds,
    }
