"""One worker in this process, which uses all of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from augesc_builder.executors.base import Executor, Job


class LocalExecutor(Executor):
    """Makes all shards here.

    How many processes there are, and what each of them does, is the worker's: cores share rows, and
    not shards, so that none of them waits for the end of another's.
    """

    alone = True

    def run(self, job: Job) -> Iterator[int]:
        """Make what is missing, and nothing where nothing is."""
        missing = job.missing()
        first = next(missing, None)
        if first is None:
            return
        with closing(job.worker(alone=True)) as worker:
            yield from worker.make(_behind(first, missing))


def _behind(first: int, others: Iterator[int]) -> Iterator[int]:
    yield first
    yield from others
