"""Actors of a Ray cluster, one a GPU, or one a core: the driver gives numbers of shards to each.

What is under way is one call an actor, and a few numbers: those that it is at, and those that wait
for room there. All else is asked of the marks, so the driver may be killed at any time and begun
anew. What died is restarted by Ray, on another node where there is one; the shards it was at are
given to whoever has room. New nodes are used as they join; from one that is drained an actor leaves
when it has finished what it has. An actor that has nothing left to do makes a shard that another is
at: that one may be slow, or stopped, and one of the two is first.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from augesc_builder.errors import ExecutorError
from augesc_builder.executors.base import Executor, Job
from augesc_builder.executors.ray_cluster import (
    Needs,
    check_address,
    connected,
    draining,
    needs,
    places,
)
from augesc_builder.executors.ray_worker import AHEAD, RayWorker, Report
from augesc_builder.run.heartbeat import one_line
from augesc_builder.run.versions import fingerprint

_LOOK = 5.0
"""Seconds between two looks at the nodes of the cluster."""

_PAUSE = 0.2
"""Seconds between two looks at the clock while there is nobody to hear from."""

_PARTING = 10.0
"""Seconds that workers have to end at the end of the run."""

_DEATHS = 20
"""Deaths of workers, for each there is, between which no shard is finished: then the run ends.
A row that ends its worker takes thirteen at most until it is given up."""


class RayExecutor(Executor):
    """Has shards made by the workers of the cluster at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def check(self) -> None:
        """Refuse an address with no cluster, within seconds."""
        check_address(self.address)

    def run(self, job: Job) -> Iterator[int]:
        """Have what is missing made; reach no cluster where nothing is."""
        missing = job.missing()
        first = next(missing, None)
        if first is None:
            return
        with connected(self.address):
            yield from _Driver(job, chain([first], missing)).run()


class _Seat:
    """An actor, and what it is at."""

    def __init__(self, actor: Any, needs: Needs) -> None:
        self.actor, self.needs = actor, needs
        self.given: set[int] = set()
        self.room = AHEAD
        self.node: str | None = None
        """Where it is; ``None``: nowhere yet, or not again yet."""
        self.call: Any = actor.node.remote()
        """What is waited for, if anything is."""

    def is_away(self) -> None:
        """Note that it is gone; Ray restarts it."""
        self.given, self.room, self.node = set(), AHEAD, None


