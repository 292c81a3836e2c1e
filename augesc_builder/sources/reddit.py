"""Reddit submissions: dumps as the public archives write them, or any table with a text column.

A dump holds a JSON object a line (``title``, ``selftext``, ``subreddit``, ``is_self``,
``over_18``), plain, gzipped, or compressed by zstd with a window of up to 2 GB. Lines are streamed;
beside them memory holds the window that the archive dictates. Authors are never read.
"""

from __future__ import annotations

import csv
import gzip
import html
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from augesc_builder import paper
from augesc_builder.errors import InputError, MissingExtraError, RecipeError
from augesc_builder.readers.hub import ON_THE_HUB, download_dataset, is_on_the_hub
from augesc_builder.sources.base import OTHER, BadLines, Post, RawPosts, SourceInfo
from augesc_builder.text.prompts import collapse

SUFFIXES = (".zst", ".gz", ".jsonl", ".ndjson", ".json", ".parquet", ".csv")

_ROWS = 512
"""Posts that a worker process is given at a time."""

_GONE = {"[removed]", "[deleted]", "[removed by reddit]"}
_TEXT_COLUMNS = ("text", "selftext", "body", "post")
_LONGEST_WINDOW = 1 << 31
_BLOCK = 1 << 20


def dump_files(path: str | Path) -> list[Path]:
    """Find the dumps and tables below a path: one file, or all of a folder by name.

    Raises :class:`~augesc_builder.errors.InputError` where there are none.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder; check the path", path)
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))
    if not files:
        raise InputError(f"no dumps there; expected files that end in {', '.join(SUFFIXES)}", path)
    return files


def download(address: str) -> tuple[Path, str]:
    """Download the tables of ``hf://datasets/USER/NAME[@REVISION]``; give folder and commit."""
    repo, _, revision = address.removeprefix(ON_THE_HUB).partition("@")
    hint = "check the address, or give a local copy: --source reddit=PATH"
    return download_dataset(repo, revision or "main", ["*.parquet", "*.csv"], hint)


def is_table(path: Path) -> bool:
    """Whether a file is a table with columns rather than a dump of lines."""
    return path.suffix in {".parquet", ".csv"}


def read_posts(path: str | Path, bad: BadLines) -> Iterator[RawPosts]:
    """Yield the posts of a dump, a table, or a folder of those, not parsed yet.

    Raises :class:`~augesc_builder.errors.InputError` for a file that is no dump and no table.
    """
    for file in dump_files(path):
        rows: Iterator[tuple[int, Any]] = (
            read_table(file) if is_table(file) else read_lines(file, bad)
        )
        yield RawPosts(str(file), [])  # so that a file without any row is known too
        while some := list(islice(rows, _ROWS)):
            yield RawPosts(str(file), some)


def parse_posts(raw: RawPosts) -> list[Post | InputError]:
    """Return a post for each row, or what is wrong with it."""
    return [
        parse_line(raw.path, number, row)
        if isinstance(row, bytes)
        else post_of(row, raw.path, number)
        for number, row in raw.rows
    ]


def read_lines(path: Path, bad: BadLines) -> Iterator[tuple[int, bytes]]:
    """Yield the non-blank lines of a dump, decompressed; a broken end is counted in ``bad``."""
    number = 0
    rest = b""
    try:
        for block in _blocks(path):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        bad.add(
            InputError(
                f"cannot be read further ({reason}): truncated, or not compressed as its name "
                f"says; get the file again",
                path,
                number + 1,
            )
        )
        return
    if rest.strip():
        yield number + 1, rest


def parse_line(path: str, number: int, raw: bytes) -> Post | InputError:
    """Return the post of a dump's line, or what is wrong with it."""
    try:
        value = json.loads(raw)
    except ValueError as error:  # the line itself is not shown: an author's name may stand in it
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        return InputError(f"not JSON ({reason}); mend or remove the line", path, number)
    if not isinstance(value, dict):
        return InputError("expected an object with title and selftext", path, number)
    return post_of(value, path, number)


