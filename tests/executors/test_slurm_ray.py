"""A build on a Ray cluster in an allocation of a real Slurm of one node."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.conftest import corpus_of
from tests.executors.slurm_cluster import ask, lacking, one_node, running_in

pytestmark = pytest.mark.slow


def test_ray_begins_and_ends_in_an_allocation(augesc, built, tiny_file, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    if missing := lacking():
        pytest.skip(f"no {', '.join(missing)}: Debian's package slurm-wlm has them")
    if os.geteuid():
        pytest.skip("the daemons of Slurm are begun by root")
    with one_node() as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        out = tmp_path / "run"
        call = ("slurm", tiny_file, "--out", out, "--ray", "--nodes", 1, "--submit")
        code, said, err = augesc(*call)
        assert code == 0, err
        assert "submitted: first" in said

        def tell():
            return "\n".join(p.read_text()[-3000:] for p in tmp_path.glob("run.sbatch-*.log"))

        end, niceness = time.monotonic() + 1200, set()
        while ask(environ, "squeue", "-h").strip():
            assert time.monotonic() < end, tell()
            niceness |= niceness_of_workers(environ)
            time.sleep(0.5)
        assert (out / "corpus/README.md").exists(), tell()
        assert "Local node IP" in tell()  # as Ray says when it begins
        while left := [n for n in running_in_jobs(environ) if "ray" in n or "gcs" in n]:
            assert time.monotonic() < end, left
            time.sleep(0.5)
    assert niceness == {os.getpriority(os.PRIO_PROCESS, 0)}  # they are behind no other work
    assert corpus_of(out) == corpus_of(built)


def running_in_jobs(environ):
    """Give the names of the processes of a cluster's jobs."""
    return list(running_in(Path(environ["SLURM_CONF"]).parent).values())


def niceness_of_workers(environ):
    """Give the priorities that the workers of Ray in a cluster's jobs have."""
    found = set()
    for process, name in running_in(Path(environ["SLURM_CONF"]).parent).items():
        if name.startswith("ray::RayWorker"):
            with contextlib.suppress(ProcessLookupError):
                found.add(os.getpriority(os.PRIO_PROCESS, process))
    return found
