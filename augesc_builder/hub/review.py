"""The flagged sessions of a corpus for a person to look at, and what that person let stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from augesc_builder.errors import InputError
from augesc_builder.run import layout
from augesc_builder.run.layout import find_run, load_report, reviewed_sessions
from augesc_builder.run.progress import Progress

_AROUND = 40
"""Characters shown on each side of a span."""


def show_flags(folder: Path, progress: Progress) -> None:
    """Print every flagged span of a corpus with its session, utterance and surroundings."""
    corpus = find_run(folder) / layout.CORPUS
    reviewed = reviewed_sessions(corpus)
    for path in layout.parquet_files(corpus / layout.DATA):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                for flag in row["safety_flags"] or ():
                    text = row["messages"][flag["utterance"]]["content"]
                    start, end = flag["start"], flag["end"]
                    around = text[max(0, start - _AROUND) : start]
                    behind = text[end : end + _AROUND]
                    seen = " (looked at)" if row["session_id"] in reviewed else ""
                    progress.say(
                        f"{row['session_id']}{seen}, utterance {flag['utterance']}, "
                        f"{flag['flag']}: {around}[{text[start:end]}]{behind}"
                    )
    found = load_report(corpus, "safety")
    progress.say(
        f"{found['flagged']:,} of {found['sessions']:,} sessions are flagged, "
        f"{len(reviewed):,} were looked at"
    )


def mark_reviewed(folder: Path, sessions: Sequence[str], progress: Progress) -> None:
    """Note that a person looked at these sessions and let them stand; write the card again.

    Raises :class:`~augesc_builder.errors.InputError` where one of them is not flagged.
    """
    from augesc_builder.pipeline.card import stage

    run = find_run(folder)
    corpus = run / layout.CORPUS
    flagged = {
        row["session_id"]
        for path in layout.parquet_files(corpus / layout.DATA)
        for row in pq.read_table(path, columns=["session_id", "safety_flags"]).to_pylist()
        if row["safety_flags"]
    }
    if unknown := [name for name in sessions if name not in flagged]:
        raise InputError(
            f"no flagged session {unknown[0]!r} there; `augesc safety {run}` lists them", corpus
        )
    done = sorted(reviewed_sessions(corpus) | set(sessions))
    (corpus / layout.SAFETY_REVIEW).write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    stage.standalone(run, progress)
