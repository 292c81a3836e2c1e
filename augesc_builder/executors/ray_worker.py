"""What runs in a Ray cluster: a worker that is given numbers, and says what has become of them.

One call is under way at a time. It brings numbers and ends when there is something to say: shards
have their marks, the worker has room for more numbers, it has ended. What is dear stays here: the
rows go into the store, and a thread of its own works on while nobody asks.
"""

from __future__ import annotations

import os
import platform
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.metrics import Gauge

from augesc_builder.errors import AugescError, ExecutorError
from augesc_builder.executors.base import Job, Worker
from augesc_builder.run.heartbeat import one_line
from augesc_builder.run.versions import check_same, fingerprint

AHEAD = 2
"""Numbers that wait for room in a worker, so that it need not wait for them."""

_WHO = f"the worker on {platform.node()}"

_BEAT = 5.0
"""Seconds after which a call ends, though there is nothing to say."""

_PATIENCE = 15.0
"""Seconds that a worker waits for a number. Then it ends the rows it has: who gives numbers may be
looking through marks, and rows under way wait while it does."""

_LINES = 20
"""Lines that are kept for the next call."""


@dataclass
class Report:
    """What has become of the numbers that were given."""

    room: int
    """How many more could wait here."""
    made: Sequence[int] = ()
    """Shards that have their mark, whoever made them."""
    left: Sequence[int] = ()
    """Shards that have none and are not being made any more."""
    lines: Sequence[str] = ()
    error: AugescError | None = None
    """What ends the run, since any other worker would meet it."""
    failure: str | None = None
    """What ends this worker; another one may do better."""


@dataclass
class _Told:
    """What is to be reported."""

    made: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))


class RayWorker:
    """An actor. It is pickled by its name, so that each machine runs its own code.

    The job is read once this machine is known to have the packages of the one that began the run,
    ``made_with``.
    """

    def __init__(self, made_with: Mapping[str, str]) -> None:
        self._made_with = made_with
        self._job: Job | None = None
        self._changed = threading.Condition()
        self._waiting: deque[int] = deque()
        self._taken: dict[int, None] = {}
        self._are_all = self._is_closed = False
        self._told = _Told()
        self._error: AugescError | None = None
        self._failure: str | None = None
        self._measures: _Measures | None = None
        warnings.showwarning = self._warn
        self._thread = threading.Thread(target=self._run, name="augesc-worker", daemon=True)
        self._thread.start()

    def node(self) -> str | Report:
        """Return the id of the node that this is on; a report where it has other packages."""
        try:
            check_same(self._made_with, fingerprint(), _WHO)
        except ExecutorError as error:
            return Report(room=0, error=error)
        return str(ray.get_runtime_context().get_node_id())

    def exchange(self, numbers: Sequence[int], are_all: bool, job: Sequence[Any]) -> Report:
        """Take numbers, wait for something to say, and say it.

        ``are_all`` says that there are no more for now: what is under way is to be ended. ``job``
        holds a reference to the job, for a worker that has been restarted has none.
        """
        if self._job is None:
            self._read(job[0])
        with self._changed:
            self._waiting.extend(numbers)
            self._are_all = are_all
            self._changed.notify_all()
            self._changed.wait_for(self._has_news, _BEAT)
            told, self._told = self._told, _Told()
            room = max(0, AHEAD - len(self._waiting))
            report = Report(room, told.made, told.left, [*told.lines], self._error, self._failure)
        if self._measures is not None:
            self._measures.tell()
        return report

    def close(self) -> None:
        """End the work where nothing is under way, and free what was loaded."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    # -- in the calls ----------------------------------------------------------------------------

    def _read(self, job: Any) -> None:
        found: Job | None = None
        refused: ExecutorError | None = None
        try:
            found = ray.get(job)
        except Exception as error:
            *_, reason = ["", *(line for line in str(error).splitlines() if line.strip())]
            refused = ExecutorError(
                f"{_WHO} cannot read what it is to do ({type(error).__name__}: "
                f"{one_line(reason)}); install there what the process that began the run has"
            )
        with self._changed:
            self._job, self._error = found, refused
            self._changed.notify_all()

    def _has_news(self) -> bool:
        told = self._told
        has_room = len(self._waiting) < AHEAD and not self._are_all
        ended = self._error is not None or self._failure is not None
        return bool(told.made or told.left or has_room or ended)

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        error: AugescError | None = None
        failure: str | None = None
        try:
            self._work()
        except AugescError as met:
            error = met
        except BaseException as met:
            failure = f"{type(met).__name__}: {one_line(str(met))}"
        with self._changed:
            self._error, self._failure = error, failure
            self._changed.notify_all()

    def _work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._job is not None or self._is_closed)
        if self._job is None:
            return
        job = self._job.saying(self._say)
        with closing(job.worker(alone=False)) as worker:
            self._measures = _Measures(worker)
            while self._has_work():
                for number in worker.make(self._numbers(job)):
                    self._note(number)
                self._let_go(job)

    def _has_work(self) -> bool:
        """Wait until there is work; give ``False`` where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return not self._is_closed

    def _numbers(self, job: Job) -> Iterator[int]:
        """Yield numbers as the worker has room for their rows."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting or self._are_all or self._is_closed, _PATIENCE
                )
                if not self._waiting or self._is_closed:
                    return
                number = self._waiting.popleft()
                self._taken[number] = None
                self._changed.notify_all()
            if job.is_done(number):
                self._note(number)
            else:
                yield number

    def _note(self, number: int) -> None:
        """Note a shard that has its mark."""
        with self._changed:
            if number in self._taken:
                del self._taken[number]
                self._told.made.append(number)
                self._changed.notify_all()

    def _let_go(self, job: Job) -> None:
        """Note what the worker left off, as others had finished what it was at."""
        for number in list(self._taken):
            if job.is_done(number):
                self._note(number)
                continue
            with self._changed:
                del self._taken[number]
                self._told.left.append(number)
                self._changed.notify_all()

    def _say(self, text: str) -> None:
        with self._changed:
            self._told.lines.append(one_line(f"{platform.node()}: {text.strip()}"))

    def _warn(self, message: Warning | str, *_: Any, **__: Any) -> None:
        self._say(str(message))


class _Measures:
    """What a worker says of itself, as metrics of Ray: its dashboard shows them by GPU."""

    def __init__(self, worker: Worker) -> None:
        gpus = ray.get_gpu_ids()
        tags = {
            "worker": f"{one_line(platform.node(), 60)}/{os.getpid()}",
            "gpu": ",".join(map(str, gpus)) or "none",
        }
        self._worker = worker
        self._gauges: dict[str, Gauge] = {}
        for name, about in _MEASURES.items():
            gauge = Gauge(f"augesc_{name}", about, ("stage", *tags))
            gauge.set_default_tags(tags)
            self._gauges[name] = gauge

    def tell(self) -> None:
        """Hand them to Ray."""
        status = self._worker.status()
        if status is None:
            return
        for name, gauge in self._gauges.items():
            value = getattr(status, name)
            if value is not None:
                gauge.set(value, {"stage": status.stage})


_MEASURES = {
    "tokens_a_second": "Tokens made a second, lately.",
    "slots_in_use": "Share of the slot steps that made a token.",
    "tokens": "Tokens made.",
    "rows": "Rows made.",
    "shards": "Shards made.",
    "kept": "Rows that met every requirement.",
    "judged": "Rows that were judged.",
}
"""Metrics by the names of what they are in a worker's status."""
