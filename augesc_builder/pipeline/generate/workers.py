"""Who generates: this process, or several that each have a model of their own.

A row is the same whoever makes it: as many slots everywhere, and one thread for models below 1 GB.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.tensor_parallel import process_group
from augesc_builder.errors import AugescError, RunFolderError
from augesc_builder.pipeline.generate.backends.base import OnStep
from augesc_builder.pipeline.generate.capacity import settings_of, threads_for
from augesc_builder.pipeline.generate.generator import Generator
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.run.workers import block_sigint, exit_with_parent, lifeline

_PATIENCE = 1.0
"""Seconds after which the processes are looked at when none says a word."""

_EVERY = 0.5
"""Seconds between two words of a worker about its progress."""


def generate(
    checkpoint: Path,
    recipe: Recipe,
    slots: int,
    tasks: Sequence[Task],
    on_step: OnStep,
    n: int,
) -> Iterator[tuple[Task, Row]]:
    """Yield each task with its row as it ends, from ``n`` processes with ``slots`` slots each."""
    if n > 1:
        yield from _in_processes(checkpoint, recipe, slots, tasks, on_step, n)
        return
    with threads_for(checkpoint):
        generator = Generator(checkpoint, recipe, slots)
        yield from generator.stream(
            tasks, lambda ended, made: on_step(ended, made, generator.utilisation)
        )


def _in_processes(
    checkpoint: Path,
    recipe: Recipe,
    slots: int,
    tasks: Sequence[Task],
    on_step: OnStep,
    n: int,
) -> Iterator[tuple[Task, Row]]:
    """Let processes take shard after shard from one list, or all of them together each shard."""
    # Not forked: a process that has used CUDA, or torch's threads, cannot be continued in a copy.
    context = multiprocessing.get_context("spawn")
    # With tensor parallelism every process needs every task; else one list lets a fast process take
    # more shards than a slow one.
    together = settings_of(recipe).tensor_parallel > 1
    todo, news = [context.Queue() for _ in range(n if together else 1)], context.Queue()
    for each in todo:
        each.cancel_join_thread()  # where a run ends early nobody reads the rest
        for _, shard in groupby(tasks, key=lambda task: task.shard):
            each.put(list(shard))
        for _ in range(n // len(todo)):
            each.put(None)
    with tempfile.TemporaryDirectory() as folder, lifeline() as watched:
        given = (checkpoint, recipe, slots, news, watched, Path(folder) / "meeting")
        workers = [
            context.Process(target=_work, args=(i, todo[i % len(todo)], *given), daemon=True)
            for i in range(n)
        ]
        # Ctrl-C reaches the whole group; only this process may answer it, by ending the others.
        with block_sigint():
            for worker in workers:
                worker.start()
        yield from _listen(news, workers, on_step)


def _listen(news: Any, workers: Sequence[Any], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
    """Yield rows as they come, until all processes are done."""
    at_work = len(workers)
    try:
        while at_work:
            kind, *what = _next_word(news, workers)
            if kind == "rows":
                yield from what[0]
            elif kind == "step":
                on_step(*what)
            elif kind == "error":
                raise what[0]
            else:
                at_work -= 1
    finally:
        # After an error the others are in the middle of a step, and nobody would read their rows.
        for worker in workers:
            worker.terminate()
            worker.join()


def _next_word(news: Any, workers: Sequence[Any]) -> tuple[Any, ...]:
    """Wait for a word; where a process has died, give what was said before, and then raise."""
    while True:
        # Looked at before the queue: what a dead worker said last is then surely in there, and is
        # given before its death is told.
        codes = [worker.exitcode for worker in workers if worker.exitcode]
        with contextlib.suppress(queue.Empty):
            return tuple(news.get(timeout=0 if codes else _PATIENCE))
        if any(code < 0 for code in codes):
            raise RunFolderError(
                "a process that generated was killed, most likely out of memory; try again "
                "with --set generate.backend.workers=1, or fewer generate.backend.slots"
            )
        if codes:
            raise RunFolderError(
                "a process that generated failed, and what it failed by stands above; static "
                "batching may do: --set generate.backend.engine=static"
            )


def _work(
    number: int,
    todo: Any,
    checkpoint: Path,
    recipe: Recipe,
    slots: int,
    news: Any,
    watched: Connection,
    meeting: Path,
) -> None:
    """Generate the shards of a list; of processes that share a model, only the first tells."""
    exit_with_parent(watched)
    parts = settings_of(recipe).tensor_parallel
    tells = parts == 1 or number == 0
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    counts = [0, 0]
    told = time.monotonic()

    def on_step(ended: int, made: int, utilisation: float | None) -> None:
        nonlocal told
        counts[0] += ended
        counts[1] += made
        # Not every step: some hundred messages a second would only be drawn over each other.
        if tells and time.monotonic() - told > _EVERY:
            news.put(("step", *counts, utilisation))
            counts[:] = [0, 0]
            told = time.monotonic()

    try:
        with (
            threads_for(checkpoint),
            process_group(number, parts, meeting) if parts > 1 else contextlib.nullcontext(),
        ):
            generator = Generator(checkpoint, recipe, slots)
            tasks = chain.from_iterable(iter(todo.get, None))
            for task, row in generator.stream(
                tasks, lambda ended, made: on_step(ended, made, generator.utilisation)
            ):
                if tells:
                    news.put(("rows", [(task, row)]))
        if tells:
            news.put(("step", *counts, generator.utilisation))
        news.put(("done",))
    except AugescError as error:  # multiprocessing prints any other, and the exit code tells it
        news.put(("error", error))
