"""Ways to a cluster of Ray: one of our own, and another by Ray's client."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.executors.ray_nodes import cluster, driver, rows_in

pytest.importorskip("ray")


@pytest.mark.slow
def test_a_cluster_of_our_own_adds_nothing_to_what_a_command_says(tmp_path):
    running = driver("local", tmp_path / "run", 3, 0)
    said, err = running.communicate()
    assert running.returncode == 0, err
    assert sorted(said.splitlines()) == ["0", "1", "2"]
    assert err == ""


NICENESS = """
import os, ray
from augesc_builder.executors.ray_cluster import LOCAL, connected
with connected(LOCAL):
    of_worker = ray.remote(num_cpus=1)(lambda: os.getpriority(os.PRIO_PROCESS, 0))
    print(ray.get(of_worker.remote()), os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.slow
def test_workers_of_a_cluster_of_our_own_are_not_behind_other_work():
    environ = {k: v for k, v in os.environ.items() if k != "RAY_worker_niceness"}
    environ["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", NICENESS]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    of_worker, own = done.stdout.split()
    assert of_worker == own


def servers_of(address: str) -> list[int]:
    """Return the processes that speak to clients of a cluster, one for each."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if {"--mode=specific-server", f"--address={address}"} <= set(words):
                found.append(int(path.parent.name))
    return found


# Ray leaves a file of its client's server to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_driver_that_reaches_the_cluster_by_the_client_of_ray_whose_first_server_dies(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", free)):
            return True

    with cluster(2, ray_client_server_port=free) as found:
        end = time.monotonic() + 60
        while not answers():
            assert time.monotonic() < end
            time.sleep(0.05)
        running = driver(f"ray://127.0.0.1:{free}", tmp_path / "run", 60, 0.05, deadly=3)
        while not (servers := servers_of(found.address)):
            assert running.poll() is None
            time.sleep(0.01)
        os.kill(servers[0], signal.SIGKILL)  # half a minute later the driver is told so
        said, err = running.communicate()
    assert running.returncode == 0, err
    assert err == ""
    assert sorted(map(int, said.split())) == list(range(60))
    assert rows_in(tmp_path / "run") == list(range(60))
    assert len(list(tmp_path.glob("killed-by-*"))) == 3
