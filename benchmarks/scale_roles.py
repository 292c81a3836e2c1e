"""What the processes of ``scale.py`` do: a worker, a driver, or whoever asks for the status."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.config.recipe import load_recipe
from augesc_builder.executors import executor_of
from augesc_builder.executors.base import Executor
from augesc_builder.run.disk import sync
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.shards import Shards
from augesc_builder.run.shared import ShardwiseJob
from augesc_builder.run.status import overview
from benchmarks.harness import own_peak

STAGE, TABLE = "generate", "generations/generations"
ROWS = pa.table({"a": [1]})


@dataclass(frozen=True)
class Instant:
    """Makes shards of one row in no time."""

    folder: Path
    n_shards: int

    def __call__(self) -> Callable[[Shards, int], None]:
        """Be ready."""
        return self.make

    def make(self, shards: Shards, number: int) -> None:
        """Write a shard, and now and then what memory this process has taken."""
        shards.add_shard(STAGE, number, self.n_shards, {TABLE: ROWS})
        if number % 100 == 0 or number + 1 == self.n_shards:
            self.folder.with_name("worker").write_text(str(own_peak()))


def begin(folder: Path) -> None:
    """Begin the run that shards are made for."""
    with RunFolder(folder, {"stage": STAGE}) as run:
        run.keep("recipe.yaml", "x")


def chosen(name: str) -> Executor:
    """Return the executor of that name, as a recipe would."""
    return executor_of(load_recipe("tiny", settings_of(name)).executor)


def settings_of(executor: str) -> list[str]:
    """Return how a recipe names an executor; of Ray a cluster is begun for it."""
    return [f"executor.type={executor}", *(["executor.address=local"] * (executor == "ray"))]


def make(folder: Path, n_shards: int, executor: str) -> None:
    """Make all shards."""
    run_id = read_manifest(folder)["run_id"]
    maker = Instant(folder, n_shards)
    job = ShardwiseJob(folder, run_id, STAGE, n_shards, {}, maker=maker)
    for _ in chosen(executor).run(job):
        pass


def loop(folder: Path, n_shards: int, _: str) -> None:
    """Write the same files, and nothing that tells of them."""
    for number in range(n_shards):
        path = folder / f"{number}.parquet"
        pq.write_table(ROWS, path)
        sync(path)


def ask(folder: Path, _: int, __: str) -> None:
    """Ask for the status."""
    overview(folder)


def nothing(_: Path, __: int, ___: str) -> None:
    """Only have all imported."""


ROLES = {"make": make, "loop": loop, "ask": ask, "nothing": nothing}


def main() -> None:
    """Do what the command line says; print the seconds, and the peak of memory."""
    role, folder, n_shards, executor = sys.argv[1:]
    begun = time.perf_counter()
    ROLES[role](Path(folder), int(n_shards), executor)
    print(json.dumps({"seconds": time.perf_counter() - begun, "peak": own_peak()}))
