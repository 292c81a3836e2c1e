"""Memory of a training on CPUs: kept for the next step, rather than given back at every tensor."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Callable, Iterator

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_TRIM_THRESHOLD, _DEFAULT_MMAP_MAX = 128 << 10, 1 << 16


@contextlib.contextmanager
def memory_kept() -> Iterator[Callable[[], object]]:
    """Have glibc keep freed memory, until the end; with other C libraries nothing changes.

    Yields a function that gives back what is free at that moment, for a loop to call now and then:
    tensors of changing sizes leave holes, so that what is kept would grow.

    It hands every large tensor back to the kernel, which clears all pages of the next one: a tenth
    to a quarter of a training step on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        yield lambda: None
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield lambda: libc.malloc_trim(0)
    finally:
        libc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_TRIM_THRESHOLD)
        libc.malloc_trim(0)
