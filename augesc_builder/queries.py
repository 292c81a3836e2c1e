"""Which posts become triggers, and why the others do not (section 4.2)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder import words
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.prompts import collapse
from augesc_builder.settings import Queries, QuerySource
from augesc_builder.sources.empathetic_dialogues import (
    download_empathetic_dialogues,
    read_empathetic_dialogues,
)
from augesc_builder.sources.posts import Post
from augesc_builder.sources.sample import read_sample_queries
from augesc_builder.sources.sessions import read_table
from augesc_builder.tables import QUERIES, to_table

REASONS = ("emotion", "length", "duplicate")
"""Why a post is no trigger, in the order in which it is asked."""


def collect_queries(settings: Queries) -> tuple[pa.Table, dict[str, Any]]:
    """Read every source of the recipe; give the queries table and a report a source.

    The report counts posts, queries, and the posts dropped for each reason. Raises
    :class:`~augesc_builder.errors.InputError` for a source that gives no query at all.
    """
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {}
    seen: set[str] = set()
    for origin in settings.sources:
        funnel: Counter[str] = Counter()
        posts, commit = _posts(origin)
        found = list(_triggers(posts, origin.source, settings, seen, funnel))
        if not found:
            raise InputError(
                f"none of {funnel['posts']} posts became a query "
                f"({', '.join(f'{reason} {funnel[reason]}' for reason in REASONS)})",
                origin.path or origin.source,
            )
        before = report.get(origin.source, {"posts": 0, "queries": 0, "words": 0, "dropped": {}})
        report[origin.source] = {
            "posts": before["posts"] + funnel["posts"],
            "queries": before["queries"] + len(found),
            "words": before["words"] + sum(row["n_words"] for row in found),
            "dropped": {r: before["dropped"].get(r, 0) + funnel[r] for r in REASONS},
            "revision": commit,
        }
        rows += found
    for source in report.values():
        source["mean_words"] = round(source.pop("words") / source["queries"], 2)
    return to_table(rows, QUERIES), report


def read_queries(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Read queries tables; an empty one is an error."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        table = read_table(path, ["query_id", "source", "text"])
        for number, row in enumerate(table.to_pylist(), 1):
            if not all(isinstance(value, str) and value.strip() for value in row.values()):
                raise InputError(f"query_id, source and text must be filled: {row}", path, number)
            rows.append({**row, "text": collapse(row["text"])})
        if not table.num_rows:
            raise InputError("empty; expected a query a row", path)
    return rows


def query_id(source: str, text: str) -> str:
    """Give the id of a query: the same text from the same source always has the same."""
    return hashlib.blake2b(f"{source}\n{text}".encode(), digest_size=8).hexdigest()


def _posts(origin: QuerySource) -> tuple[Iterator[Post], str | None]:
    """Open a source; give its posts, and the Hub commit where it was downloaded."""
    if origin.source == "sample":
        return read_sample_queries(), None
    if origin.source == "empathetic_dialogues":
        if origin.path is not None:
            return read_empathetic_dialogues(origin.path), None
        folder, commit = download_empathetic_dialogues()
        return read_empathetic_dialogues(folder), commit
    raise RecipeError(
        f"unknown source of queries {origin.source!r}; expected sample or empathetic_dialogues"
    )


def _triggers(
    posts: Iterable[Post],
    source: str,
    settings: Queries,
    seen: set[str],
    funnel: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Give the rows of the posts that pass; ``seen`` holds the texts of all sources so far."""
    n_found = 0
    for post in posts:
        if settings.max_per_source is not None and n_found == settings.max_per_source:
            return
        funnel["posts"] += 1
        text = collapse(post.text)
        if post.emotion is not None and post.emotion not in settings.negative_emotions:
            funnel["emotion"] += 1
            continue
        n_words = words.count(text)
        if not settings.n_words.min <= n_words <= settings.n_words.max:
            funnel["length"] += 1
            continue
        if text.casefold() in seen:
            funnel["duplicate"] += 1
            continue
        seen.add(text.casefold())
        n_found += 1
        yield {
            "query_id": query_id(source, text),
            "source": source,
            "text": text,
            "n_words": n_words,
            "emotion": post.emotion,
            "subreddit": post.subreddit,
        }
