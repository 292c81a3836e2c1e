"""Chosen and rejected sessions of one query, in the form of TRL's preference trainers.

A row has ``prompt``, ``chosen`` and ``rejected`` as lists of messages: what both sessions begin
with, and how each goes on from there, with the supporter's turn first. Beside them stand the
scores, so that others can be drawn from the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Features, Value

from augesc_builder.errors import InputError, RunFolderError
from augesc_builder.readers.parquet import read_table
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors, sync, write_synced
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.tables import MESSAGES, to_table
from augesc_builder.text.prompts import Message

PAIRS = Features(
    {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "chosen_score": Value("float64"),
        "rejected_score": Value("float64"),
        "query_id": Value("string"),
        "source": Value("string"),
        "chosen_id": Value("string"),
        "rejected_id": Value("string"),
    }
)
"""A row is a pair of sessions of a query; ids are those of the sessions."""

_READ = [
    *("session_id", "query_id", "source", "messages"),
    *("score", "chosen", "chosen_score"),
]


def write_pairs(run: Path, out: Path, margin: float, progress: Progress) -> None:
    """Write the pairs of a run whose scores lie more than nothing, and ``margin``, apart.

    Raises :class:`~augesc_builder.errors.RunFolderError` where nothing was chosen there, and
    :class:`~augesc_builder.errors.InputError` where no pair is left, and for a file that is there.
    """
    corpus = run / layout.CORPUS if (run / layout.CORPUS).is_dir() else run
    if not (corpus / layout.SELECTION).is_file():
        raise RunFolderError(
            f"{run}: nothing was chosen there; give the folder of a build whose recipe has a "
            f"section select, or that of `augesc select`"
        )
    if out.exists():
        raise InputError("is there already; give --out a new file", out)
    others = [
        row
        for file in parquet_files(corpus / layout.NOT_SELECTED)
        for row in read_table(file, _READ).to_pylist()
    ]
    wanted = {row["chosen"] for row in others}
    chosen = {
        key: messages
        for file in parquet_files(corpus / layout.DATA)
        for key, messages in zip(
            *(c.to_pylist() for c in read_table(file, ["session_id", "messages"]).columns),
            strict=True,
        )
        if key in wanted
    }
    rows = [pair for row in others if (pair := _pair(row, chosen, margin)) is not None]
    if not rows:
        raise InputError(
            f"no two sessions of a query lie {margin:g} apart among {len(others):,} that were not "
            f"selected; lower --margin, or choose among more samples",
            corpus / layout.NOT_SELECTED,
        )
    _write(rows, out)
    progress.say(
        f"{len(rows):,} pairs of {len(others):,} sessions that were not selected; "
        f"{len(others) - len(rows):,} are left out: scores that are equal, or less than "
        f"{margin:g} apart, or a turn that is not the supporter's where they part."
    )


def _pair(
    row: dict[str, Any], chosen: dict[str, list[Message]], margin: float
) -> dict[str, Any] | None:
    """Return a pair with what was chosen of the same query, where both can be told apart."""
    best, score = row["chosen_score"], row["score"]
    if row["chosen"] not in chosen or best is None or score is None:
        return None
    if best == score or abs(best - score) < margin:
        return None
    better, worse = chosen[row["chosen"]], row["messages"]
    n = len(list(_shared(better, worse)))
    ends = better[n:], worse[n:]
    if not n or not all(end and end[0]["role"] == "assistant" for end in ends):
        return None
    return {
        "prompt": better[:n],
        "chosen": ends[0],
        "rejected": ends[1],
        "chosen_score": best,
        "rejected_score": score,
        "query_id": row["query_id"],
        "source": row["source"],
        "chosen_id": row["chosen"],
        "rejected_id": row["session_id"],
    }


def _shared(a: Sequence[Message], b: Sequence[Message]) -> Iterator[Message]:
    """Yield what both begin with."""
    for one, _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)):
        yield one


def _write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".jsonl":
            write_synced(out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
            return
        pq.write_table(to_table(rows, PAIRS), out)
        sync(out)
