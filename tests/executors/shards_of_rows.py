"""A job whose shards are a row each, for executors in whatever process."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.shared import ShardwiseJob

STAGE, TABLE = "generate", "generations/generations"

HOSTILE = "\x1b[31mred\r\nsecond line"


@dataclass(frozen=True)
class Maker:
    """Makes a shard in so many seconds; each of the first ``deadly`` kills its process once."""

    folder: Path
    n_shards: int
    seconds: float = 0.0
    deadly: int = 0

    def __call__(self):
        self.folder.with_name(f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()
        return self.make

    def make(self, shards, number):
        if number < self.deadly:
            try:
                self.folder.with_name(f"killed-by-{number}").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        row = pa.table({"row": [number], "pid": [os.getpid()]})
        shards.add_shard(STAGE, number, self.n_shards, {TABLE: row})


class Broken(Maker):
    """Makes none."""

    def make(self, shards, number):
        raise ValueError(f"of {number}: {HOSTILE}")


class Warned(Maker):
    """Has something to say."""

    def make(self, shards, number):
        warnings.warn(HOSTILE, stacklevel=1)
        super().make(shards, number)


class Unreadable(Maker):
    """Can be pickled, and not read."""

    def __reduce__(self):
        return __import__, ("no_such_module_of_augesc",)


def job_at(folder, n_shards, kind=Maker, *given, **options):
    """Give a job at a run, which is begun where there is none."""
    if not folder.exists():
        with RunFolder(folder, {"seed": 1}) as run:
            run.keep("recipe.yaml", "x")
    run_id, maker = read_manifest(folder)["run_id"], kind(folder, n_shards, *given)
    return ShardwiseJob(folder, run_id, STAGE, n_shards, {}, maker=maker, **options)


def drive():
    """Drive a job on Ray: ADDRESS FOLDER N_SHARDS SECONDS DEADLY, each shard paced by a line."""
    from augesc_builder.executors.ray import RayExecutor

    address, folder, *numbers = sys.argv[1:]
    n_shards, seconds, deadly = int(numbers[0]), float(numbers[1]), int(numbers[2])
    job = job_at(Path(folder), n_shards, Maker, seconds, deadly, say=print)
    for number in RayExecutor(address).run(job):
        print(number, flush=True)
        sys.stdin.readline()
