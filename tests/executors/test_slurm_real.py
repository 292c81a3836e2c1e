"""A build on a real Slurm of one node: elements, a requeue, a cancelled one, a time limit."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from augesc_builder.run.heartbeat import read_workers
from tests.conftest import rows_of
from tests.executors.slurm_cluster import ask, element_of, lacking, one_node

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    if missing := lacking():
        pytest.skip(f"no {', '.join(missing)}: Debian's package slurm-wlm has them")
    if os.geteuid():
        pytest.skip("the daemons of Slurm are begun by root")
    with one_node() as environ:
        yield {**environ, "OMP_NUM_THREADS": "1"}


def marks(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob(".complete/generate-*")}


def wait(is_so, what, seconds=1200):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def test_a_build_survives_a_requeue_a_cancelled_element_and_a_time_limit(
    cluster, augesc, generate, tiny_file, tmp_path, monkeypatch
):
    many = "generate.samples_per_query=150"
    expected = generate(many, out="expected")
    for name, value in cluster.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    given = ["--set", many, "--set", "generate.shard_size=9", "--array", 4, "--submit"]
    code, said, err = augesc("slurm", tiny_file, "--out", out, *given)
    assert code == 0, err
    _, first, _, array, _, last = said.replace(",", "").removeprefix("submitted: ").split()

    def queue():
        return ask(cluster, "squeue", "-h", "-r", "-o", "%i %T %r")

    def waits(job):
        return any(line.split()[0] == job for line in queue().splitlines())

    def tell():
        logs = "\n".join(p.read_text()[-3000:] for p in tmp_path.glob("run.sbatch-*.log"))
        return f"{queue()}\n{logs}"

    def at_work():
        pids = [each.pid for each in read_workers(out)]
        return {rank: pid for pid in pids if (rank := element_of(pid)) is not None}

    def is_told(job, what):
        return what in ask(cluster, "scontrol", "show", "job", job)

    wait(lambda: (len(at_work()) == 4 and marks(out)) or not waits(last), tell)
    assert waits(last), tell()
    assert not waits(first)
    # One hangs until its time is up, one is put back in the queue, one is cancelled.
    os.kill(at_work()["2"], signal.SIGSTOP)
    ask(cluster, "scontrol", "update", f"JobId={array}_2", "TimeLimit=1")
    before = marks(out)
    assert len(before) < 200, "all is made already"
    assert ask(cluster, "scontrol", "requeue", f"{array}_0") == ""
    ask(cluster, "scancel", f"{array}_1")
    wait(lambda: is_told(f"{array}_2", "JobState=TIMEOUT"), tell)
    wait(lambda: not waits(last), tell)
    assert is_told(f"{array}_0", "Restarts=1")
    assert is_told(f"{array}_0", "JobState=COMPLETED")
    assert is_told(f"{array}_1", "JobState=CANCELLED")
    assert is_told(f"{array}_3", "JobState=COMPLETED")
    assert is_told(last, "JobState=COMPLETED")
    after = marks(out)
    assert len(after) == 200
    assert {path: after[path] for path in before} == before  # nothing was made again
    assert rows_of(out / "generations") == expected
    kept, rejected = rows_of(out / "corpus/data"), rows_of(out / "corpus/rejected")
    assert len(kept) + len(rejected) == len(expected) == 1800
    assert (out / "corpus/README.md").exists()
    assert not (out / ".work").exists()
    # Those that Slurm ended say so, and nobody has met an error.
    assert not re.search("^augesc: (?!stopped; )", tell(), re.MULTILINE)
