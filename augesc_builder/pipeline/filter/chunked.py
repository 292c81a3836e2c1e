"""Jobs over files of rows, whose shards are chunks: judging generations, scanning sessions."""

from __future__ import annotations

import platform
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from augesc_builder.pipeline.filter.parts import Parts, Reading
from augesc_builder.readers.chunks import Chunk
from augesc_builder.run.shared import SharedRun, TellingWorker
from augesc_builder.run.workers import ordered_map

Found = TypeVar("Found", bound=Sized)


def _deaf(_: Any) -> None:
    pass


@dataclass(frozen=True)
class ChunkedJob(SharedRun, Generic[Found]):
    """What a worker needs to know, in whatever process; ``watch`` stays in this one.

    ``watch`` is given what came of each chunk, as long as its rows.
    """

    parts: Parts
    num_proc: int = field(default=1, kw_only=True)
    """How many processes a worker has that is alone."""
    watch: Callable[[Found], object] = field(default=_deaf, compare=False, kw_only=True)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"watch": _deaf}

    @property
    @abstractmethod
    def function(self) -> Callable[[Any], Found]:
        """What is called with a piece of work, in other processes too."""

    def work(self, number: int, chunks: Iterator[Chunk]) -> Iterator[Any]:
        """Yield a piece of work for each chunk of a shard."""
        yield from chunks

    @abstractmethod
    def write(self, number: int, found: Sequence[Found]) -> None:
        """Write what came of the chunks of a shard."""

    def worker(self, *, alone: bool) -> ChunkedWorker[Found]:
        """Make a worker in this process.

        Raises :class:`~augesc_builder.errors.ExecutorError` where this machine lacks something.
        """
        if not alone:
            self.check_worker(self.parts.files[:1])
        return ChunkedWorker(self, alone=alone)


class ChunkedWorker(TellingWorker, Generic[Found]):
    """Makes shards; alone, in as many processes as the machine has cores, which share chunks."""

    def __init__(self, job: ChunkedJob[Found], *, alone: bool) -> None:
        self._job, self._alone = job, alone
        self._reading = Reading(job.parts)
        self._results: Iterator[Found] = iter(())
        super().__init__(job, platform.machine(), alone=alone)

    def close(self) -> None:
        """End the processes, and say how the work ended."""
        if isinstance(self._results, Generator):
            self._results.close()
        super().close()

    # -- inside ----------------------------------------------------------------------------------

    def _make(self, numbers: Iterator[int]) -> Iterator[int]:
        taken: deque[tuple[int, int]] = deque()  # numbers of shards, and how many chunks they have
        self._results = ordered_map(
            self._job.function,
            self._work(numbers, taken),
            self._job.num_proc if self._alone else 1,
            preload="augesc_builder.pipeline.filter.filter",
        )
        found: list[Found] = []
        for part in self._results:
            self._job.watch(part)
            if self.telling is not None:
                self.telling.step(len(part), 0, None)
            found.append(part)
            yield from _made(taken)
            number, n_chunks = taken[0]
            if len(found) == n_chunks:
                self._write(number, found)
                found = []
                taken.popleft()
                yield number
        yield from _made(taken)

    def _work(self, numbers: Iterator[int], taken: deque[tuple[int, int]]) -> Iterator[Any]:
        """Yield the work of one shard after the other, which are noted in ``taken``.

        One that others have made meanwhile has none.
        """
        for number in numbers:
            is_done = self._job.is_done(number)
            taken.append((number, 0 if is_done else self._job.parts.n_chunks_of(number)))
            if not is_done:
                yield from self._job.work(number, self._reading.chunks(number))

    def _write(self, number: int, found: Sequence[Found]) -> None:
        if not self._alone:
            self._job.check_run()
        self._job.write(number, found)
        self.count()


def _made(taken: deque[tuple[int, int]]) -> Iterator[int]:
    """Yield the shards in front that have no chunk to be looked at."""
    while taken and not taken[0][1]:
        yield taken.popleft()[0]
