"""The log of a study: what was done, by whom, when. Rows are added, and never changed.

SQLite in WAL mode, synced at every commit: what was answered is there after a kill, and after the
machine lost power. Each thread has a connection of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from augesc_builder.errors import DiskError, RunFolderError, StudyError

ARRIVED = "arrived"
"""Somebody came for the first time: ``via`` link, crowd, judge or import."""
CONSENTED = "consented"
COMPREHENSION = "comprehension"
"""A try of the check: ``answers``, ``right``."""
SCREENED_OUT = "screened_out"
PLACED = "placed"
"""A person got a place: its number, ``items`` in order, ``checks``."""
RELEASED = "released"
"""A place was given back: ``reason`` left or timeout."""
OPENED = "opened"
"""A page with an item was drawn."""
ANSWERED = "answered"
"""``answers`` by slot: the option's number."""
LEFT = "left"
WITHDRAWN = "withdrawn"
"""Somebody asked that the answers they gave be left out: no report has them from then on."""
FINISHED = "finished"
"""A person saw the last page, and got the completion code."""
SAID, REPLIED, DANGER = "said", "replied", "danger"
"""Of the interactive study: what a person wrote, what a system replied, signs that were seen."""

_SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    annotator TEXT NOT NULL,
    item TEXT NOT NULL,
    body TEXT NOT NULL,
    submission TEXT
);
CREATE INDEX by_annotator ON events (annotator, item, kind);
CREATE INDEX by_kind ON events (kind);
CREATE UNIQUE INDEX once ON events (annotator, submission, kind, item, body)
    WHERE submission IS NOT NULL;
CREATE TRIGGER never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER never_removed BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""

_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Event:
    """A row of the log; ``time`` in seconds since 1970."""

    id: int
    time: float
    kind: str
    annotator: str
    item: str
    body: dict[str, Any]


class EventLog:
    """The events of one study, from any thread and any process.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there is no log.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = path, clock
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        if not path.is_file():
            raise RunFolderError(
                f"{path}: missing; all answers stood there: put the file back from a copy"
            )
        with self._errors():
            tables = self._connection().execute("SELECT name FROM sqlite_master").fetchall()
        if ("events",) not in tables:
            raise RunFolderError(
                f"{path}: not a log of events; all answers stood there: put the file back from a "
                f"copy"
            )

    @classmethod
    def create(cls, path: Path) -> None:
        """Begin a log in a new file that its owner alone may read."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
        connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that nobody else writes beside; all of it is kept, or nothing.

        Raises :class:`~augesc_builder.errors.DiskError` where the disk is full, and
        :class:`~augesc_builder.errors.RunFolderError` where the file is no log.
        """
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees one moment of the log."""
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("COMMIT")

    def append(
        self,
        connection: sqlite3.Connection,
        kind: str,
        annotator: str,
        item: str = "",
        body: Mapping[str, Any] | None = None,
        submission: str | None = None,
    ) -> bool:
        """Add an event; whether it is new: the same one of the same submission is added once."""
        text = json.dumps(body or {}, ensure_ascii=False, sort_keys=True, allow_nan=False)
        row = (_as_text(self.clock()), kind, annotator, item, text, submission)
        done = connection.execute(
            "INSERT OR IGNORE INTO events (time, kind, annotator, item, body, submission) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
        return done.rowcount == 1

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield the events behind one, in the order they were added."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM events WHERE id > ? ORDER BY id", (after,)
            ).fetchall()
        yield from map(event_of, rows)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._guard:
            for connection in self._opened:
                connection.close()
            self._opened.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
            with self._guard:
                self._opened.append(connection)
        return connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite met into an error of ours."""
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            if "full" in said or "I/O error" in said:
                raise DiskError(
                    f"{self.path}: no space left to keep an answer ({said}); free some: nothing "
                    f"that was taken is lost"
                ) from None
            if "readonly" in said or "unable to open" in said:
                raise DiskError(
                    f"{self.path}: not writable ({said}); give it back to you"
                ) from None
            if "locked" in said:
                raise StudyError(
                    f"{self.path}: another program has held it for {_WAIT_SECONDS:g} s; stop it",
                    "at_work",
                ) from None
            if "not a database" in said or "malformed" in said:
                raise RunFolderError(
                    f"{self.path}: not a log of events ({said}); put the file back from a copy"
                ) from None
            raise
        except OSError as error:
            raise DiskError(f"{self.path}: {error.strerror}") from None


COLUMNS = "id, time, kind, annotator, item, body"
"""What :func:`event_of` reads."""


def event_of(row: tuple[Any, ...]) -> Event:
    """Return a row of :data:`COLUMNS` as an event."""
    number, moment, kind, annotator, item, body = row
    return Event(number, _as_seconds(moment), kind, annotator, item, json.loads(body))


def _as_text(seconds: float) -> str:
    """Return a moment so that moments are in order as texts."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def _as_seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
