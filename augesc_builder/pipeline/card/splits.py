"""The splits of a corpus, where they are asked for: all sessions of a query stand in one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import RecipeError
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder

Shares = Mapping[str, float]
"""Of the splits beside ``train``, as ``{"validation": 0.05, "test": 0.05}``."""


def split_of(query: str, shares: Shares) -> str:
    """Return the split of a query, by a hash of its id: the same in every corpus that has it.

    What is in ``test`` stays there with a larger share of it.
    """
    digest = hashlib.sha256(f"split\n{query}".encode()).digest()
    place, reached = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name in ("test", "validation"):
        reached += shares.get(name, 0.0)
        if place < reached:
            return name
    return layout.SPLIT


def write_splits(folder: RunFolder, files: Sequence[Path], shares: Shares | None) -> None:
    """Write the sessions of ``files`` once more, parted; without shares, no splits stay there.

    What is there already, of the same sessions and shares, is left as it is. Raises
    :class:`~augesc_builder.errors.RecipeError`, before anything is written, where a split would be
    empty.
    """
    marks = [name for name in folder.marks.names("card") if name != "card"]
    if (
        shares
        and len(marks) == len(files)
        and folder.is_current("card")
        and all(folder.facts(name).get("shares") == shares for name in marks)
    ):
        return
    names = [name for name in layout.SPLITS if name == layout.SPLIT or name in (shares or {})]
    if shares:
        _check_none_is_empty(files, names, shares)
    for mark in marks:
        folder.forget(mark)
    for number, file in enumerate(files if shares else ()):
        table = pq.read_table(file)
        of_row = [split_of(query, shares or {}) for query in _queries(table)]
        tables = {
            f"{layout.CORPUS}/{layout.PARTED}/{name}": table.filter(
                pa.array([split == name for split in of_row], pa.bool_())
            )
            for name in names
        }
        folder.add_shard("card", number, len(files), tables, shares=dict(shares or {}))


def _check_none_is_empty(files: Sequence[Path], names: Sequence[str], shares: Shares) -> None:
    sessions: Counter[str] = Counter()
    queries = set()
    for file in files:
        found = _queries(pq.read_table(file, columns=["session_id", "query_id"]))
        sessions.update(split_of(query, shares) for query in found)
        queries.update(found)
    for name in names:
        if not sessions[name]:
            raise RecipeError(
                f"card.splits: the corpus is too small for the split {name}: of "
                f"{sessions.total():,} sessions from {len(queries):,} queries none falls into it "
                f"with {dict(shares)}; give other shares, or null for no splits"
            )


def _queries(table: pa.Table) -> list[str]:
    """Return the query of each session, by which it is parted; without one, the session itself."""
    pairs = zip(table["query_id"].to_pylist(), table["session_id"].to_pylist(), strict=True)
    return [query or session for query, session in pairs]
