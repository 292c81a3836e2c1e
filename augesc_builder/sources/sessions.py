"""Sessions from wherever they are: a table, a folder, a file in ESConv's format, the sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import InputError
from augesc_builder.prompts import ROLE_WORD, Message
from augesc_builder.sources.esconv import Session, download_esconv, read_esconv
from augesc_builder.sources.sample import read_sample_sessions

BUNDLED, ON_THE_HUB = "sample", "esconv"
"""Names that stand for sessions which are no local file."""


def read_training_sessions(name: str, revision: str | None) -> tuple[list[Session], str | None]:
    """Read ``sample``, ``esconv`` or a file; give the Hub commit too, where one was loaded."""
    if name == BUNDLED:
        return read_sample_sessions(), None
    if name == ON_THE_HUB:
        path, commit = download_esconv(revision or "main")
        return read_esconv(path), commit
    return read_esconv(name), None


def iterate_sessions(path: str | Path) -> Iterator[tuple[str, list[Message]]]:
    """Give source and utterances of each session below ``path``.

    ``path`` is a Parquet file with a ``messages`` column, a corpus or run folder, or a file in
    ESConv's format.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".parquet":
        for file in sessions_files(path):
            yield from _table_sessions(file)
    else:
        for session in read_esconv(path):
            yield path.stem, list(session.messages)


def sessions_files(path: Path) -> list[Path]:
    """Find the Parquet files of the sessions in a folder, or the one file given."""
    if path.is_file():
        return [path]
    for pattern in ("corpus/data/*.parquet", "data/*.parquet", "*.parquet"):
        if files := sorted(path.glob(pattern)):
            return files
    raise InputError(
        "no Parquet files; expected a corpus folder (with data/*.parquet) or a run's folder", path
    )


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read columns of a Parquet file; a missing one, or a broken file, is an error."""
    try:
        found = pq.read_schema(path).names
        missing = [column for column in columns if column not in found]
        if missing:
            raise InputError(
                f"no column {', '.join(missing)}; found {', '.join(found) or 'none'}", path
            )
        return pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"not a readable Parquet file ({reason})", path) from None


def _table_sessions(path: Path) -> Iterator[tuple[str, list[Message]]]:
    has_source = "source" in pq.read_schema(path).names if path.exists() else False
    table = read_table(path, ["messages", *(["source"] if has_source else [])])
    for number, row in enumerate(_rows(table), 1):
        messages = row["messages"]
        if not messages:
            raise InputError("a session without messages; remove the row", path, number)
        for message in messages:
            if message.get("role") not in ROLE_WORD or not isinstance(message.get("content"), str):
                raise InputError(
                    f"expected messages with role user or assistant and content, found "
                    f"{str(message)[:80]}",
                    path,
                    number,
                )
        yield row.get("source") or path.stem, messages


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()
