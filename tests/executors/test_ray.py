"""Actors of a real Ray: rows as one process makes them, through kills, nodes that go and come."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from augesc_builder.errors import ExecutorError
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.shared import ShardwiseJob
from augesc_builder.run.versions import fingerprint
from tests.conftest import ROOT, SOAK, corpus_of, rows_of
from tests.executors.ray_nodes import NODE, cluster, driver, rows_in
from tests.executors.shards_of_rows import (
    STAGE,
    Broken,
    Maker,
    Unreadable,
    Warned,
    job_at,
)

ray = pytest.importorskip("ray")

from augesc_builder.executors import ray as executing  # noqa: E402
from augesc_builder.executors import ray_cluster  # noqa: E402
from augesc_builder.executors.ray import AHEAD, RayExecutor, _Driver  # noqa: E402


@pytest.fixture(scope="module")
def two():
    """Give the address of a cluster that no test changes."""
    with cluster(2) as found:
        yield found.address


def workers(folder):
    """Give the processes of workers that are there."""
    found = {status.pid for status in read_workers(folder) if status.state == "running"}
    return sorted(pid for pid in found if Path(f"/proc/{pid}/cmdline").exists())


def wait(is_so, seconds=1200):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- without a cluster ---------------------------------------------------------------------------


def nodes(*resources):
    return [
        {"NodeID": str(i), "Alive": True, "Resources": each} for i, each in enumerate(resources)
    ]


def test_a_worker_has_a_gpu_or_as_many_as_a_model_in_parts_has_and_a_core_where_are_none():
    cores, gpus = {"CPU": 16.0}, {"CPU": 8.0, "GPU": 5.0}
    assert ray_cluster.needs(nodes(cores), 1) == ("CPU", 1)
    assert ray_cluster.needs(nodes(cores, gpus), 0) == ("CPU", 1)
    assert ray_cluster.needs(nodes(cores, gpus), 2) == ("GPU", 2)
    assert ray_cluster.places(nodes(cores, gpus, gpus), set(), ("GPU", 2)) == 4
    assert ray_cluster.places(nodes(cores, gpus, gpus), {"2"}, ("GPU", 2)) == 2
    assert ray_cluster.places(nodes(cores, gpus), set(), ("CPU", 1)) == 24
    gone = [*nodes(gpus), {"NodeID": "9", "Alive": False, "Resources": {"GPU": 8.0}}]
    assert ray_cluster.places(gone, set(), ("GPU", 5)) == 1
    with pytest.raises(ExecutorError, match="no node of the cluster has more than 5"):
        ray_cluster.needs(gone, 6)


@pytest.fixture
def said(refused, tiny_file, tmp_path, monkeypatch):
    """Build at an address; give the line that refuses it, which comes before anything is made."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def build(address):
        line = refused(
            "build", "--recipe", tiny_file, "--out", tmp_path / "run", "--ray-address", address
        )
        assert not (tmp_path / "run/queries").exists()
        return line

    return build


