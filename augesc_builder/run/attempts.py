"""Who is at a shard, and who ended at it: a file each, below ``.work/attempts``.

A worker writes a file before it begins a shard, and removes it when the shard has its mark, or when
the worker ends in order. Where its process is killed the file stays, so a shard that kills whoever
makes it has more and more. Nobody's clock is asked. The file of a worker that is alive on another
machine cannot be told from one that was left there. So what depends on the number of files must be
harmless where nobody ended: a shard that several are at is made row by row, which makes the same
rows, only slower. What gives a row up asks :meth:`Attempts.ended` for those that surely have ended.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.heartbeat import Process, is_alive, one_line, read_process, this_process

MOST = 3
"""Attempts that end before a shard is made row by row, and a row is given up."""

MOST_TAKEN = 10
"""Workers that end beside a row, which another process makes, before it is given up: more than
:data:`MOST`, for whoever ends workers at random may well meet the same row again."""


class Attempt:
    """An attempt that this process makes, as its file tells."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write(Process(**this_process("running")))

    def failed(self, error: str) -> None:
        """Note that it has ended by an error."""
        self._write(Process(**this_process("failed", one_line(error))))

    def drop(self) -> None:
        """Take it back: it is over, and by no fault of what was made."""
        self._path.unlink(missing_ok=True)

    def _write(self, process: Process) -> None:
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: where the machine stops, a file that is missing is an attempt more.
            self._path.write_text(process.model_dump_json() + "\n", encoding="utf-8")


class Attempts:
    """The attempts at what has no mark yet, in the folder of a run."""

    def __init__(self, root: Path) -> None:
        self._folder = root / layout.WORK / layout.ATTEMPTS

    def begin(self, name: str) -> Attempt:
        """Note that this process begins an attempt."""
        return Attempt(self._folder / f"{name}.{uuid.uuid4().hex}.json")

    def left(self, name: str) -> list[Process]:
        """Return attempts of others, without those that are known to be under way."""
        found = [read_process(path) for path in self._of(name)]
        return [p for p in found if p is not None and (p.state != "running" or not is_alive(p))]

    def ended(self, name: str) -> list[Process]:
        """Return the attempts that have surely ended, by an error or with their process."""
        return [p for p in self.left(name) if p.state != "running" or is_alive(p) is False]

    def clear(self, name: str) -> None:
        """Forget the attempts at something, and at parts of it, now that it has its mark."""
        for path in (*self._of(name), *self._of(name, parts=True)):
            path.unlink(missing_ok=True)

    def _of(self, name: str, *, parts: bool = False) -> Iterator[Path]:
        start = f"{name}{'-' if parts else '.'}"
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(start) and entry.name.endswith(".json"):
                    yield Path(entry.path)
