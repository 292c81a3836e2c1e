"""Banks of personas: who a seeker may be, one of which begins each background.

A bank is a text file with a persona a line, JSON lines or a Parquet table with a column ``persona``
(a text, or sentences in a list), or a dataset of such files on the Hub at a commit:
``hf://datasets/USER/NAME@COMMIT``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import read_chunks
from augesc_builder.readers.hub import ON_THE_HUB, download_dataset, is_on_the_hub
from augesc_builder.readers.jsonl import read_lines
from augesc_builder.readers.records import BadLines, parse_each
from augesc_builder.text.prompts import collapse

_TABLES = (".jsonl", ".parquet")
_ROWS = 2000


def read_personas(where: str) -> list[str]:
    """Return the personas of a bank, each on one line, in the order of its files and lines.

    Raises :class:`~augesc_builder.errors.InputError` for a bank without any, and for a row that
    holds none, with file and line; :class:`~augesc_builder.errors.DownloadError` where the Hub does
    not have it.
    """
    found = [persona for file in _files(where) for persona in _read(file)]
    if not found:
        raise InputError("no persona there; expected one a line", where)
    return found


def _files(where: str) -> list[Path]:
    if not is_on_the_hub(where):
        return [Path(where)]
    repo, _, commit = where.removeprefix(ON_THE_HUB).partition("@")
    hint = "check the address, or give a local file with --set prompt.personas=PATH"
    patterns = ["*.txt", *(f"*{suffix}" for suffix in _TABLES)]
    folder, _ = download_dataset(repo, commit, patterns, hint)
    return sorted(path for path in folder.rglob("*") if path.suffix in {".txt", *_TABLES})


def _read(path: Path) -> Iterator[str]:
    if path.suffix in _TABLES:
        for chunk in read_chunks(path, 0, _ROWS):
            rows = parse_each(
                chunk.values(["persona"]), lambda value, n: _persona(value, path, n), path
            )
            yield from BadLines(strict=True).good(rows)
        return
    lines = parse_each(read_lines(path), lambda line, n: _line(line, path, n), path)
    yield from (line for line in BadLines(strict=True).good(lines) if line)


def _line(line: bytes, path: Path, number: int) -> str:
    try:
        return collapse(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason}", path, number) from None


def _persona(value: Any, path: Path, number: int) -> str:
    said = value.get("persona") if isinstance(value, dict) else None
    parts = said if isinstance(said, list) else [said]
    texts = [part for part in parts if isinstance(part, str)]
    persona = collapse(" ".join(texts))
    if len(texts) < len(parts) or not persona:
        raise InputError(
            f"expected a text (or a list of texts) as persona, found {str(value)[:60]}",
            path,
            number,
        )
    return persona
