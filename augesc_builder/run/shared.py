"""Shards of a run as a job for workers: what every stage's job knows of its run."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from augesc_builder.errors import ExecutorError, RunFolderError
from augesc_builder.run.copies import opened, place_of
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.heartbeat import WorkerStatus
from augesc_builder.run.shards import Shards
from augesc_builder.run.telling import Telling
from augesc_builder.run.versions import check_same, fingerprint


def _silent(_: str) -> None:
    pass


J = TypeVar("J", bound="SharedRun")


def _moved(value: Any, there: Path, here: Path) -> Any:
    """Return the same with paths below one folder below the other."""
    if isinstance(value, tuple):
        return tuple(_moved(each, there, here) for each in value)
    if isinstance(value, Path) and value.is_relative_to(there):
        return here / value.relative_to(there)
    return value


@dataclass(frozen=True)
class SharedRun:
    """A run whose shards are made by several: a job's half that has to do with the folder.

    It is pickled where workers are elsewhere; ``say``, which is told what was set aside, stays
    here. ``inputs`` has the digests of the stages that shards are made from.
    """

    folder: Path
    run_id: str
    stage: str
    n_shards: int
    inputs: Mapping[str, str]
    made_with: Mapping[str, str] = field(default_factory=fingerprint, kw_only=True)
    say: Callable[[str], object] = field(default=_silent, compare=False, kw_only=True)

    def __getstate__(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return found | {"say": _silent, "address": place_of(self.folder).address}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the working copy of this machine where the run is at an address."""
        address, there = state.pop("address"), state["folder"]
        if address is not None:
            here = opened(address)
            state = {name: _moved(value, there, here) for name, value in state.items()}
        vars(self).update(state)

    @property
    def gpus(self) -> int:
        """How many GPUs a worker computes on, where there are any."""
        return 0

    def saying(self: J, say: Callable[[str], object]) -> J:
        """Return the job with another to be told what a user should hear."""
        return replace(self, say=say)

    @cached_property
    def shards(self) -> Shards:
        """Return the store that shards go to."""
        found = Shards(self.folder, self.say)
        found.made_from(self.inputs)
        return found

    def missing(self) -> Iterator[int]:
        """Yield the numbers of shards that have no mark."""
        return self.shards.shards(self.stage, self.n_shards)

    def is_done(self, number: int) -> bool:
        """Whether a shard has its mark."""
        return self.shards.has_shard(self.stage, number)

    def check_worker(self, needed: Iterable[Path] = ()) -> None:
        """Refuse this process as a worker that lacks something the one that began has.

        Raises :class:`~augesc_builder.errors.ExecutorError` for other packages or code, and where
        one of the ``needed`` files is not seen from here.
        """
        here = platform.node()
        check_same(self.made_with, fingerprint(), f"the worker on {here}")
        needed = list(needed)

        def is_needed(name: str) -> bool:
            return any((self.folder / name).is_relative_to(path) for path in needed)

        for stage in self.inputs:
            self.shards.place.bring(stage, None, is_needed)
        for path in needed:
            if not path.exists():
                raise ExecutorError(
                    f"{path}: not there for the worker on {here}; put the run's folder on a "
                    f"disk that all workers see, under the same path"
                )
        self.check_run()

    def check_run(self) -> None:
        """Refuse a folder that is another run's by now."""
        place_of(self.folder).check_manifest()
        if read_manifest(self.folder).get("run_id") != self.run_id:
            raise RunFolderError(f"{self.folder}: another run has begun there; nothing is written")


@dataclass(frozen=True)
class ShardwiseJob(SharedRun):
    """A job whose shards are made one by one, each by itself, such as those of ``filter``.

    ``maker`` is called once in each worker, with nothing, for what makes a shard; that is called
    with the store and a number, writes the shard there, and has nothing to give. ``needed`` are
    files that every worker has to see.
    """

    maker: Callable[[], Callable[[Shards, int], object]]
    needed: tuple[Path, ...] = ()

    def worker(self, *, alone: bool) -> ShardwiseWorker:
        """Make a worker in this process."""
        if not alone:
            self.check_worker(self.needed)
        return ShardwiseWorker(self, alone=alone)


class TellingWorker(ABC):
    """A worker that says what it makes, for ``augesc status``, unless it is alone.

    ``device`` is what it computes on. Whoever derives from it begins this last: what cannot be
    made is never closed, and would be said to be at work for as long as its process is there.
    """

    def __init__(self, job: SharedRun, device: str, *, alone: bool) -> None:
        told = job.folder, job.stage, job.n_shards, device
        self.telling = None if alone else Telling(*told)

    def make(self, numbers: Iterator[int]) -> Iterator[int]:
        """Make shards; yield the number of each as its mark is there."""
        if self.telling is None:
            yield from self._make(numbers)
            return
        with self.telling.errors():
            yield from self._make(numbers)

    def status(self) -> WorkerStatus | None:
        """Return what it says of itself."""
        return None if self.telling is None else self.telling.status("running")

    def close(self) -> None:
        """Free what was loaded, and say how it ended."""
        if self.telling is not None:
            self.telling.end()

    def count(self) -> None:
        """Count a shard that was made here."""
        if self.telling is not None:
            self.telling.made()

    @abstractmethod
    def _make(self, numbers: Iterator[int]) -> Iterator[int]: ...


class ShardwiseWorker(TellingWorker):
    """Makes one shard after the other."""

    def __init__(self, job: ShardwiseJob, *, alone: bool) -> None:
        self._job, self._maker = job, job.maker()
        super().__init__(job, platform.machine(), alone=alone)

    def _make(self, numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            if not self._job.is_done(number):
                self._job.check_run()
                self._maker(self._job.shards, number)
                self.count()
            yield number
