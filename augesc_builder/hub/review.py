"""The flagged sessions of a corpus for a person to look at, and what that person let stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from augesc_builder.errors import InputError, RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors, write_synced
from augesc_builder.run.layout import find_corpus, reviewed_sessions, run_of
from augesc_builder.run.marks import Marks, parquet_files
from augesc_builder.run.progress import Progress

_AROUND = 40
"""Characters shown on each side of a span."""


def show_flags(folder: Path, progress: Progress) -> None:
    """Print every flagged span of a corpus with its session, utterance and surroundings.

    Raises :class:`~augesc_builder.errors.PublishError` where there is no corpus, and
    :class:`~augesc_builder.errors.InputError` for one without flags.
    """
    corpus = find_corpus(folder)
    reviewed = reviewed_sessions(corpus)
    n_sessions = n_flagged = 0
    for row in _rows(corpus, "session_id", "messages", "safety_flags"):
        n_sessions += 1
        n_flagged += bool(row["safety_flags"])
        seen = " (looked at)" if row["session_id"] in reviewed else ""
        try:
            for flag in row["safety_flags"] or ():
                progress.say(f"{row['session_id']}{seen}, {_shown(flag, row)}")
        except (IndexError, KeyError, TypeError):  # a table of others can hold anything
            raise InputError(
                f"the flags of session {row['session_id']!r} are not as `augesc filter` writes "
                f"them; filter it again",
                corpus,
            ) from None
    progress.say(
        f"{n_flagged:,} of {n_sessions:,} sessions are flagged, {len(reviewed):,} were looked at"
    )


def _shown(flag: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    number, start, end = flag["utterance"], flag["start"], flag["end"]
    if number < 0:
        where, text = "background", row["background"]
    else:
        where, text = f"utterance {number}", row["messages"][number]["content"]
    around, behind = text[max(0, start - _AROUND) : start], text[end : end + _AROUND]
    return f"{where}, {flag['flag']}: {around}[{text[start:end]}]{behind}"


def mark_reviewed(folder: Path, sessions: Sequence[str], progress: Progress) -> None:
    """Note that a person looked at these sessions and let them stand; write the card again.

    Two people may do so at the same time. Raises :class:`~augesc_builder.errors.InputError` where
    one of the sessions is not flagged, and :class:`~augesc_builder.errors.RunFolderError` where a
    run is at work there.
    """
    corpus = find_corpus(folder)
    run = run_of(corpus)
    flagged = {
        row["session_id"]
        for row in _rows(corpus, "session_id", "safety_flags")
        if row["safety_flags"]
    }
    if unknown := [name for name in sessions if name not in flagged]:
        raise InputError(
            f"no flagged session {unknown[0]!r} there; `augesc safety {run}` lists them", corpus
        )
    try:
        with disk_errors(run), FileLock(run / layout.LOCK, timeout=_PATIENCE):
            done = sorted(reviewed_sessions(corpus) | set(sessions))
            write_synced(corpus / layout.SAFETY_REVIEW, json.dumps(done, indent=2) + "\n")
    except Timeout:
        raise RunFolderError(
            f"{run}: another run is at work there; wait for it or stop it"
        ) from None
    if "card" in Marks(run):
        _write_card(run, corpus, progress)
    else:
        progress.say(f"Wrote {corpus / layout.SAFETY_REVIEW}")


_PATIENCE = 10.0
"""Seconds to wait for whoever else notes something."""


def _write_card(run: Path, corpus: Path, progress: Progress) -> None:
    from augesc_builder.pipeline.card import filtered, stage

    if run == corpus:
        filtered.write_card(run, {}, progress)
    else:
        stage.standalone(run, progress)


def _rows(corpus: Path, *columns: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a corpus, with their backgrounds where the table has them.

    Raises :class:`~augesc_builder.errors.InputError` where a column is missing.
    """
    for path in parquet_files(corpus / layout.DATA):
        with pq.ParquetFile(path) as file:
            if missing := set(columns) - set(file.schema_arrow.names):
                raise InputError(
                    f"no column {min(missing)}; give the folder of `augesc build` or `augesc "
                    f"filter`, which write it",
                    path,
                )
            known = [*columns, *{"background"}.intersection(file.schema_arrow.names)]
            for batch in file.iter_batches(batch_size=1000, columns=known):
                yield from batch.to_pylist()
