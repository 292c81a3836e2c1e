"""Pieces in several processes: their order, how far ahead they are, and what a death leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from augesc_builder.errors import InputError, RunFolderError, TrainingError
from augesc_builder.run import workers
from augesc_builder.run.workers import ended_by_scheduler, launch_rank, ordered_map, warm_up
from tests.conftest import ROOT

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


def stay(folder: str) -> None:
    """Say which process this is, and stay in it for longer than a test waits."""
    import time
    from pathlib import Path

    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def is_at_work(process: int) -> bool:
    """Whether a process runs: not gone, and no zombie that waits to be reaped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(what, seconds: float = 120) -> bool:
    """Wait until something holds, for as long as a busy machine may take."""
    end = time.monotonic() + seconds
    while not (held := what()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_workers_end_with_a_killed_parent_that_nobody_reaps(tmp_path):
    script = (
        "from augesc_builder.run.workers import ordered_map\n"
        "from tests.run.test_workers import PRELOAD, stay\n"
        f"list(ordered_map(stay, [{str(tmp_path)!r}] * 4, 2, PRELOAD))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert until(lambda: len(list(tmp_path.iterdir())) == 2)
        at_work = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(is_at_work, at_work))
        os.kill(parent.pid, signal.SIGKILL)
        assert until(lambda: not is_at_work(parent.pid))
        os.kill(parent.pid, 0)  # a zombie, which signals still find
        assert until(lambda: not any(map(is_at_work, at_work)), 60)
    finally:
        parent.kill()
        parent.wait()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "²"])
def test_an_environment_of_no_launcher_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=rf"{name}='.*' in the environment.*unset it"):
        launch_rank()


def test_the_rank_is_the_launchers(monkeypatch):
    assert launch_rank() == 0
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(TrainingError, match="MASTER_ADDR is not"):
        launch_rank()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert launch_rank() == 3


def test_a_scheduler_ends_a_worker_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ended_by_scheduler():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert signal.getsignal(signal.SIGTERM) is before
    found = []

    def elsewhere():
        with ended_by_scheduler():  # as in an actor's thread, where no handler can be set
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]
