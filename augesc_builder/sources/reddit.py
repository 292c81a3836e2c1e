"""Reddit submissions: dumps as the public archives write them, or any table with a text column.

A dump holds a JSON object a line (``title``, ``selftext``, ``subreddit``, ``is_self``,
``over_18``), plain, gzipped, or compressed by zstd with a window of up to 2 GB. Lines are streamed;
beside them memory holds the window that the archive dictates. Authors are never read.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from augesc_builder import paper
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.readers.csv_records import read_records
from augesc_builder.readers.hub import ON_THE_HUB, download_dataset, is_on_the_hub
from augesc_builder.readers.jsonl import read_lines
from augesc_builder.readers.parquet import open_table, read_rows
from augesc_builder.readers.records import Limits, parse_each
from augesc_builder.sources.base import OTHER, BadLines, Post, RawPosts, SourceInfo
from augesc_builder.text.prompts import collapse

SUFFIXES = (".zst", ".gz", ".jsonl", ".ndjson", ".json", ".parquet", ".csv")

_ROWS = 512
"""Posts that a worker process is given at a time."""

_GONE = {"[removed]", "[deleted]", "[removed by reddit]"}
_TEXT_COLUMNS = ("text", "selftext", "body", "post")


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
            read_table(file, bad.limits) if is_table(file) else read_lines(file, bad.limits)
        )
        yield RawPosts(str(file), [])  # so that a file without any row is known too
        while some := list(islice(rows, _ROWS)):
            yield RawPosts(str(file), some)


def parse_posts(raw: RawPosts) -> list[Post | InputError]:
    """Return a post for each row, or what is wrong with it."""
    return list(parse_each(raw.rows, partial(_parse, path=raw.path), raw.path))


def _parse(row: bytes | dict[str, Any], number: int, path: str) -> Post:
    return post_of(_fields(row, path, number) if isinstance(row, bytes) else row, path, number)


def _fields(line: bytes, path: str, number: int) -> dict[str, Any]:
    """Return the fields of a dump's line.

    Raises :class:`~augesc_builder.errors.InputError` where it holds none; what stands there is not
    shown, as it may be an author's name.
    """
    try:
        value = json.loads(line.decode())
    except RecursionError:
        reason = "brackets nested too deep"
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long"
    else:
        if isinstance(value, dict):
            return value
        raise InputError("expected an object with title and selftext", path, number)
    raise InputError(f"not JSON ({reason}); mend or remove the line", path, number)


def post_of(value: dict[str, Any], path: str, number: int) -> Post:
    """Return the post of a submission's fields; title and body are joined where both are there.

    Raises :class:`~augesc_builder.errors.InputError` where there is no text.
    """
    parts = [value.get("title"), *(value[k] for k in _TEXT_COLUMNS if k in value)]
    texts = [part for part in parts if isinstance(part, str)]
    if not texts:
        raise InputError(
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


def read_table(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Yield row number and the columns that matter of a Parquet or CSV file.

    Raises :class:`~augesc_builder.errors.InputError` for a file that is no such table.
    """
    if path.suffix == ".csv":
        return _read_csv(path, limits)
    with open_table(path) as file:
        _check_columns(path, file.schema_arrow.names)
    return read_rows(path, _COLUMNS, limits)


_COLUMNS = ("title", *_TEXT_COLUMNS, "subreddit", "is_self", "over_18")


def _read_csv(path: Path, limits: Limits) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    records = read_records(path, limits)
    _, header = next(records, (1, []))
    if isinstance(header, InputError):
        raise header
    _check_columns(path, header)
    wanted = [(name, header.index(name)) for name in _COLUMNS if name in header]
    for number, cells in records:
        if isinstance(cells, InputError):
            yield number, cells
            continue
        row: dict[str, Any] = {name: cells[at] for name, at in wanted}
        for flag in ("is_self", "over_18"):
            if flag in row:
                row[flag] = _TRUE_FALSE.get(row[flag].strip().lower())
        yield number, row


_TRUE_FALSE = {"true": True, "false": False}


def _check_columns(path: Path, found: Sequence[str]) -> None:
    if not set(found) & {"title", *_TEXT_COLUMNS}:
        raise InputError(f"no text column; expected one of {', '.join(_TEXT_COLUMNS)}", path)


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
    terms="A post of Reddit (the first utterance of every session whose `source` is `reddit`) "
    "belongs to who wrote it, and Reddit's terms (https://redditinc.com/policies: Public Content "
    "Policy, Data API Terms) hold for whoever passes it on or trains a model on it. Commercial use "
    "wants Reddit's and the author's leave. Nobody may try to find out who the author is. A post "
    "that its author or Reddit has deleted is to be taken out here too, with all sessions of its "
    "`query_id`.",
    citation="baumgartner2020pushshift",
    paper=paper.QUERIES["reddit"],
    locate=_locate,
    read_raw=read_posts,
    parse=parse_posts,
    appendix_a=True,
)
