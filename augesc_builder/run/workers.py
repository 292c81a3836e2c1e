"""Work in several processes whose outcome is that of one: items in, results out, in order."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from augesc_builder.errors import RunFolderError, TrainingError

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 3
"""Items that each process may be ahead of the one whose result is awaited: bounds the memory."""


def ordered_map(
    function: Callable[[In], Out], items: Iterable[In], num_proc: int, preload: str
) -> Iterator[Out]:
    """Yield ``function(item)`` for each item, in order, from ``num_proc`` processes.

    ``function`` and items are pickled; ``preload`` names the module that processes need. Raises
    what ``function`` raises, and :class:`~augesc_builder.errors.RunFolderError` where a process is
    killed.
    """
    if num_proc == 1:
        yield from map(function, items)
        return
    # Not ``pool.map``, which takes all items at once: here only some are read ahead.
    items = iter(items)
    with (
        lifeline() as watched,
        ProcessPoolExecutor(num_proc, _context(preload), _begin, (watched,)) as pool,
    ):
        try:
            waiting = deque(pool.submit(function, x) for x in islice(items, _AHEAD * num_proc))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, x) for x in islice(items, 1))
        except BrokenProcessPool:
            raise RunFolderError(
                "a worker process was killed, most likely out of memory; try again with "
                "--num-proc 1"
            ) from None
        finally:
            # Also behind an error, or where the caller reads no further: what waits is not begun.
            pool.shutdown(cancel_futures=True)


def warm_up(preload: str, paths: Iterable[Path]) -> None:
    """Start the server of worker processes early where ``paths`` are worth several.

    It loads ``preload`` while this process still loads its own modules.
    """
    files = (f for path in paths for f in ([path] if path.is_file() else path.rglob("*")))
    with contextlib.suppress(OSError):  # whoever reads them says what is wrong with them
        if cores() > 1 and sum(f.stat().st_size for f in files if f.is_file()) > _LARGE:
            _context(preload)


_LARGE = 32 << 20
"""Bytes of input from which :func:`warm_up` expects several processes."""

WORTH_PROCESSES = 4000
"""Rows from which several processes are worth their start."""


def cores() -> int:
    """Return how many cores this process may use."""
    # May be fewer than the machine has: under taskset, for one.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context(preload: str) -> Any:
    """Return how workers are started: forked from a server with ``preload``, where that works."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with block_sigint():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """Block SIGINT while processes start, which inherit that: only this one answers Ctrl-C."""
    resource_tracker.ensure_running()  # which else starts with them, and lets interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(lifeline: Connection) -> None:
    """Prepare a worker."""
    # Nearly all that it makes is freed as soon as nothing refers to it. The search for cycles would
    # look through the caches again and again, and take a third of the time.
    gc.set_threshold(200_000, 20, 100)
    exit_with_parent(lifeline)


@contextlib.contextmanager
def lifeline() -> Iterator[Connection]:
    """Give the end of a pipe for workers to watch; nothing is ever sent on it.

    Its other end is this process's alone, and the system closes it with the process, however that
    ends: also of a killed one that nobody has reaped yet, which signals still find.
    """
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        yield reader


def exit_with_parent(reader: Connection) -> None:
    """End this worker with the process that has the other end of its :func:`lifeline`.

    A killed process cannot end its workers, and under a fork server it is not their parent, whose
    end the system could tell.
    """

    def watch() -> None:
        reader.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def ended_by_scheduler() -> Iterator[None]:
    """Take SIGTERM, by which a scheduler ends a worker, as Ctrl-C: what is begun is taken back."""
    if threading.current_thread() is not threading.main_thread():  # no handler can be set there
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def launch_rank() -> int:
    """Return the number of this process under ``accelerate launch``; 0 without.

    Raises :class:`~augesc_builder.errors.TrainingError` where the environment is no launcher's.
    """
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        value = os.environ.get(name, "0")
        if not (value.isascii() and value.isdigit()):
            raise TrainingError(
                f"{name}={value[:40]!r} in the environment: a launcher such as accelerate sets a "
                f"whole number; unset it"
            )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" not in os.environ:
        raise TrainingError(
            "WORLD_SIZE is set in the environment, and MASTER_ADDR is not: start several processes "
            "with accelerate launch, or unset WORLD_SIZE"
        )
    return int(os.environ.get("RANK", "0"))
