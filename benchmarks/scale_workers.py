"""Two workers against one, under each executor, with a real model: rows an hour, and ratios.

Each contestant makes the same rows, and the times of their marks tell the rest. The time of a row
is the slope of a line through these times, from the row on from which all workers are surely at
work. So loading the model, which every worker does once, and beginning a cluster do not count, and
stand in columns of their own; and since the slots of a worker may end together, a line says more
than its two ends do. Contestants take turns. Elements of Slurm are submitted where a cluster can be
reached, and else begun as another launcher would. Slots are few, so that the end, where some of
them are empty, is a small part.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.executors import executor_of
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.marks import named
from augesc_builder.run.progress import Progress
from benchmarks.scale_roles import settings_of

ROOT = Path(__file__).parent.parent

TINY = {"recipe": "tiny", "rows": [2, 8], "slots": 2, "tokens": 24}

_RUN = "from benchmarks.scale_workers import worker; worker()"


def table(given: argparse.Namespace, folder: Path) -> str:
    """Return the table; where no checkpoint is given, one is made first."""
    checkpoint = (given.checkpoint or _trained(given, folder)).absolute()
    workers = {"one worker": ("local", 1)} | {f"{e}, two": (e, 2) for e in given.executors}
    found: dict[str, list[list[float]]] = {label: [] for label in workers}
    for _ in range(given.runs):
        for label, (executor, n) in workers.items():
            found[label].append(_marked(given, folder, checkpoint, executor, n))
    few, many = given.rows
    each = {label: statistics.median(map(partial(_slope, few), found[label])) for label in workers}
    first = f"{given.executors[0]}, two"
    lines = [
        [
            label,
            f"{statistics.median(times[few - 1] for times in found[label]):.1f}",
            f"{statistics.median(times[-1] for times in found[label]):.1f}",
            f"{each[label]:.3f}",
            " / ".join(f"{_slope(few, times):.3f}" for times in found[label]),
            f"{each['one worker'] / each[label]:.2f}",
            f"{each[first] / each[label]:.3f}",
        ]
        for label in workers
    ]
    header = ["workers", f"{few} rows, s", f"{many} rows, s", "s a row", "of each run", "times one"]
    return markdown_table([*header, f"times {given.executors[0]}"], lines)


def worker() -> None:
    """Make what falls to this process; the environment says which of several it is."""
    from augesc_builder.pipeline.generate.driving import job_of
    from augesc_builder.pipeline.generate.job import Watch
    from augesc_builder.pipeline.generate.order import Order
    from augesc_builder.pipeline.inputs import run_settings
    from augesc_builder.run.folder import join

    folder, checkpoint, *given = sys.argv[1:]
    recipe = load_recipe(given[0], given[1:])
    shards = join(Path(folder), run_settings(recipe), print)
    queries = named(shards.use("queries", "queries"), "queries")
    order = Order(queries, recipe.generate, checked=False)
    about = "generations/generations", order, order.n_tasks, Watch()
    job = job_of(shards, recipe, queries, Path(checkpoint), *about)
    for _ in executor_of(recipe.executor).run(job):
        pass


# -- inside ----------------------------------------------------------------------------------------


def _slope(few: int, times: list[float]) -> float:
    """Return the seconds of a row once so few are there: the slope of the line through the rest."""
    return statistics.linear_regression(range(len(times) - few + 1), times[few - 1 :]).slope


def _marked(
    given: argparse.Namespace, folder: Path, checkpoint: Path, executor: str, n: int
) -> list[float]:
    """Have rows made in a new folder; return the seconds until each of them is there."""
    rows = given.rows[1]
    settings = [
        *(f"queries.max_per_source={rows}", "generate.samples_per_query=1"),
        *(f"generate.max_tokens={given.tokens}", "generate.shard_size=1"),
        *(f"generate.backend.slots={given.slots}", f"generate.backend.workers={n}"),
        *settings_of(executor),
    ]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Path(name) / "run"
        _build(load_recipe(given.recipe, settings), run, "queries")
        command = [sys.executable, "-c", _RUN, str(run), str(checkpoint), given.recipe, *settings]
        begun = time.time()
        _carry_out(command, executor, n, Path(name))
        marks = list((run / ".complete").glob("generate-*.json"))
        if len(marks) != rows:
            raise SystemExit(f"{executor}: {len(marks)} of {rows} rows are there")
        return sorted(mark.stat().st_mtime - begun for mark in marks)


def _carry_out(command: list[str], executor: str, n: int, folder: Path) -> None:
    """Run a command by one process, or by elements of an array."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = partial(subprocess.Popen, cwd=folder, stdout=subprocess.DEVNULL)
    if executor == "slurm" and _is_cluster():
        wrapped = ["#!/bin/bash", f"exec {shlex.join(command)}"]
        (folder / "batch").write_text("\n".join(wrapped) + "\n")
        submit = ["sbatch", "--wait", f"--array=0-{n - 1}", "--output=log-%a", "batch"]
        processes = [run(submit, env=environ)]
    elif executor == "slurm":
        ranks = [{"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": str(n)} for rank in range(n)]
        processes = [run(command, env=environ | rank) for rank in ranks]
    else:
        processes = [run(command, env=environ)]
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)


def _is_cluster() -> bool:
    """Whether a Slurm can be reached."""
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0


def _trained(given: argparse.Namespace, folder: Path) -> Path:
    few = ["finetune.n_sessions=8", "finetune.epochs=1"] if given.tiny else []
    _build(load_recipe(given.recipe, few), folder / "trained", "finetune")
    return folder / "trained" / "checkpoint"


def _build(recipe: Recipe, folder: Path, until: str) -> None:
    from augesc_builder.pipeline.build import build

    recipe = recipe.model_copy(update={"executor": load_recipe("tiny").executor})
    build(recipe, folder, Progress(quiet=True), until=until)
