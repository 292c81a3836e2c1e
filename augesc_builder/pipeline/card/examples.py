"""The rows of a corpus that are shown as examples, by its card and when a build ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from augesc_builder.run import layout
from augesc_builder.text.prompts import Message
from augesc_builder.text.safety import LexiconScanner

_LOOKED_AT = 100
"""Rows from which an example is taken: the first that carries no safety flag."""


def kept_example(corpus: Path) -> tuple[dict[str, Any] | None, bool]:
    """Return the first kept session without a safety flag, and whether there are any sessions."""
    rows = _first_rows(corpus / layout.DATA)
    return next((row for row in rows if not row["safety_flags"]), None), bool(rows)


def rejected_example(corpus: Path) -> tuple[dict[str, Any] | None, bool]:
    """Return the first rejected text that raises no safety flag, and whether there are any."""
    rows, scanner = _first_rows(corpus / layout.REJECTED), LexiconScanner()
    return next((row for row in rows if not scanner.scan(_as_turns(row))), None), bool(rows)


def _as_turns(row: dict[str, Any]) -> list[Message]:
    return [
        {"role": "user", "content": row["query"]},
        {"role": "assistant", "content": row["text"]},
    ]


def _first_rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in layout.parquet_files(folder):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_LOOKED_AT):
            rows += batch.to_pylist()
            if len(rows) >= _LOOKED_AT:
                return rows[:_LOOKED_AT]
    return rows
