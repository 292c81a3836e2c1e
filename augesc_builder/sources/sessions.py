"""Sessions from wherever they are: a table, a folder, a file of lines, the sample.

A line holds a session of ESConv's format, of the published corpus (a list of ``["usr", "..."]``
and ``["sys", "..."]``), or an object with ``messages``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import Chunk, read_chunks
from augesc_builder.readers.records import USUAL, BadLines, Limits, parse_each
from augesc_builder.run import layout
from augesc_builder.run.marks import checked, parquet_files
from augesc_builder.sources import esconv
from augesc_builder.sources.base import Session, SourceInfo
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.registry import find_source
from augesc_builder.text.prompts import PLAIN, ROLE_WORD, Message, whole_text

_CHUNK = 2000
"""Sessions that are read at a time."""


def find_sessions(name: str) -> SourceInfo | None:
    """Return the source of fine-tuning sessions of that name; ``None`` where it names a file."""
    info = find_source(name)
    return info if info is not None and info.read_sessions is not None else None


def read_training_sessions(name: str, revision: str | None) -> tuple[list[Session], str | None]:
    """Return the sessions of a source or a file, with the Hub commit they are of, if of any.

    Raises :class:`~augesc_builder.errors.InputError` for a file that is not of ESConv's form.
    """
    info = find_sessions(name)
    if info is None or info.read_sessions is None:
        return read_esconv(name), None
    return info.read_sessions(revision)


def sessions_files(path: Path) -> list[Path]:
    """Find the Parquet files of the sessions in a folder, or the one file given.

    Raises :class:`~augesc_builder.errors.InputError` where there are none.
    """
    if not path.exists():
        raise InputError("no such file; check the path", path)
    if not path.is_dir():
        return [checked(path)]
    for folder in (path / layout.CORPUS / layout.DATA, path / layout.DATA, path):
        if files := parquet_files(folder):
            return files
    raise InputError(
        "no Parquet files; expected a corpus folder (with data/*.parquet) or a run's folder", path
    )


def session_chunks(
    files: list[Path], size: int = _CHUNK, limits: Limits = USUAL
) -> Iterator[Chunk]:
    """Read files of sessions in chunks of ``size``."""
    first = 0
    for file in files:
        for chunk in read_chunks(file, first, size, limits):
            yield chunk
            first = chunk.first + len(chunk.rows)


def parse_sessions(
    chunk: Chunk,
    bad: BadLines | None = None,
    *,
    keep_greetings: bool = False,
    generations: bool = False,
    own_ids: bool = False,
) -> Iterator[Session]:
    """Yield the sessions of a chunk; rows that hold none go to ``bad``, or are fatal without it.

    ``keep_greetings`` keeps what a supporter of ESConv says before the seeker's first words.
    ``generations`` takes rows of a ``query`` and the ``text`` that continues it too, as a model
    left them: kept or rejected. A text that is no conversation is left out. With ``own_ids`` a
    session has the ``session_id`` of its row, where there is one, and not the number.

    Raises :class:`~augesc_builder.errors.InputError` with file and row.
    """
    columns = ["messages", "source", "problem_type", "session_id"]
    if isinstance(chunk.rows, pa.Table) and "messages" not in chunk.rows.column_names:
        found = chunk.rows.column_names
        if not generations or not {"query", "text"} <= set(found):
            expected = "messages" + ", nor query and text" * generations
            raise InputError(
                f"no column {expected}; found {', '.join(found) or 'none'}", chunk.path
            )
        columns = ["query", "text", "source"]
    stem = chunk.path.stem

    def parse(value: Any, number: int) -> Session | None:
        messages: list[Message] | None
        if generations and _is_generation(value):
            messages = _continued(value, chunk.path, number)
            if not messages:
                return None
        else:
            messages = messages_of(value, chunk.path, number, keep_greetings=keep_greetings)
        if not messages:
            raise InputError("a session without messages; remove the row", chunk.path, number)
        about = value if isinstance(value, dict) else {}
        kind, source = about.get("problem_type"), about.get("source") or stem
        if not isinstance(source, str):
            raise InputError(
                f"column source: expected a text, found {_brief(source)}", chunk.path, number
            )
        known = kind if isinstance(kind, str) else None
        given = about.get("session_id") if own_ids else None
        name = given if isinstance(given, str) and given else f"{stem}-{number}"
        return Session(name, tuple(messages), known, source)

    parsed = parse_each(chunk.values(columns), parse, chunk.path)
    good = (bad or BadLines(strict=True)).good(parsed)
    yield from (session for session in good if session is not None)


def _is_generation(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"query", "text"} <= value.keys()
        and not {"messages", "dialog"} & value.keys()
    )


def _continued(row: Mapping[str, Any], path: Path, number: int) -> list[Message] | None:
    """Return a query and what continues it; ``None`` where that is no conversation."""
    for name in ("query", "text"):
        text = row[name]
        if not isinstance(text, str) or (name == "query" and not text.strip()):
            raise InputError(f"column {name}: expected a text, found {_brief(text)}", path, number)
    return PLAIN.parse(whole_text(row["query"], row["text"]))


def messages_of(
    value: Any, path: Path, number: int, *, keep_greetings: bool = False
) -> list[Message]:
    """Read a session in any of the forms that lines and rows have."""
    if isinstance(value, list):
        return _pairs(value, path, number)
    if isinstance(value, dict) and "messages" in value:
        return check_messages(value["messages"], path, number)
    session = esconv.parse_session(
        value, f"{path.stem}-{number}", path, number, keep_greetings=keep_greetings
    )
    return list(session.messages)


def iterate_sessions(
    path: str | Path, *, generations: bool = False
) -> Iterator[tuple[str, list[Message]]]:
    """Yield source and utterances of each session of a file or below a folder.

    ``generations`` takes generated texts too, as :func:`parse_sessions` does.
    """
    for chunk in session_chunks(sessions_files(Path(path))):
        for session in parse_sessions(chunk, generations=generations):
            yield session.source, list(session.messages)


def check_messages(messages: Any, path: Path, number: int) -> list[Message]:
    """Check a ``messages`` value: utterances with a known role and a text.

    Raises :class:`~augesc_builder.errors.InputError` with file and row.
    """
    if not isinstance(messages, list):
        raise InputError(
            f"column messages: expected a list of utterances, found {_brief(messages)}; fill it or "
            f"remove the row",
            path,
            number,
        )
    if _plainly_fine(messages):
        return messages
    for message in messages:
        if (
            not isinstance(message, dict)
            or not isinstance(message.get("role"), str)
            or message["role"] not in ROLE_WORD
            or not isinstance(message.get("content"), str)
        ):
            raise InputError(
                f"expected messages with role user or assistant and content, found "
                f"{_brief(message)}",
                path,
                number,
            )
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _plainly_fine(messages: list[Any]) -> bool:
    """Whether messages are as they should be, with nothing more in them."""
    try:
        return all(
            message["role"] in ROLE_WORD and type(message["content"]) is str and len(message) == 2  # noqa: PLR2004
            for message in messages
        )
    except (TypeError, KeyError, IndexError):
        return False


def _pairs(pairs: list[Any], path: Path, number: int) -> list[Message]:
    """Read a session of the published corpus."""
    messages: list[Message] = []
    for pair in pairs:
        match pair:
            case ["usr" | "sys" as speaker, str(text)]:
                role = "user" if speaker == "usr" else "assistant"
                messages.append({"role": role, "content": text})
            case _:
                raise InputError(
                    f'expected pairs ["usr" or "sys", text], found {_brief(pair)}', path, number
                )
    return messages


def _brief(value: Any) -> str:
    return str(value)[:80]
