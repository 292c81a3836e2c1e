"""The corpus as its authors published it: ``augesc.txt`` of the Hub dataset ``thu-coai/augesc``.

A line is a session: a JSON list of pairs ``["usr", text]`` (the seeker) and ``["sys", text]`` (the
supporter). Texts are handed on as they stand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.errors import InputError
from augesc_builder.readers.hub import download_dataset
from augesc_builder.readers.records import BROKEN, USUAL, too_long
from augesc_builder.sources.base import NON_COMMERCIAL, SourceInfo
from augesc_builder.tables import SESSIONS, plain_schema

REPO = "thu-coai/augesc"
REVISION = "aa7372a2cce96a67b7cb077af4edc27865a2ce85"
FILE = "augesc.txt"
SOURCE = "augesc"

_ROLES = {"usr": "user", "sys": "assistant"}
_PIECE_BYTES = 4 << 20
"""About 1,600 sessions; a part is read by one process and becomes one table."""

_SHA256, _SHA1 = 64, 40
"""Hex digits of what the Hub names its files by: large ones, and small ones as git does."""


@dataclass(frozen=True)
class ByteRange:
    """Whole lines of a file: ``n_bytes`` from ``start``, the first of them ``line`` (1-based)."""

    path: str
    start: int
    n_bytes: int
    line: int


def download_published(revision: str = REVISION) -> Path:
    """Download the published file at the pinned revision, and check that it came whole.

    Raises :class:`~augesc_builder.errors.DownloadError`, and
    :class:`~augesc_builder.errors.InputError` for a copy that is not what the Hub has.
    """
    hint = "give a local copy with data_dir=FOLDER or data_files=FILE"
    folder, _ = download_dataset(REPO, revision, [FILE], hint)
    path = folder / FILE
    if not path.exists():
        raise InputError(f"{REPO} holds no {FILE} at revision {revision}; {hint}", path)
    check_download(path)
    return path


def check_download(path: Path) -> None:
    """Compare a file in the Hub's cache with the digest that the cache names it by.

    Raises :class:`~augesc_builder.errors.InputError` for a damaged file.
    """
    blob = path.resolve()
    size = blob.stat().st_size
    if len(blob.name) == _SHA256:
        digest = hashlib.sha256()
    elif len(blob.name) == _SHA1:
        digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    else:  # a file system without links: the cache holds a plain copy
        return
    with blob.open("rb") as file:
        while block := file.read(_PIECE_BYTES):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        raise InputError(
            f"damaged: its {size:,} bytes have the digest {digest.hexdigest()}, and the Hub's have "
            f"{blob.name}; delete it and load again",
            blob,
        )


def byte_ranges(path: str | Path, n_bytes: int = _PIECE_BYTES) -> list[ByteRange]:
    """Cut a file at line ends into ranges of about ``n_bytes``, to be read side by side.

    Raises :class:`~augesc_builder.errors.InputError` for a missing, unreadable or empty file.
    """
    path, ranges = Path(path), []
    try:
        with path.open("rb") as file:
            start, line = 0, 1
            while block := file.read(n_bytes):
                block += file.readline(USUAL.max_line_bytes)
                ranges.append(ByteRange(str(path), start, len(block), line))
                start, line = start + len(block), line + block.count(b"\n")
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    if not ranges:
        raise InputError("empty; expected a session a line", path)
    return ranges


def read_byte_range(part: ByteRange) -> Iterator[pa.Table]:
    """Read a part into one table of sessions.

    Raises :class:`~augesc_builder.errors.InputError` with file and line.
    """
    with Path(part.path).open("rb") as file:
        file.seek(part.start)
        lines = file.read(part.n_bytes).split(b"\n")
    ids: list[str] = []
    roles: list[str] = []
    texts: list[str] = []
    ends = [0]
    for number, line in enumerate(lines, part.line):
        if not line.strip():
            continue
        if len(line) > USUAL.max_line_bytes:
            raise too_long(part.path, number, USUAL)
        try:
            pairs = json.loads(line)
            whose = [_ROLES[who] for who, _ in pairs]
            said = [text for _, text in pairs]
            # Sets of types are the fast way to look at all of them.
            fits = set(map(type, pairs)) == {list} and set(map(type, said)) == {str}
            "".join(said).encode()  # half a surrogate pair is no text
        except BROKEN:
            fits = False
        if not fits:
            raise InputError(_explain(line), part.path, number)
        roles += whose
        texts += said
        ends.append(len(texts))
        ids.append(f"{SOURCE}-{number}")
    if ids:
        yield _table(ids, roles, texts, ends)


def _table(ids: list[str], roles: list[str], texts: list[str], ends: list[int]) -> pa.Table:
    """Make the sessions table of columns: many times as fast as from rows."""
    schema = plain_schema(SESSIONS)
    utterances = pa.StructArray.from_arrays(
        [pa.array(roles, pa.string()), pa.array(texts, pa.string())], ["role", "content"]
    )
    n = len(ids)
    columns = {
        "session_id": pa.array(ids),
        "source": pa.array([SOURCE] * n),
        "messages": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), utterances),
    }
    return pa.table(
        [columns.get(field.name, pa.nulls(n, field.type)) for field in schema], names=schema.names
    ).cast(schema)


def _explain(line: bytes) -> str:
    """Return what is wrong with a line."""
    expected = 'expected a list of pairs such as ["usr", "..."] and ["sys", "..."]'
    try:
        value: Any = json.loads(line)
        json.dumps(value)  # nested no deeper than can be shown
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}), found {line[:60]!r}; mend or remove the line"
    if not isinstance(value, list) or not value:
        return f"{expected}, found {_brief(value)}"
    for i, pair in enumerate(value, 1):
        if not (isinstance(pair, list) and len(pair) == 2):  # noqa: PLR2004
            return f"utterance {i}: {expected}, found {_brief(pair)}"
        who, text = pair
        if not isinstance(who, str) or who not in _ROLES:
            return f"utterance {i}: expected the speaker usr or sys, found {_brief(who)}"
        if not isinstance(text, str):
            return f"utterance {i}: expected a text, found {_brief(text)}"
    return "holds half a surrogate pair, which is no text; mend or remove the line"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004


INFO = SourceInfo(
    name=SOURCE,
    label="AugESC",
    about="on the Hub, or a local copy of augesc.txt",
    licence=NON_COMMERCIAL,
    producers="A language model wrote the sessions of AugESC.",
    citation="zheng2022augesc",
    dataset=f"extended|{REPO}",
    repo=REPO,
    revision=REVISION,
)
