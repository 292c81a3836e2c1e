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
import pyarrow.compute as pc

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import Chunk, read_chunks
from augesc_builder.readers.records import USUAL, BadLines, Limits, parse_each
from augesc_builder.run import layout
from augesc_builder.run.marks import checked, named, parquet_files
from augesc_builder.sources.esconv import parse_session
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

_LABELS = ("emotion", "subreddit")
_NAMES = ("background_faults", "strategies", "resampled")
_BESIDE = ("n_background_tokens", "n_resampled_tokens")
_GROUNDS = ("background", "persona", *_NAMES, *_BESIDE, *_LABELS)
"""What only some recipes and sources fill; tables of earlier versions have none of it."""

_TOKENS = ("n_prompt_tokens", "n_tokens")
_COUNTS = (*_TOKENS, *_BESIDE, "seed")
_INT32, _INT64 = 2**31 - 1, 2**63 - 1


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


def read_generations(files: Sequence[Path], limits: Limits = USUAL) -> Iterator[Chunk]:
    """Read files in chunks, one after the other."""
    first = 0
    for file in files:
        for chunk in read_chunks(file, first, CHUNK, limits):
            yield chunk
            first = chunk.first + len(chunk.rows)


def shards_of(
    rows: Sequence[int], chunk: int | None = None, shard: int | None = None
) -> list[tuple[int, int]]:
    """Part files with so many ``rows`` into shards; give the chunks and rows of each.

    A chunk has at most ``chunk`` rows, of one file, and a shard at least ``shard``, the last one
    excepted: some 20,000 of generations.
    """
    chunk, shard = chunk or CHUNK, shard or _SHARD
    shards, chunks, n_rows = [], 0, 0
    for n in rows:
        for start in range(0, n, chunk):
            chunks, n_rows = chunks + 1, n_rows + min(chunk, n - start)
            if n_rows >= shard:
                shards.append((chunks, n_rows))
                chunks = n_rows = 0
    return [*shards, (chunks, n_rows)] if chunks else shards


def parse_generations(
    chunk: Chunk, bad: BadLines | None = None, *, includes_query: bool
) -> pa.Table:
    """Return the rows of a chunk as a generations table, with ``messages`` where they are.

    Rows that are none go to ``bad``, or are fatal without it: raises
    :class:`~augesc_builder.errors.InputError` with file, row and column.
    """
    rows = chunk.rows
    if isinstance(rows, pa.Table):
        rows = _with_grounds(rows)
        if not includes_query and _is_ours(rows, chunk.limits):
            return rows.select(_SCHEMA.names).cast(_SCHEMA)
    places = {number: i for i, number in enumerate(chunk.numbers(), chunk.first)}
    kinds: set[bool] = set()  # whether rows have messages: all or none

    def parse(value: Any, number: int) -> dict[str, Any]:
        row = _row(value, chunk, number, places[number], includes_query=includes_query)
        with_messages = "messages" in row
        if kinds and with_messages not in kinds:
            raise InputError(
                "rows with messages and rows with text in one file; part them", chunk.path, number
            )
        kinds.add(with_messages)
        return row

    found = parse_each(chunk.values(), parse, chunk.path)
    good = list((bad or BadLines(strict=True)).good(found))
    return pa.Table.from_pylist(good, schema=_WITH_MESSAGES if True in kinds else _SCHEMA)


def _with_grounds(table: pa.Table) -> pa.Table:
    """Add the columns that tables of before lack: nothing of the kind was generated then."""
    for name in _GROUNDS:
        if name not in table.column_names:
            field = _SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _is_ours(table: pa.Table, limits: Limits) -> bool:
    """Whether a table has all columns as we write them, and no row needs a look of its own."""
    names = table.column_names
    if "messages" in names or not all(
        name in names and table.field(name).type == _SCHEMA.field(name).type
        for name in _SCHEMA.names
    ):
        return False
    ours = table.select(_SCHEMA.names)
    try:
        ours.validate(full=True)  # text that is not UTF-8
    except pa.ArrowInvalid:
        return False
    longest = sum(
        pc.max(pc.binary_length(column)).as_py() or 0
        for column in ours.itercolumns()
        if pa.types.is_string(column.type)
    )
    numbers = [pc.min_max(ours[name]).as_py() for name in (*_COUNTS, "sample")]
    tokens = pc.max(pc.add(*(ours[name].cast(pa.int64()) for name in _TOKENS))).as_py()
    return (
        longest <= limits.max_line_bytes
        and (tokens or 0) <= _INT32
        and not any((found["min"] or 0) < 0 for found in numbers)
        and not any(ours[name].null_count for name in _OURS)
    )


def _row(
    value: Any, chunk: Chunk, number: int, n_before: int, *, includes_query: bool
) -> dict[str, Any]:
    """Bring a row into the form of the generations table."""

    def fail(message: str) -> InputError:
        return InputError(message, chunk.path, number)

    if isinstance(value, list) or (isinstance(value, dict) and "dialog" in value):
        value = _of_people(value, chunk.path, number)
    if not isinstance(value, dict):
        raise fail(f"expected an object with text or messages, found {str(value)[:60]}")
    row: dict[str, Any] = dict.fromkeys(_SCHEMA.names)
    for name in _COUNTS:
        row[name] = _number(value, name, fail)
    if sum(row[name] or 0 for name in _TOKENS) > _INT32:
        raise fail(f"columns {' and '.join(_TOKENS)}: more than {_INT32:,} tokens in all")
    row["finish_reason"] = _text(value, "finish_reason", fail)
    for name in ("background", "persona", *_LABELS):
        row[name] = _text(value, name, fail)
    for name in _NAMES:
        row[name] = _names(value, name, fail)
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


def _of_people(value: Any, path: Path, number: int) -> dict[str, Any]:
    """Return a session of ESConv or of the published corpus as a row with messages and labels."""
    if isinstance(value, list):
        return {"messages": messages_of(value, path, number)}
    session = parse_session(value, f"{path.stem}-{number}", path, number)
    return {
        "messages": list(session.messages),
        "strategies": session.strategies and list(session.strategies),
        "emotion": session.emotion,
    }


def _text(value: Mapping[str, Any], name: str, fail: Any) -> str | None:
    found = value.get(name)
    if name in {"query_id", "session_id"} and isinstance(found, int):
        return str(found)
    if found is not None and not isinstance(found, str):
        raise fail(f"column {name}: expected a text, found {str(found)[:60]}")
    return found


def _names(value: Mapping[str, Any], name: str, fail: Any) -> list[str | None] | None:
    found = value.get(name)
    if found is not None and not (
        isinstance(found, list) and all(isinstance(each, str | None) for each in found)
    ):
        raise fail(f"column {name}: expected a list of texts, found {str(found)[:60]}")
    return found


def _number(value: Mapping[str, Any], name: str, fail: Any) -> int | None:
    found = value.get(name)
    largest = _INT64 if name == "seed" else _INT32
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= largest:
        raise fail(f"column {name}: expected a whole number from 0 on, found {str(found)[:60]}")
    return found


def _stem(path: Path) -> str:
    """Name the file, without the number of its shard."""
    return _SHARD_NUMBER.sub("", path.stem)


_SHARD_NUMBER = re.compile(r"-\d{5,}-of-\d{5,}$")
