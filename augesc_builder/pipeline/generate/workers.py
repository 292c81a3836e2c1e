"""Who generates: this process, or several that each have a model of their own.

A row is the same whoever makes it: all have as many slots and threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.tensor_parallel import process_group
from augesc_builder.errors import AugescError, WorkerDiedError
from augesc_builder.pipeline.generate.backends.base import OnStep
from augesc_builder.pipeline.generate.capacity import settings_of
from augesc_builder.pipeline.generate.generator import Generator
from augesc_builder.pipeline.generate.tasks import Row, Task, batches
from augesc_builder.pipeline.generate.ways import Way
from augesc_builder.run.workers import block_sigint, exit_with_parent, lifeline

_PATIENCE = 1.0
"""Seconds after which the processes are looked at when none says a word."""

_AHEAD = 3
"""Times what a process decodes together: tasks that it has, and that wait for it."""

_EVERY = 0.5
"""Seconds between two words of a worker about its progress."""


class Crew(Protocol):
    """Whoever generates. Models are loaded when they are first needed, and freed by ``close``."""

    size: int

    def rate(self, way: Way, seconds: float) -> float:
        """Return tokens a second of all processes of a way at work at the same time."""

    def stream(
        self, tasks: Iterable[Task], on_step: OnStep, way: Way
    ) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row as it ends."""

    def close(self) -> None:
        """Free the models, and end the processes."""


def crew_of(n: int, checkpoint: Path, recipe: Recipe, slots: int) -> Crew:
    """Return a crew of ``n`` processes with ``slots`` slots each."""
    kind = Alone if n == 1 else Processes
    return kind(n, checkpoint, recipe, slots)


