"""What an executor is given, and what it gives: shards in, finished marks out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

from augesc_builder.run.heartbeat import WorkerStatus


class Worker(Protocol):
    """Makes shards in one process. What is dear, such as a model, is loaded once."""

    def make(self, numbers: Iterator[int]) -> Iterator[int]:
        """Make shards; yield the number of each when its mark is there, whoever created that.

        Numbers are asked for as there is room for their rows, and never more ahead than that.
        """

    def status(self) -> WorkerStatus | None:
        """Return what it says of itself now; ``None`` where it is alone and says nothing."""

    def close(self) -> None:
        """Free what was loaded."""


class Job(Protocol):
    """The shards of a stage of one run. It is pickled where workers are elsewhere."""

    @property
    def stage(self) -> str:
        """The name of the stage."""

    @property
    def n_shards(self) -> int:
        """How many shards there are."""

    @property
    def gpus(self) -> int:
        """How many GPUs a worker computes on, where there are any; 0: it has no use for one."""

    @property
    def say(self) -> Callable[[str], object]:
        """What is told a line for the user; a job that was pickled tells nobody."""

    def saying(self, say: Callable[[str], object]) -> Job:
        """Return the job with another to be told."""

    def missing(self) -> Iterator[int]:
        """Yield the numbers of shards that have no mark, asked of the marks one by one."""

    def is_done(self, number: int) -> bool:
        """Whether a shard has its mark."""

    def worker(self, *, alone: bool) -> Worker:
        """Make a worker in this process; one that is ``alone`` may use the whole machine.

        Raises :class:`~augesc_builder.errors.RunFolderError` where the run's folder is another's by
        now, or the packages here are not those of the process that made the job.
        """


class Executor(ABC):
    """Finds processes for workers, and numbers of shards for them."""

    joins: bool = False
    """Whether this process is one of several that are equal, none of which owns the run."""

    alone: bool = False
    """Whether the one worker is in this process, which hears of every row."""

    def check(self) -> None:  # noqa: B027 - most have nothing to look at
        """Refuse what is not there, before anything is made.

        Raises :class:`~augesc_builder.errors.ExecutorError`.
        """

    @abstractmethod
    def run(self, job: Job) -> Iterator[int]:
        """Have all missing shards made; yield the number of each as its mark is found.

        When it ends without an error, every shard of the job has its mark.
        """