def test_an_address_with_no_cluster(said, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_PATIENCE", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = taken.getsockname()[1]
    assert f"ray://127.0.0.1:{free}: no Ray cluster answers there" in said(
        f"ray://127.0.0.1:{free}"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"{at}: no Ray cluster answers there (timed out)" in said(at)
    assert "no Ray cluster answers there" in said("192.0.2.1:6379")  # a network of no one
    for wrong in ("nowhere", "ray://:1", "127.0.0.1:99999999"):
        assert "expected auto, local" in said(wrong) or "no Ray cluster" in said(wrong)


def test_other_executors_have_no_address(augesc, tiny_file, tmp_path):
    call = ("build", "--recipe", tiny_file, "--out", tmp_path / "run", "--executor", "slurm")
    code, _, err = augesc(*call, "--ray-address", "auto")
    assert code == 2
    assert "--ray-address goes with --executor ray, found slurm" in err


def test_without_ray_the_extra_is_named(refused, tiny_file, tmp_path, monkeypatch):
    from augesc_builder.executors import choice

    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    call = ("build", "--recipe", tiny_file, "--out", tmp_path / "run", "--executor", "ray")
    assert "pip install -e '.[ray]'" in refused(*call)


def test_no_cluster_on_this_machine(said, monkeypatch):
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    assert "no Ray cluster on this machine: begin one" in said("auto")


# -- with one ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_are_those_of_one_process(two, augesc, tiny_file, tmp_path, built):
    out = tmp_path / "run"
    code, _, err = augesc("build", "--recipe", tiny_file, "--out", out, "--ray-address", two)
    assert code == 0, err
    assert corpus_of(out) == corpus_of(built)
    code, said, _ = augesc("build", "--recipe", tiny_file, "--out", out, "--executor", "ray")
    assert code == 0
    assert "nothing to do" in said


@dataclasses.dataclass(frozen=True)
class Counted(ShardwiseJob):
    """Counts the numbers that were asked for."""

    asked: list[int] = dataclasses.field(default_factory=list)

    def missing(self):
        for number in super().missing():
            self.asked.append(number)
            yield number


@pytest.mark.slow
def test_what_is_under_way_is_bounded(two, tmp_path):
    plain = job_at(tmp_path / "run", 2000)
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    job, most, made = Counted(**fields), 0, []
    with ray_cluster.connected(two):
        driver = _Driver(job, job.missing())
        for number in driver.run():
            made.append(number)
            most = max(most, len(job.asked) - len(made))
            assert len(driver._under_way) <= 8 * AHEAD
            assert len(driver._seats) == 2
    assert sorted(made) == list(range(2000))
    assert 0 < most <= 8 * AHEAD
    assert rows_in(tmp_path / "run") == list(range(2000))
    assert len({s.pid for s in read_workers(tmp_path / "run")}) == 2
    assert len(list(tmp_path.glob("loaded-*"))) == 2  # whatever they are given, they load once


@pytest.mark.slow
def test_nothing_is_reached_where_nothing_is_left(tmp_path):
    job = job_at(tmp_path / "run", 1)
    job.maker()(job.shards, 0)
    assert list(RayExecutor("192.0.2.1:6379").run(job)) == []


@pytest.mark.slow
def test_a_worker_with_other_packages_is_refused_with_both_named(two, tmp_path, monkeypatch):
    other = {**fingerprint(), "torch": "0.1"}
    monkeypatch.setattr(executing, "fingerprint", lambda: other)
    with pytest.raises(ExecutorError, match=r"the worker on .* has torch .*, and the run 0\.1"):
        list(RayExecutor(two).run(job_at(tmp_path / "run", 2)))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["path", "job", "code"])
def test_what_a_worker_cannot_see(two, tmp_path, monkeypatch, what):
    if what == "path":
        job = job_at(tmp_path / "run", 2, needed=(tmp_path / "gone",))
        match = "gone: not there for the worker on"
    elif what == "job":
        job = job_at(tmp_path / "run", 2, Unreadable)
        match = "cannot read what it is to do .*no_such_module_of_augesc"
    else:
        job, match = job_at(tmp_path / "run", 2), "could not be begun.*no_such_module"
        monkeypatch.setattr(executing.RayWorker, "__module__", "no_such_module")
        monkeypatch.setitem(sys.modules, "no_such_module", executing)
    with pytest.raises(ExecutorError, match=match) as refused:
        list(RayExecutor(two).run(job))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_workers_that_all_fail_end_the_run_with_a_line(two, tmp_path, monkeypatch):
    monkeypatch.setattr(executing, "_DEATHS", 1)
    with pytest.raises(
        ExecutorError, match=r"3 workers have ended .* the last: ValueError: of"
    ) as e:
        list(RayExecutor(two).run(job_at(tmp_path / "run", 9, Broken)))
    assert str(e.value).isprintable()


@pytest.mark.slow
def test_what_workers_say_is_told_in_lines_that_any_terminal_takes(two, tmp_path):
    lines = []
    job = job_at(tmp_path / "run", 3, Warned, say=lines.append)
    assert sorted(RayExecutor(two).run(job)) == [0, 1, 2]
    assert lines
    assert all(line.isprintable() and "second line" in line for line in lines)


@pytest.mark.slow
def test_a_stopped_worker_is_not_waited_for(two, tmp_path):
    folder = tmp_path / "run"
    run = RayExecutor(two).run(job_at(folder, 40, Maker, 0.05))
    made, stopped = [next(run)], None
    try:
        for number in run:
            made.append(number)
            if stopped is None and len(workers(folder)) == 2:
                stopped = workers(folder)[0]
                os.kill(stopped, signal.SIGSTOP)
    finally:
        if stopped is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGCONT)
    assert sorted(made) == list(range(40))
    assert stopped is not None


