"""Work in several processes whose outcome is that of one: pieces in, results out, in order."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from augesc_builder.errors import RunFolderError

In = TypeVar("In")
Out = TypeVar("Out")

_AHEAD = 3
"""Pieces that each process may be ahead of the one whose result is awaited: bounds the memory."""


def ordered_map(
    function: Callable[[In], Out], pieces: Iterable[In], num_proc: int, preload: str
) -> Iterator[Out]:
    """Give ``function(piece)`` for each piece, in order, from ``num_proc`` processes.

    ``function`` and pieces are pickled; ``preload`` names the module that processes need. What
    ``function`` raises is raised here.
    """
    if num_proc == 1:
        yield from map(function, pieces)
        return
    pieces = iter(pieces)
    with ProcessPoolExecutor(num_proc, _context(preload), _begin, (os.getpid(),)) as pool:
        try:
            waiting = deque(pool.submit(function, p) for p in islice(pieces, _AHEAD * num_proc))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, p) for p in islice(pieces, 1))
        except BrokenProcessPool:
            raise RunFolderError(
                "a process at work was killed, most likely for want of memory; try again with "
                "--num-proc 1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def warm_up(preload: str, paths: Iterable[Path]) -> None:
    """Start the server of worker processes early where ``paths`` are worth several.

    It loads ``preload`` while this process still loads its own modules.
    """
    files = (f for path in paths for f in ([path] if path.is_file() else path.rglob("*")))
    if cores() > 1 and sum(f.stat().st_size for f in files if f.is_file()) > _LARGE:
        _context(preload)


_LARGE = 32 << 20
"""Bytes of input from which several processes will be at work."""

WORTH_PROCESSES = 4000
"""Rows from which several processes are worth their start."""


def cores() -> int:
    """Say how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context(preload: str) -> Any:
    """Give worker processes that share the modules of one server, where the system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    with block_sigint():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def block_sigint() -> Iterator[None]:
    """Start processes that an interrupt from the keyboard does not reach: this one answers it."""
    resource_tracker.ensure_running()  # which else starts with them, and lets interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(process: int) -> None:
    """Prepare a worker of ``process``.

    Nearly all that it makes is freed as soon as nothing refers to it. The search for cycles would
    look through what is remembered again and again, and take a third of the time.
    """
    gc.set_threshold(200_000, 20, 100)
    exit_with_parent(process)


def exit_with_parent(process: int) -> None:
    """End this worker soon after the process it works for: a killed one cannot end its workers."""

    def watch() -> None:
        while True:
            time.sleep(1)
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
