"""Nodes of a Ray cluster on this machine, begun for tests, and a driver that reaches it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from tests.conftest import ROOT

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


@contextlib.contextmanager
def cluster(n_nodes, **head):
    """Begin a cluster of nodes with a core each; what it began has ended behind it.

    Its workers are as any process: beside other tests, those that Ray makes nice get no core for
    minutes. Its address is found in no folder that another cluster has.
    """
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path is short
    Path(folder, "ray").mkdir()  # Ray takes it to be there
    with mock.patch.dict(os.environ, RAY_TMPDIR=folder, RAY_worker_niceness="0"):
        found = Cluster()
        try:
            found.add_node(**NODE, **head)
            for _ in range(n_nodes - 1):
                found.add_node(**NODE)
            yield found
        finally:
            found.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def driver(address, folder, n_shards, seconds, deadly=0, paced=False):
    """Begin a process that has shards made at an address, and says the number of each.

    A paced one waits for a line before it goes on, so it is never ahead of who reads it.
    """
    code = "from tests.executors.shards_of_rows import drive; drive()"
    command = [sys.executable, "-c", code, address, folder]
    command += [n_shards, seconds, deadly]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE if paced else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows_in(folder):
    """Give the rows of a run's shards."""
    import pyarrow.parquet as pq

    return sorted(
        row
        for path in (folder / "generations").iterdir()
        for row in pq.read_table(path)["row"].to_pylist()
    )
