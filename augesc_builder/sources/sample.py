"""The bundled sample: sessions and trigger queries written for this project.

100 emotional support sessions, seven or eight for each of ESConv's 13 problem types, and 160 first
posts of help-seekers. They show the form of the data and train the quickstart's model; they are no
research corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from augesc_builder.readers.jsonl import json_of, read_lines
from augesc_builder.readers.records import parse_each
from augesc_builder.sources.base import FREE, BadLines, Post, Session, SourceInfo
from augesc_builder.sources.esconv import read_esconv

_FOLDER = Path(__file__).parent / "sample_data"
SESSIONS = _FOLDER / "sessions.jsonl"
QUERIES = _FOLDER / "queries.jsonl"


def read_sample_sessions() -> list[Session]:
    """Read the bundled sessions, in ESConv's format."""
    return read_esconv(SESSIONS)


def read_sample_queries() -> Iterator[Post]:
    """Read the bundled queries."""

    def parse(line: bytes, number: int) -> Post:
        value = json_of(line, QUERIES, number)
        return Post(value["text"], emotion=value["emotion"])

    return BadLines(strict=True).good(parse_each(read_lines(QUERIES), parse, QUERIES))


def _read(_: object, __: BadLines) -> Iterator[Post]:
    return read_sample_queries()


def _sessions(_: str | None) -> tuple[list[Session], None]:
    return read_sample_sessions(), None


INFO = SourceInfo(
    name="sample",
    label="sample",
    about="bundled, no path",
    licence=FREE,
    producers="The sessions and posts of the sample were written for `augesc`.",
    bundled_posts=QUERIES,
    bundled_sessions=SESSIONS,
    locate=lambda _: (QUERIES, None),
    read=_read,
    read_sessions=_sessions,
    session_files=lambda _: [SESSIONS],
)
