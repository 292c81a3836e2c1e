"""Memory in huge pages, for what is read whole at every step: weights and the KV cache.

Behind pages of 4 KB a processor looks up addresses for a third of the time that it reads weights
(14 GB/s where 2 MB pages give 20, on the machine of ``docs/benchmarks.md``). Linux gives large pages
to those that ask, on most machines; elsewhere the memory is like any other.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref

import torch
from torch import Tensor

_ARENA = 1 << 26
"""Bytes that are asked for at once; what is not used of them takes no memory."""

_LINE = 64
"""Bytes of a cache line: tensors begin with one."""

_newest: weakref.ref[mmap.mmap] | None = None
_used = 0


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor with anything in it; an arena is freed with the last of its tensors."""
    global _newest, _used  # noqa: PLW0603
    n = math.prod(shape)
    size = n * dtype.itemsize
    arena = _newest() if _newest is not None else None
    if arena is None or _used + size > len(arena):
        arena = _asked_for(max(size, _ARENA))
        _newest, _used = weakref.ref(arena), 0
    made = torch.frombuffer(arena, dtype=dtype, count=n, offset=_used).view(shape)
    _used += -(-size // _LINE) * _LINE
    return made


def _asked_for(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return mmap.mmap(-1, size)
    arena = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        arena.madvise(mmap.MADV_HUGEPAGE)
    return arena
