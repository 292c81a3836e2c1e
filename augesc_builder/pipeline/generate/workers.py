"""Who generates: this process, or several that each have a model of their own.

Every GPU has a process of its own. On CPU processes with one thread each are used, not one with
several: beside any other load, threads wait for each other at every small operation
(``benchmarks/generation.py --processes`` compares). A row is the same whoever makes it: as many
slots everywhere, and one thread for models below 1 GB.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.tensor_parallel import process_group
from augesc_builder.errors import AugescError, RunFolderError
from augesc_builder.pipeline.generate.backends.local import Generator
from augesc_builder.pipeline.generate.capacity import _threads
from augesc_builder.pipeline.generate.tasks import Place, Row, Task
from augesc_builder.run.workers import block_sigint, exit_with_parent

Shards = Sequence[tuple[int, Sequence[Task]]]

OnStep = Callable[[int, int, float | None], None]
"""Called with ``(rows finished, tokens made, utilisation of the slots)``."""


_PATIENCE = 1.0
"""Seconds after which the processes are looked at when none says a word."""

_EVERY = 0.5
"""Seconds between two words of a worker about its progress."""


def generate(
    checkpoint: Path, recipe: Recipe, slots: int, shards: Shards, on_step: OnStep, n: int
) -> Iterator[tuple[Place, Row]]:
    """Generate the tasks of numbered shards in ``n`` processes; give rows as they end."""
    if n > 1:
        yield from _in_processes(checkpoint, recipe, slots, shards, on_step, n)
        return
    with _threads(checkpoint):
        generator = Generator(checkpoint, recipe, slots)
        yield from generator.stream(
            shards, lambda ended, made: on_step(ended, made, generator.utilisation)
        )


def _in_processes(
    checkpoint: Path, recipe: Recipe, slots: int, shards: Shards, on_step: OnStep, n: int
) -> Iterator[tuple[Place, Row]]:
    """Let processes take shard after shard from one list, or all of them together each shard."""
    context = multiprocessing.get_context("spawn")
    together = recipe.generate.tensor_parallel > 1
    todo, news = [context.Queue() for _ in range(n if together else 1)], context.Queue()
    for each in todo:
        each.cancel_join_thread()  # where a run ends early nobody reads the rest
        for shard in shards:
            each.put(shard)
        for _ in range(n // len(todo)):
            each.put(None)
    with tempfile.TemporaryDirectory() as folder:
        given = (checkpoint, recipe, slots, news, os.getpid(), Path(folder) / "meeting")
        workers = [
            context.Process(target=_work, args=(i, todo[i % len(todo)], *given), daemon=True)
            for i in range(n)
        ]
        with block_sigint():
            for worker in workers:
                worker.start()
        yield from _listen(news, workers, on_step)


def _listen(news: Any, workers: Sequence[Any], on_step: OnStep) -> Iterator[tuple[Place, Row]]:
    """Give rows as they come, until all processes are done."""
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
        for worker in workers:
            worker.terminate()
            worker.join()


def _next_word(news: Any, workers: Sequence[Any]) -> tuple[Any, ...]:
    """Wait for a word; where a process has died, give what was said before, and then raise."""
    while True:
        codes = [worker.exitcode for worker in workers if worker.exitcode]
        with contextlib.suppress(queue.Empty):
            return tuple(news.get(timeout=0 if codes else _PATIENCE))
        if any(code < 0 for code in codes):
            raise RunFolderError(
                "a process that generated was killed, most likely for want of memory; try again "
                "with --set generate.workers=1, or fewer generate.slots"
            )
        if codes:
            raise RunFolderError(
                "a process that generated failed, and what it failed by stands above; the plain "
                "loop may do: --set generate.engine=simple"
            )


def _work(
    number: int,
    todo: Any,
    checkpoint: Path,
    recipe: Recipe,
    slots: int,
    news: Any,
    parent: int,
    meeting: Path,
) -> None:
    """Generate the shards of a list; of processes that share a model, only the first tells."""
    exit_with_parent(parent)
    parts = recipe.generate.tensor_parallel
    tells = parts == 1 or number == 0
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    counts = [0, 0]
    told = time.monotonic()

    def on_step(ended: int, made: int, utilisation: float | None) -> None:
        nonlocal told
        counts[0] += ended
        counts[1] += made
        if tells and time.monotonic() - told > _EVERY:
            news.put(("step", *counts, utilisation))
            counts[:] = [0, 0]
            told = time.monotonic()

    try:
        with (
            _threads(checkpoint),
            process_group(number, parts, meeting) if parts > 1 else contextlib.nullcontext(),
        ):
            generator = Generator(checkpoint, recipe, slots)
            shards = iter(todo.get, None)
            for place, row in generator.stream(
                shards, lambda ended, made: on_step(ended, made, generator.utilisation)
            ):
                if tells:
                    news.put(("rows", [(place, row)]))
        if tells:
            news.put(("step", *counts, generator.utilisation))
        news.put(("done",))
    except AugescError as error:
        news.put(("error", error))
