"""What one of several workers says of itself while it makes shards, for ``augesc status``."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from augesc_builder.run import layout
from augesc_builder.run.heartbeat import (
    Beat,
    State,
    WorkerStatus,
    ended_by,
    one_line,
    this_process,
    write_status,
)

_WINDOW = 60.0
"""Seconds that rates are the mean of."""


class Telling:
    """Counts what a worker does and writes it every few seconds, until :meth:`end`."""

    def __init__(self, folder: Path, stage: str, n_shards: int, device: str) -> None:
        name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._path = folder / layout.WORKERS / f"{name}.json"
        self._stage, self._n_shards, self._device = stage, n_shards, one_line(device)
        self._lock = threading.Lock()
        self._shards = self._rows = self._tokens = self._kept = self._judged = 0
        self._seen = deque([(time.monotonic(), 0, 0)])
        self._utilisation: float | None = None
        self._error: BaseException | None = None
        self._write("running")
        self._beat = Beat(lambda: self._write("running"))

    def step(self, rows: int, tokens: int, utilisation: float | None) -> None:
        """Count what a step brought."""
        with self._lock:
            self._rows += rows
            self._tokens += tokens
            self._utilisation = utilisation

    def judged(self, kept: int, judged: int) -> None:
        """Note how many rows were judged by now, and how many of them met every requirement."""
        with self._lock:
            self._kept, self._judged = kept, judged

    def made(self) -> None:
        """Count a shard."""
        with self._lock:
            self._shards += 1

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Note by which error the work ends, if by one."""
        try:
            yield
        except GeneratorExit:  # nobody asks for more
            raise
        except BaseException as error:
            self._error = error
            raise

    def end(self) -> None:
        """Say that the work has ended, and how."""
        self._beat.stop()
        self._write(*(("finished", None) if self._error is None else ended_by(self._error)))

    def status(self, state: State, error: str | None = None) -> WorkerStatus:
        """Return what is to be said now."""
        with self._lock:
            now = time.monotonic()
            self._seen.append((now, self._rows, self._tokens))
            while now - self._seen[0][0] > _WINDOW and len(self._seen) > 2:  # noqa: PLR2004
                self._seen.popleft()
            begun, rows, tokens = self._seen[0]
            seconds = max(now - begun, 1e-3)
            return WorkerStatus(
                stage=self._stage,
                device=self._device,
                n_shards=self._n_shards,
                shards=self._shards,
                rows=self._rows,
                tokens=self._tokens,
                kept=self._kept,
                judged=self._judged,
                rows_a_second=(self._rows - rows) / seconds,
                tokens_a_second=(self._tokens - tokens) / seconds,
                slots_in_use=self._utilisation,
                **this_process(state, error),
            )

    # -- inside ----------------------------------------------------------------------------------

    def _write(self, state: State, error: str | None = None) -> None:
        try:
            self._path.parent.mkdir(exist_ok=True)
        except OSError:
            return
        write_status(self._path, self.status(state, error), self._path.with_suffix(".new"))