class Alone:
    """The process that asks."""

    def __init__(self, n: int, checkpoint: Path, recipe: Recipe, slots: int) -> None:
        self.size = n
        self._given = checkpoint, recipe, slots
        self._loaded: Generator | None = None

    def rate(self, way: Way, seconds: float) -> float:
        """Return tokens a second."""
        with _threads(way.threads):
            return self._generator().rate(seconds)

    def stream(
        self, tasks: Iterable[Task], on_step: OnStep, way: Way
    ) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row as it ends."""
        with _threads(way.threads):
            generator = self._generator()
            yield from generator.stream(
                tasks, lambda ended, made: on_step(ended, made, generator.utilisation)
            )

    def close(self) -> None:
        """Free the model."""
        self._loaded = None

    def _generator(self) -> Generator:
        if self._loaded is None:
            self._loaded = Generator(*self._given)
        return self._loaded


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Processes:
    """``n`` processes, which load at once and then do what they are told, together.

    An order is the name of what to do and what that needs; ``None`` lets a process go.
    """

    def __init__(self, n: int, checkpoint: Path, recipe: Recipe, slots: int) -> None:
        # Not forked: what has used CUDA, or torch's threads, cannot be continued in a copy.
        context = multiprocessing.get_context("spawn")
        self.size, self._slots, self._ready = n, slots, 0
        # With tensor parallelism every process needs every task; else one list lets a fast process
        # take more than a slow one.
        settings = settings_of(recipe)
        together = settings.tensor_parallel > 1
        self._room = max(slots, settings.batch_size if settings.engine == "static" else 1)
        self._todo = [context.Queue() for _ in range(n if together else 1)]
        for each in self._todo:
            each.cancel_join_thread()  # where a run ends early nobody reads the rest
        self._orders = [context.SimpleQueue() for _ in range(n)]
        self._news = context.Queue()
        self._held = contextlib.ExitStack()
        folder = self._held.enter_context(tempfile.TemporaryDirectory())
        watched = self._held.enter_context(lifeline())
        given = (checkpoint, recipe, slots, self._news, watched, Path(folder) / "meeting")
        self._workers = [
            context.Process(
                target=_work,
                args=(i, n, orders, self._todo[i % len(self._todo)], *given),
                daemon=True,
            )
            for i, orders in enumerate(self._orders)
        ]
        self._listener = Listener(self._news, self._workers)
        # Ctrl-C reaches the whole group; only this process may answer it, by ending the others.
        with block_sigint():
            for worker in self._workers:
                worker.start()

    def rate(self, way: Way, seconds: float) -> float:
        """Return tokens a second of the first ``way.processes`` together, while the others wait."""
        while self._ready < self.size:
            self._hear()
        for orders in self._orders[: way.processes]:
            orders.put(("rate", way.threads, seconds))
        return sum(float(self._hear()[1]) for _ in range(way.processes))

    def stream(
        self, tasks: Iterable[Task], on_step: OnStep, way: Way
    ) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row as it ends, from the first ``way.processes``; then close.

        Tasks are read as they are needed: no process waits for them, and none is far ahead.
        """
        waiting = batches(tasks, self._slots)
        under_way, most = 0, _AHEAD * self._room * way.processes
        is_over = False

        def feed() -> None:
            nonlocal under_way, is_over
            while not is_over and under_way < most:
                some = next(waiting, None)
                is_over = some is None
                under_way += len(some or ())
                for each in self._todo:
                    for _ in range(way.processes // len(self._todo) if some is None else 1):
                        each.put(some)

        feed()
        for i, orders in enumerate(self._orders):
            orders.put(("work", way.threads, None) if i < way.processes else None)
        at_work = way.processes
        try:
            while at_work:
                kind, *what = self._hear()
                if kind == "row":
                    task, row, *step = what
                    under_way -= 1
                    feed()
                    on_step(*step)
                    yield task, row
                elif kind == "step":
                    on_step(*what)
                elif kind == "done":
                    at_work -= 1
        finally:
            # After an error others are in the middle of a step, and nobody would read their rows.
            self.close()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        self._held.close()

    def _hear(self) -> tuple[Any, ...]:
        """Return the next word of a process; raise its error."""
        word = self._listener.next_word()
        if word[0] == "error":
            raise word[1]
        self._ready += word[0] == "ready"
        return word


class Listener:
    """What processes say, word by word, and the death of one of them.

    ``news`` is their queue, ``workers`` are the processes.
    """

    def __init__(self, news: Any, workers: Sequence[Any]) -> None:
        self._news, self._workers = news, workers
        self._until: float | None = None

    def next_word(self) -> tuple[Any, ...]:
        """Wait for a word; where a process has died, give what was said before, and then raise.

        What was said before is given for :data:`_PATIENCE` seconds at most: others may say more
        than there is time to hear, and would keep the death from being told.
        """
        while True:
            # Looked at before the queue: what a dead worker said last is then surely in there.
            codes = [worker.exitcode for worker in self._workers if worker.exitcode]
            if codes and self._until is None:
                self._until = time.monotonic() + _PATIENCE
            if self._until is None or time.monotonic() < self._until:
                with contextlib.suppress(queue.Empty):
                    return tuple(self._news.get(timeout=0 if codes else _PATIENCE))
            if any(code < 0 for code in codes):
                raise WorkerDiedError(
                    "a process that generated was killed, most likely out of memory; try again "
                    "with --set generate.backend.workers=1, or fewer generate.backend.slots"
                )
            if codes:
                raise WorkerDiedError(
                    "a process that generated failed, and what it failed by stands above; static "
                    "batching may do: --set generate.backend.engine=static"
                )


def _work(
    number: int,
    n: int,
    orders: Any,
    todo: Any,
    checkpoint: Path,
    recipe: Recipe,
    slots: int,
    news: Any,
    watched: Connection,
    meeting: Path,
) -> None:
    """Do what is ordered; of processes that share a model, only the first tells."""
    exit_with_parent(watched)
    torch.set_num_threads(max(1, torch.get_num_threads() // n))
    parts = settings_of(recipe).tensor_parallel
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        with process_group(number, parts, meeting) if parts > 1 else contextlib.nullcontext():
            generator = Generator(checkpoint, recipe, slots)
            news.put(("ready",))
            for what, threads, seconds in iter(orders.get, None):
                torch.set_num_threads(threads)
                if what == "rate":
                    news.put(("rate", generator.rate(seconds)))
                    continue
                _generate(generator, todo, news, tells=parts == 1 or number == 0)
                return
    except AugescError as error:  # multiprocessing prints any other, and the exit code tells it
        news.put(("error", error))


def _generate(generator: Generator, todo: Any, news: Any, *, tells: bool) -> None:
    """Generate the tasks of a list, a query's at a time."""
    counts = [0, 0]
    told = time.monotonic()

    def on_step(ended: int, made: int) -> None:
        counts[0] += ended
        counts[1] += made
        # Not every step: some hundred messages a second would only be drawn over each other.
        if time.monotonic() - told > _EVERY:
            tell("step")

    def tell(*word: Any) -> None:
        nonlocal told
        if tells:
            news.put((*word, *counts, generator.utilisation))
        counts[:] = [0, 0]
        told = time.monotonic()

    tasks = chain.from_iterable(iter(todo.get, None))
    for task, row in generator.stream(tasks, on_step):
        tell("row", task, row)  # with its step: no row is heard of before it is counted
    tell("step")
    news.put(("done",))
