"""Runs on a real S3 server: one that fails, workers that race, builds that are killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from augesc_builder.run.copies import fetched, opened, place_of
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.shards import Shards
from augesc_builder.run.store import Store
from tests import ceph_server
from tests.conftest import ROOT, SOAK, corpus_of
from tests.s3_server import served

pytest.importorskip("moto")
pytest.importorskip("s3fs")
pytestmark = pytest.mark.slow

SETTINGS = {"stage": "filter", "seed": 1}
TABLE = {"data/train": pa.table({"a": [1]})}
FAILING = {"errors": 0.2, "lost": 0.13, "dropped": 0.03, "slow": 0.02}
"""A third of the requests are answered 500, some of them after they were carried out."""


@pytest.fixture(scope="module", params=["moto", "ceph"])
def server(request):
    if request.param == "ceph" and (names := ceph_server.lacking()):
        pytest.skip(f"not on the path: {', '.join(names)} (ceph-mon, ceph-osd, radosgw of Debian)")
    with served(request.param) as found:
        yield found


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AUGESC_WORK", str(tmp_path / "work"))
    yield server
    server.fails()


def command(recipe: Path, address: str) -> list[str]:
    arguments = ["build", "--recipe", str(recipe), "--out", address]
    return [sys.executable, "-m", "augesc_builder", *arguments]


def test_a_build_is_that_of_a_disk_where_a_third_of_all_fails(s3, built, tiny_file, tmp_path):
    address = "s3://bucket/failing"
    s3.fails(**FAILING)
    done = subprocess.run(
        command(tiny_file, address), cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    s3.fails()
    assert corpus_of(fetched(address)) == corpus_of(built)
    assert Store(address).list(".work", deep=True) == []


@pytest.mark.parametrize("n_kills", [pytest.param(SOAK or 2, marks=pytest.mark.soak)])
def test_kills_on_machines_that_come_and_go(s3, built, tiny_file, tmp_path, n_kills):
    draw = random.Random() if SOAK else random.Random(5)
    kills, machines = 0, itertools.count()
    for number in itertools.count():  # builds, each killed until one is through
        address, known, patience = f"s3://bucket/killed-{number}", 0, 12.0
        while True:
            env = {**os.environ, "AUGESC_WORK": str(tmp_path / f"machine-{next(machines)}")}
            with subprocess.Popen(
                command(tiny_file, address), cwd=ROOT, env=env,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ) as process:  # fmt: skip
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(2, patience) if kills < n_kills else None)
                if process.returncode is None:
                    process.kill()
                    kills += 1
            assert process.returncode in {0, -signal.SIGKILL}
            if process.returncode == 0:
                break
            # Where nothing new was finished, let the next one live longer.
            found = len(Store(address).list(".complete"))
            known, patience = found, patience * 1.5 if found == known else 12.0
        assert corpus_of(fetched(address)) == corpus_of(built)
        if kills >= n_kills:
            break
    print(f"{kills} kills in {number + 1} builds")


def test_one_bit_that_is_flipped_at_the_address_is_found_by_whoever_uses_it(
    s3, built, tiny_file, tmp_path
):
    """In the next stage of a build, or by a reader of a run that is done: it is made again."""
    address, store = "s3://bucket/flipped", Store("s3://bucket/flipped")

    def flip(name):
        held = bytearray(store.read(name))
        held[len(held) // 2] ^= 1
        store.put(name, bytes(held))

    def go(machine, *arguments):
        env = {**os.environ, "AUGESC_WORK": str(tmp_path / machine)}
        call = arguments or command(tiny_file, address)
        return subprocess.run(call, cwd=ROOT, env=env, check=False, capture_output=True, text=True)

    assert go("a", *command(tiny_file, address), "--until", "generate").returncode == 0
    shard = "generations/generations-00001-of-00003.parquet"
    flip(shard)
    done = go("b")
    assert done.returncode == 0, done.stderr
    assert f"{address}/{shard} has other bytes than were written" in done.stdout + done.stderr
    assert store.exists(f"set-aside/{shard}")
    table = "corpus/data/train-00000-of-00001.parquet"
    flip(table)
    refused = go("c", sys.executable, "-m", "augesc_builder", "stats", f"{address}/corpus")
    assert f"{table} has other bytes than were written" in refused.stderr
    done = go("b")
    assert f"{address}/{table} has other bytes than were written" in done.stdout + done.stderr
    assert store.exists(f"set-aside/{table}")
    assert store.list(".work", deep=True) == []
    assert corpus_of(fetched(address)) == corpus_of(built)


def test_elements_and_an_owner_each_on_a_machine_of_its_own(s3, built, tiny_file, tmp_path):
    address = "s3://bucket/array"

    def begin(machine, *more, **environ):
        env = {**os.environ, "AUGESC_WORK": str(tmp_path / machine), **environ}
        call = [*command(tiny_file, address), "--executor", "slurm", *more]
        return subprocess.Popen(call, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)

    assert begin("first", "--until", "finetune").wait() == 0
    ranks = [{"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": "2"} for rank in range(2)]
    elements = [begin(f"element-{rank['AUGESC_RANK']}", **rank) for rank in ranks]
    assert [element.wait() for element in elements] == [0, 0]
    assert begin("last").wait() == 0
    assert corpus_of(fetched(address)) == corpus_of(built)


@pytest.mark.parametrize("n", [pytest.param(1000 if SOAK else 30, marks=pytest.mark.soak)])
def test_several_that_finish_at_the_same_instant(s3, monkeypatch, tmp_path, n):
    address = "s3://bucket/race"
    with RunFolder(address, SETTINGS):
        pass
    makers = []
    for name in "ab":
        monkeypatch.setenv("AUGESC_WORK", str(tmp_path / name))
        makers.append(Shards(opened(address), lambda _: None))
    firsts: list[tuple[int, int]] = []
    meeting = threading.Barrier(2)

    def make(who: int) -> None:
        for number in range(n):
            meeting.wait()
            table = {"data/train": pa.table({"a": [who]})}
            if makers[who].add_shard("s", number, n, table, by=who):
                firsts.append((number, who))

    threads = [threading.Thread(target=make, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in firsts) == list(range(n))
    monkeypatch.setenv("AUGESC_WORK", str(tmp_path / "c"))
    looker = Shards(opened(address), lambda _: None)
    looker.bring("s")
    assert looker.marks.damage(looker.marks.files()) == {}
    assert {(number, looker.shard_fact("s", number)["by"]) for number in range(n)} == set(firsts)
    assert Store(address).list(".work", deep=True) == []
    print(f"{n} shards: {[sum(who == each for _, who in firsts) for each in range(2)]}")


def test_an_answer_that_is_lost_makes_nobody_second(s3):
    s3.fails(lost=0.5)
    store = Store("s3://bucket/lost")
    assert all(store.create(f"{n}", b"%d" % n) for n in range(10))


def test_a_store_that_does_not_hear_conditions_is_named(s3):
    if s3.kind != "moto":
        pytest.skip("what is taken out of a request was signed, and only moto does not look")
    s3.fails(strip=True)
    said: list[str] = []
    with RunFolder("s3://bucket/deaf", SETTINGS) as run:
        place_of(run.path).begin(said.append)
    assert [line for line in said if "no conditional put" in line]


def test_what_a_store_refuses_is_one_line(s3, refused, monkeypatch):
    assert "make the bucket first" in refused("build", "--out", "s3://no-such-bucket/run")
    s3.fails(errors=1.0)
    monkeypatch.setattr("augesc_builder.run.store._LONGEST_WAIT", 0.05)
    assert "no good answer in 9 tries" in refused("status", "s3://bucket/failing")