class _Driver:
    """Keeps every actor supplied. It holds as many numbers as are under way, and no more."""

    def __init__(self, job: Job, missing: Iterator[int]) -> None:
        self._job, self._missing = job, missing
        self._are_all = False
        """Whether every missing shard was given to somebody."""
        self._seats: list[_Seat] = []
        self._under_way: dict[int, None] = {}
        """Numbers that were given, in that order."""
        self._again: deque[int] = deque()
        self._deaths = 0
        self._needs: Needs = ("CPU", 1)
        self._draining: set[str] = set()
        self._looked: float | None = None
        self._shared = [ray.put(job)]

    def run(self) -> Iterator[int]:
        """Yield the numbers of shards as their marks are there."""
        try:
            while not self._are_all or self._again or self._under_way:
                self._look()
                for seat in self._seats:
                    if seat.call is None and seat.node is not None:
                        self._supply(seat)
                calls = {seat.call: seat for seat in self._seats if seat.call is not None}
                if not calls:  # all are being restarted
                    time.sleep(_PAUSE)
                    continue
                for call in ray.wait([*calls], timeout=_LOOK)[0]:
                    yield from self._hear(calls[call])
        finally:
            self._dismiss(self._seats)

    # -- actors ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Have as many actors as the cluster has room for, every few seconds."""
        if self._looked is not None and time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        nodes, self._draining = ray.nodes(), draining()
        if self._needs[0] == "CPU":  # GPUs may join, and are not given up for cores again
            self._needs = needs(nodes, self._job.gpus)
        # One waits where there is room for none: a cluster that grows does so for who waits.
        wanted = max(1, places(nodes, self._draining, self._needs))
        staying = [seat for seat in self._seats if not self._leaves(seat)]
        nowhere = [seat for seat in staying if seat.node is None]
        gone = nowhere[: max(0, len(staying) - wanted)]
        gone += [s for s in self._seats if self._leaves(s) and not s.given]
        for seat in gone:
            self._seats.remove(seat)
        self._dismiss(gone)
        kind, n = self._needs
        options = {"num_gpus": n, "num_cpus": 0} if kind == "GPU" else {"num_cpus": n}
        actor = ray.remote(RayWorker).options(max_restarts=-1, **options)
        for seat in self._seats:
            if seat.call is None and seat.node is None:
                seat.call = seat.actor.node.remote()
        for _ in range(wanted - len(staying)):
            self._seats.append(_Seat(actor.remote(fingerprint()), self._needs))

    def _leaves(self, seat: _Seat) -> bool:
        """Whether an actor gets no more, as its node is drained, or it has no GPU and might."""
        return seat.node in self._draining or seat.needs != self._needs

    def _dismiss(self, seats: list[_Seat]) -> None:
        """End actors: those that are at nothing in their own time, and others as they are."""
        idle = [seat.actor.close.remote() for seat in seats if not seat.given and seat.node]
        if idle:
            ray.wait(idle, num_returns=len(idle), timeout=_PARTING)
        for seat in seats:
            ray.kill(seat.actor)

    # -- numbers ---------------------------------------------------------------------------------

    def _supply(self, seat: _Seat) -> None:
        """Give an actor as many numbers as it has room for."""
        is_leaving = self._leaves(seat)
        room = 0 if is_leaving else seat.room
        numbers = list(islice(iter(self._next, None), room))
        if not numbers and not seat.given and not is_leaving:
            numbers = self._of_another()
        for number in numbers:
            self._under_way[number] = None
        seat.given.update(numbers)
        if seat.given:
            seat.call = seat.actor.exchange.remote(
                numbers, is_leaving or len(numbers) < room, self._shared
            )

    def _next(self) -> int | None:
        if self._again:
            return self._again.popleft()
        number = None if self._are_all else next(self._missing, None)
        self._are_all = number is None
        return number

    def _of_another(self) -> list[int]:
        """Return a number that one other actor has; the last given is the least likely begun."""
        makers = Counter(number for seat in self._seats for number in seat.given)
        return [n for n in reversed(self._under_way) if makers[n] == 1][:1]

    def _hear(self, seat: _Seat) -> Iterator[int]:
        """Take what an actor says; yield the shards that have their marks."""
        call, seat.call = seat.call, None
        try:
            said = ray.get(call)
        except ActorUnavailableError as error:
            if seat.node is not None:  # or it is not back yet, and is asked again
                yield from self._lost(seat, _reason(error))
            return
        except RayActorError as error:
            if seat.node is None:  # it never began: Ray does not try again
                raise ExecutorError(f"a worker could not be begun: {_reason(error)}") from error
            yield from self._lost(seat, _reason(error))
            return
        except RayError as error:
            raise ExecutorError(f"Ray failed: {_reason(error)}") from error
        if isinstance(said, Report):
            yield from self._take(seat, said)
        else:
            seat.node = str(said)

    def _take(self, seat: _Seat, report: Report) -> Iterator[int]:
        for line in report.lines:
            self._job.say(f"  {line}")
        if report.error is not None:
            raise report.error
        for number in report.made:
            seat.given.discard(number)
            if number in self._under_way:
                del self._under_way[number]
                self._deaths = 0
                yield number
        left = seat.given.intersection(report.left)
        seat.given -= left
        yield from self._put_back(left)
        seat.room = report.room
        if report.failure is not None:
            ray.kill(seat.actor, no_restart=False)
            yield from self._lost(seat, report.failure)

    def _lost(self, seat: _Seat, reason: str) -> Iterator[int]:
        """Give what an actor was at to others."""
        self._deaths += 1
        if self._deaths > _DEATHS * len(self._seats):
            raise ExecutorError(
                f"{self._deaths} workers have ended one after the other, and none finished a "
                f"shard; the last: {reason}"
            )
        numbers = seat.given
        seat.is_away()
        yield from self._put_back(numbers)

    def _put_back(self, numbers: set[int]) -> Iterator[int]:
        """Have shards made by others, where none is at them; yield those that have their mark."""
        for number in numbers:
            if number not in self._under_way or any(number in s.given for s in self._seats):
                continue
            del self._under_way[number]
            if self._job.is_done(number):
                yield number
            else:
                self._again.append(number)


def _reason(error: Exception) -> str:
    """Return what an error of Ray says, as a line; the cause stands at the end of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(" ".join(lines[:1] + lines[-1:] if len(lines) > 1 else lines))
