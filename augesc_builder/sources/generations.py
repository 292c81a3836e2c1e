"""Anybody's generations: Parquet or JSON lines, as texts or as messages, ours or another's.

A row holds one of these:

- ``query`` and ``text``: a continuation of the prompt that ends with the query and ``AI:``
- ``text`` alone, where the reader is told that it includes the query: lines ``Human:``, ``AI:``
- ``messages``: utterances with ``role`` (``user``, ``assistant``) and ``content``; or a session as
  ESConv's lines or those of the published corpus have it

``query_id``, ``sample``, ``source``, the token counts and the rest of the generations table are
kept where they stand. Where they do not, the id is a hash of source and query (or text), the sample
is the number of the row, the source is the file's name, and counts are null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import Chunk, read_chunks
from augesc_builder.run import layout
from augesc_builder.run.marks import checked, named, parquet_files
from augesc_builder.sources.sessions import check_messages, messages_of
from augesc_builder.tables import GENERATIONS, SESSIONS, plain_schema, query_id
from augesc_builder.text.prompts import ROLE_WORD, collapse

_SCHEMA = plain_schema(GENERATIONS)
_WITH_MESSAGES = _SCHEMA.append(plain_schema(SESSIONS).field("messages")).append(
    plain_schema(SESSIONS).field("session_id")
)

CHUNK = 4000
"""Rows that a process is given at a time."""

_SHARD = 20_000

_OURS = ("query_id", "sample", "source", "query", "text")
"""What is filled in every row that augesc generated."""

_COUNTS = ("n_prompt_tokens", "n_tokens", "seed")


def generations_files(path: Path) -> list[Path]:
    """Find the files of a generations table: a file, or the shards in a folder.

    Raises :class:`~augesc_builder.errors.InputError` where there are none.
    """
    if not path.exists():
        raise InputError("no such file; check the path", path)
    if not path.is_dir():
        return [checked(path)]
    own, inside = parquet_files(path), path / layout.GENERATIONS
    for files in (
        named(own, layout.GENERATIONS),
        parquet_files(inside) if inside.is_dir() else [],
        own,
        sorted(path.glob("*.jsonl")),
    ):
        if files:
            return files
    raise InputError("no Parquet files there, nor JSON lines (*.jsonl)", path)


def read_generations(files: Sequence[Path]) -> Iterator[Chunk]:
    """Read files in chunks, one after the other."""
    first = 0
    for file in files:
        for chunk in read_chunks(file, first, CHUNK):
            yield chunk
            first = chunk.first + len(chunk.rows)


def shards_of(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Part files with so many ``rows`` into shards of some 20,000; give chunks and rows of each."""
    shards, chunks, n_rows = [], 0, 0
    for n in rows:
        for start in range(0, n, CHUNK):
            chunks, n_rows = chunks + 1, n_rows + min(CHUNK, n - start)
            if n_rows >= _SHARD:
                shards.append((chunks, n_rows))
                chunks = n_rows = 0
    return [*shards, (chunks, n_rows)] if chunks else shards


def parse_generations(chunk: Chunk, *, includes_query: bool) -> pa.Table:
    """Check the rows of a chunk; give a generations table, with ``messages`` where they are.

    Raises :class:`~augesc_builder.errors.InputError` with file, row and column.
    """
    if isinstance(chunk.rows, pa.Table) and not includes_query and _is_ours(chunk.rows):
        return chunk.rows.select(_SCHEMA.names).cast(_SCHEMA)
    rows = [
        _row(value, chunk, number, chunk.first + i, includes_query=includes_query)
        for i, (number, value) in enumerate(chunk.values())
    ]
    schema = _WITH_MESSAGES if rows and "messages" in rows[0] else _SCHEMA
    for row, number in zip(rows, chunk.numbers(), strict=True):
        if ("messages" in row) != (schema is _WITH_MESSAGES):
            raise InputError(
                "rows with messages and rows with text in one file; part them", chunk.path, number
            )
    return pa.Table.from_pylist(rows, schema=schema)


def _is_ours(table: pa.Table) -> bool:
    names = table.column_names
    return (
        "messages" not in names
        and all(
            name in names and table.field(name).type == _SCHEMA.field(name).type
            for name in _SCHEMA.names
        )
        and not any(table[name].null_count for name in _OURS)
    )


def _row(
    value: Any, chunk: Chunk, number: int, n_before: int, *, includes_query: bool
) -> dict[str, Any]:
    """Bring a row into the form of the generations table."""

    def fail(message: str) -> InputError:
        return InputError(message, chunk.path, number)

    if isinstance(value, list) or (isinstance(value, dict) and "dialog" in value):
        value = {"messages": messages_of(value, chunk.path, number)}
    if not isinstance(value, dict):
        raise fail(f"expected an object with text or messages, found {str(value)[:60]}")
    row: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    for name in _COUNTS:
        row[name] = _number(value, name, fail)
    row["finish_reason"] = _text(value, "finish_reason", fail)
    if "messages" in value:
        messages = check_messages(value["messages"], chunk.path, number)
        row["messages"], row["session_id"] = messages, _text(value, "session_id", fail)
        row["text"] = "\n".join(
            f"{ROLE_WORD[m['role']]}: {collapse(m['content'])}" for m in messages
        )
        if "n_prompt_tokens" not in value:  # a session counts its prompt too
            row["n_prompt_tokens"] = None if row["n_tokens"] is None else 0
    else:
        row["text"] = _text(value, "text", fail)
        if row["text"] is None:
            found = "null" if "text" in value else f"only {', '.join(map(str, value)) or 'nothing'}"
            raise fail(f"column text (or messages) must be filled, found {found}")
        if not includes_query:
            row["query"] = _text(value, "query", fail)
            if row["query"] is None or not row["query"].strip():
                raise fail(
                    "column query must be filled: a continuation is judged behind the query it "
                    "continues; where text holds whole conversations, give --includes-query"
                )
    row["source"] = _text(value, "source", fail) or _stem(chunk.path)
    row["query_id"] = _text(value, "query_id", fail) or query_id(
        row["source"], row["query"] or row["text"]
    )
    sample = _number(value, "sample", fail)
    row["sample"] = n_before if sample is None else sample
    return row


def _text(value: Mapping[str, Any], name: str, fail: Any) -> str | None:
    found = value.get(name)
    if name in {"query_id", "session_id"} and isinstance(found, int):
        return str(found)
    if found is not None and not isinstance(found, str):
        raise fail(f"column {name}: expected a text, found {str(found)[:60]}")
    return found


def _number(value: Mapping[str, Any], name: str, fail: Any) -> int | None:
    found = value.get(name)
    largest = 2**63 - 1 if name == "seed" else 2**31 - 1
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= largest:
        raise fail(f"column {name}: expected a whole number from 0 on, found {str(found)[:60]}")
    return found


def _stem(path: Path) -> str:
    """Name the file, without the number of its shard."""
    return re.sub(r"-\d{5}-of-\d{5}$", "", path.stem)
