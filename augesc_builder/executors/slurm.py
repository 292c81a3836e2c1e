"""The elements of a Slurm array: equal processes, none of which knows of the others.

An element takes every n-th shard by its rank. Then it takes what is left, beginning at a place that
is drawn by its rank: elements that end early help those that are slow, were stopped or never began,
and seldom take the same shard. It ends when every shard has its mark. An element that is put back
in the queue goes on where the marks are; a cancelled one is made up for by the others.

What is submitted stands in :mod:`.batch`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import chain

from augesc_builder.errors import ExecutorError, ShardsLeftError
from augesc_builder.executors.base import Executor, Job


class SlurmElement(Executor):
    """Element ``rank`` of ``size``."""

    joins = True

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def run(self, job: Job) -> Iterator[int]:
        """Make what falls to this element, and help with the rest."""
        numbers = filter(lambda n: not job.is_done(n), self.numbers(job.n_shards))
        first = next(numbers, None)
        if first is None:
            return
        with closing(job.worker(alone=False)) as worker:
            while first is not None:  # a worker leaves off where others have made all it is at
                yield from worker.make(chain([first], numbers))
                first = next(numbers, None)

    def numbers(self, n_shards: int) -> Iterator[int]:
        """Yield the numbers of all shards in the order in which this element would take them."""
        yield from range(self.rank, n_shards, self.size)
        start = random.Random(self.rank).randrange(max(1, n_shards))
        for number in chain(range(start, n_shards), range(start)):
            if number % self.size != self.rank:
                yield number


class SlurmOwner(Executor):
    """The job before the array, and the one behind it: it makes none, and says what is left."""

    def run(self, job: Job) -> Iterator[int]:
        """Yield nothing.

        Raises :class:`~augesc_builder.errors.ShardsLeftError` where shards are left.
        """
        left = sum(1 for _ in job.missing())
        if left:
            raise ShardsLeftError(
                f"{left:,} of {job.n_shards:,} shards of {job.stage} are left: submit the array "
                f"again (the file of `augesc slurm` does), or go on here with --executor local"
            )
        return iter(())


def slurm_executor(environ: Mapping[str, str] | None = None) -> Executor:
    """Return what this process is: an element, where Slurm, or a launcher, says which.

    Raises :class:`~augesc_builder.errors.ExecutorError` for numbers that are none.
    """
    environ = os.environ if environ is None else environ
    if "SLURM_ARRAY_TASK_ID" in environ:
        first = _number(environ, "SLURM_ARRAY_TASK_MIN", 0)
        rank = _number(environ, "SLURM_ARRAY_TASK_ID", 0) - first
        size = _number(environ, "SLURM_ARRAY_TASK_MAX", 0) - first + 1
        if _number(environ, "SLURM_ARRAY_TASK_STEP", 1) != 1:
            raise ExecutorError("--array with a step: give a range without, such as 0-15")
    elif "AUGESC_RANK" in environ:
        rank, size = _number(environ, "AUGESC_RANK", 0), _number(environ, "AUGESC_WORLD_SIZE", 1)
    else:
        return SlurmOwner()
    if not 0 <= rank < size:
        raise ExecutorError(f"rank {rank} of {size} workers; expected 0 to {size - 1}")
    return SlurmElement(rank, size)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(1 << 31))):
        raise ExecutorError(f"{name}={text[:40]!r} in the environment: expected a whole number")
    return int(text)