@pytest.mark.slow
def test_an_actor_leaves_a_node_that_is_drained_and_one_that_joins_is_used(tmp_path, monkeypatch):
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    monkeypatch.setattr(executing, "_LOOK", 0.2)
    folder, drained, used = tmp_path / "run", None, set()
    with cluster(3) as found, ray_cluster.connected(found.address):
        job = job_at(folder, 300, Maker, 0.05)
        driver = _Driver(job, job.missing())
        for _ in driver.run():
            there = [seat.node for seat in driver._seats if seat.given]
            used.update(there)
            if drained is None and len(there) == 3:
                drained = next(n for n in there if n != ray.get_runtime_context().get_node_id())
                reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
                GcsClient(address=found.address).drain_node(drained, reason, "a test", 0)
                found.add_node(**NODE)
            elif len(used) < 4:
                time.sleep(0.3)  # one may take longer to begin than the others take for all
        assert drained is not None
        assert len(used) == 4
        assert drained not in {seat.node for seat in driver._seats}
    assert rows_in(folder) == list(range(300))


@pytest.mark.slow
def test_actors_are_killed_nodes_go_and_come_and_the_driver_is_killed(tmp_path):
    n_shards, drawn = 200 + 20 * SOAK, random.Random(SOAK)
    folder, killed, drivers = tmp_path / "run", 0, 0
    with cluster(3) as found:
        events = itertools.cycle(["kill", "kill", "remove", "kill", "add", "driver"])
        while True:
            running = driver(found.address, folder, n_shards, 0.05, deadly=5, paced=True)
            drivers += 1
            for heard, _ in enumerate(running.stdout, 1):
                if heard % 20 == 0:
                    event = next(events)
                    if event == "kill":
                        wait(lambda: workers(folder))
                        killed += 1
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(drawn.choice(workers(folder)), signal.SIGKILL)
                    elif event == "remove":
                        found.remove_node(drawn.choice(sorted(found.worker_nodes, key=id)))
                    elif event == "add":
                        found.add_node(**NODE)
                    else:
                        running.kill()
                        break
                with contextlib.suppress(BrokenPipeError):
                    running.stdin.write("\n")
                    running.stdin.flush()
            _, err = running.communicate()
            if running.returncode == 0:
                break
            assert running.returncode == -signal.SIGKILL, err
    assert err == ""
    assert killed >= 3
    assert drivers >= 2
    assert len(list(tmp_path.glob("killed-by-*"))) == 5
    assert rows_in(folder) == list(range(n_shards))
    job = job_at(folder, n_shards)
    assert not list(job.missing())
    assert len(job.shards.marks.names(STAGE)) == n_shards


@pytest.mark.slow
def test_a_build_survives_them_too(augesc, generate, tiny_file, tmp_path):
    many = ["generate.samples_per_query=5", "generate.shard_size=2"]
    expected = generate(*many, out="expected")
    out = tmp_path / "run"

    def marks():
        return {path: path.stat().st_mtime_ns for path in out.glob(".complete/generate-*")}

    with cluster(3) as found, contextlib.ExitStack() as begun:
        command = [sys.executable, "-m", "augesc_builder", "build", "--recipe", tiny_file]
        command += ["--out", out, "--ray-address", found.address]
        command += [word for each in many for word in ("--set", each)]

        def build():
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            begun.enter_context(process)
            begun.callback(process.kill)  # where the test fails
            return process

        running = build()
        wait(lambda: len(marks()) >= 3 or running.poll() is not None)
        os.kill(workers(out)[0], signal.SIGKILL)
        wait(lambda: len(marks()) >= 7 or running.poll() is not None)
        found.remove_node(next(iter(found.worker_nodes)))
        found.add_node(**NODE)
        wait(lambda: len(marks()) >= 11 or running.poll() is not None)
        code, said, _ = augesc("status", out)
        assert code == 0
        assert "at work" in said
        assert running.poll() is None, running.communicate()[0]
        running.kill()
        running.communicate()
        before = marks()
        again = build()
        told = again.communicate()[0]
    assert again.returncode == 0, told
    after = marks()
    assert len(after) == 30
    assert {path: after[path] for path in before} == before  # nothing was made again
    assert rows_of(out / "generations") == expected
    kept, rejected = rows_of(out / "corpus/data"), rows_of(out / "corpus/rejected")
    assert len(kept) + len(rejected) == 60
