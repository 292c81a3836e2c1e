"""Memory that is kept: fewer page faults in a training, and given back at its end."""

from __future__ import annotations

import multiprocessing
import platform
import resource
from pathlib import Path

import pytest
import torch

from augesc_builder.models.allocation import memory_kept

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked")
N = 16 << 20  # floats, 64 MiB


def faults_of_steps() -> int:
    """Count the page faults of ten large tensors, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(N)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def faults_before_within_and_after() -> tuple[int, int, int]:
    before = faults_of_steps()
    with memory_kept():
        faults_of_steps()  # small objects come to lie in the first holes
        kept = faults_of_steps()
    return before, kept, faults_of_steps()


@glibc
def test_pages_are_cleared_once():
    # In a new process: the heap of this one is as other tests have left it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, kept, after = pool.apply(faults_before_within_and_after)
    assert kept < before / 2
    assert kept < after / 2


@glibc
def test_memory_is_given_back_at_the_end():
    with memory_kept():
        torch.ones(4 * N)
        kept = resident()
    assert resident() < kept - 2 * N


@glibc
def test_memory_is_given_back_in_between():
    with memory_kept() as give_back:
        torch.ones(4 * N)
        kept = resident()
        give_back()
        assert resident() < kept - 2 * N


def test_with_another_c_library_nothing_changes(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("it was asked"))
    with memory_kept() as give_back:
        torch.ones(1)
        give_back()
