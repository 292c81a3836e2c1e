"""Pieces in several processes: their order, how far ahead they are, and what a death leaves."""

from __future__ import annotations

import os
import signal
from multiprocessing import forkserver

import pytest

from augesc_builder.errors import InputError, RunFolderError
from augesc_builder.run import workers
from augesc_builder.run.workers import ordered_map, warm_up

PRELOAD = "augesc_builder.errors"


def late(n: int) -> tuple[int, int]:
    """Give a number and the process; the first pieces take longest."""
    import time

    time.sleep(0.3 if n < 2 else 0)
    return n, os.getpid()


def refuse(n: int) -> int:
    if n == 3:
        raise InputError(f"piece {n}", "file")
    return n


def die(n: int) -> int:
    if n == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def test_results_come_in_order_from_other_processes(forking):
    results = list(ordered_map(late, range(9), 2, PRELOAD))
    assert [n for n, _ in results] == list(range(9))
    processes = {process for _, process in results}
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_one_process_is_this_one():
    assert [p for _, p in ordered_map(late, range(2, 5), 1, PRELOAD)] == [os.getpid()] * 3


@pytest.mark.parametrize(("num_proc", "ahead"), [(1, 1), (2, 6), (3, 9)])
def test_only_so_many_pieces_are_read_ahead(forking, num_proc, ahead):
    taken = []
    pieces = (taken.append(n) or n for n in range(40))
    results = ordered_map(refuse, (100 + n for n in pieces), num_proc, PRELOAD)
    assert next(results) == 100
    assert len(taken) == ahead
    assert next(results) == 101
    assert len(taken) == ahead + 1
    assert len(list(results)) == 38


@pytest.mark.parametrize("num_proc", [1, 2])
def test_what_a_piece_raises_is_raised_at_its_place(forking, num_proc):
    results = ordered_map(refuse, range(6), num_proc, PRELOAD)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="piece 3"):
        next(results)


def test_a_killed_process_is_one_line(forking):
    with pytest.raises(RunFolderError, match=r"most likely out of memory.*--num-proc 1"):
        list(ordered_map(die, range(6), 2, PRELOAD))


@pytest.mark.parametrize(
    ("size", "cores", "begins"), [(10, 2, False), (11, 2, True), (11, 1, False)]
)
def test_the_server_begins_early_where_the_input_is_large(
    forking, monkeypatch, tmp_path, size, cores, begins
):
    monkeypatch.setattr(workers, "_LARGE", 10)
    monkeypatch.setattr(workers, "cores", lambda: cores)
    forking()  # no server of an earlier test
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"x" * (size - 4))
    (tmp_path / "b").write_bytes(b"xxxx")
    warm_up(PRELOAD, [tmp_path / "folder", tmp_path / "b"])
    assert (forkserver._forkserver._forkserver_pid is not None) is begins


def test_an_interrupt_does_not_reach_what_is_started_meanwhile():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with workers.block_sigint():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert signal.SIGINT not in before