def post_of(value: dict[str, Any], path: str, number: int) -> Post | InputError:
    """Return the post of a submission's fields; title and body are joined where both are there."""
    parts = [value.get("title"), *(value[k] for k in _TEXT_COLUMNS if k in value)]
    texts = [part for part in parts if isinstance(part, str)]
    if not texts:
        return InputError(
            f"no text: expected title, selftext or text, found {', '.join(map(str, value))[:80]}",
            path,
            number,
        )
    subreddit = value.get("subreddit")
    reasons = []
    if any(part.strip().lower() in _GONE for part in texts):
        reasons.append("removed")
    if value.get("is_self") is False:
        reasons.append("not_self")
    if value.get("over_18") is True:
        reasons.append("over_18")
    return Post(
        _joined(texts),
        subreddit=subreddit if isinstance(subreddit, str) else None,
        reasons=tuple(reasons),
    )


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row number and the columns that matter of a Parquet or CSV file.

    Raises :class:`~augesc_builder.errors.InputError` for a file that is no such table.
    """
    wanted = ("title", *_TEXT_COLUMNS, "subreddit", "is_self", "over_18")
    if path.suffix == ".csv":
        yield from _read_csv(path, wanted)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = _checked(path, [c for c in wanted if c in file.schema_arrow.names])
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"not a readable Parquet file ({reason})", path) from None


def _read_csv(path: Path, wanted: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    true_false = {"true": True, "false": False}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = _checked(path, [c for c in wanted if c in (reader.fieldnames or ())])
            for row in reader:
                cells = {c: row[c] for c in columns}
                for flag in ("is_self", "over_18"):
                    if flag in cells:
                        cells[flag] = true_false.get(str(cells[flag]).strip().lower())
                yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a CSV file in UTF-8 ({error})", path) from None


def _checked(path: Path, columns: list[str]) -> list[str]:
    if not set(columns) & {"title", *_TEXT_COLUMNS}:
        raise InputError(f"no text column; expected one of {', '.join(_TEXT_COLUMNS)}", path)
    return columns


def _joined(parts: Iterable[str]) -> str:
    """Join title and body as sentences of one post."""
    texts = [text for text in map(_clean, parts) if text]
    return " ".join(
        text if i == len(texts) - 1 or text[-1] in ".!?,;:" else f"{text}."
        for i, text in enumerate(texts)
    )


def _clean(text: str) -> str:
    """Decode HTML entities, and drop the zero-width blanks that editors leave as ``&#x200B;``."""
    if "&" in text:
        text = html.unescape(text)
    return collapse(text.replace("\u200b", ""))


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield a dump's bytes, decompressed; a file that ends too early raises ``EOFError``."""
    with path.open("rb") as file:
        if path.suffix == ".zst":
            yield from _decompressed(file)
            return
        stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        while block := stream.read(_BLOCK):
            yield block


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress zstd, frame after frame."""
    zstandard = _zstandard()
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
    frame, begun = decompressor.decompressobj(), False
    while compressed := file.read(_BLOCK // 8):
        while compressed:
            try:
                block, begun = frame.decompress(compressed), True
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
            if block:
                yield block
            compressed = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame, begun = decompressor.decompressobj(), False
    if begun:
        raise EOFError("the last zstd frame has no end")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError(
            ".zst dumps need zstandard: pip install 'augesc-builder[reddit]'"
        ) from None
    return zstandard


def _locate(path: str | None) -> tuple[str | Path, str | None]:
    if path is None:
        raise RecipeError(
            "the source reddit needs a path: a dump or a folder of dumps, as in "
            "--source reddit=PATH"
        )
    return download(path) if is_on_the_hub(path) else (path, None)


INFO = SourceInfo(
    name="reddit",
    label="Reddit",
    about="reddit=PATH, a dump, a table, a folder of them, or hf://datasets/USER/NAME",
    licence=OTHER,
    producers="The posts of Reddit were written by its users, whose names were never read.",
    citation="baumgartner2020pushshift",
    paper=paper.QUERIES["reddit"],
    locate=_locate,
    read_raw=read_posts,
    parse=parse_posts,
    appendix_a=True,
)
