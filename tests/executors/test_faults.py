"""Whole builds by an owner and two elements, through what can happen to any of them.

Each time: nothing is lost, nothing is there twice, and the corpus is that of one process, row for
row.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DiskError, ExecutorError
from augesc_builder.pipeline.build import build
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from tests.conftest import ROOT, SOAK, corpus_of, rows_of

pytestmark = pytest.mark.slow

QUIET = Progress(quiet=True)
BEFORE = "finetune"
MANY = ["generate.samples_per_query=5", "generate.shard_size=2"]
N_SHARDS = 30


@pytest.fixture(scope="module")
def alone(tiny_file, tmp_path_factory):
    """A build by one process; tests must not change it."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert build(load_recipe(tiny_file, MANY), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def shared(tiny_file):
    return load_recipe(tiny_file, [*MANY, "executor.type=slurm"])


@pytest.fixture
def begun(alone, shared, tmp_path):
    """A folder as the job before the array leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("queries", "checkpoint", ".complete"):
        shutil.copytree(alone / name, folder / name)
    for name in ("recipe.yaml", "manifest.json"):
        shutil.copy(alone / name, folder)
    for stage in ("generate", "filter", "quality", "statistics", "card"):
        for mark in Marks(folder).names(stage):
            Marks(folder).path(mark).unlink()
    build(shared, folder, QUIET, until=BEFORE)
    return folder


def element(folder: Path, tiny_file: Path, rank: int, size: int = 2, **environ: str):
    """Begin an element as a process of its own."""
    command = [sys.executable, "-m", "augesc_builder", "build", "--executor", "slurm"]
    command += ["--recipe", str(tiny_file), "--out", str(folder), "--debug"]
    for setting in MANY:
        command += ["--set", setting]
    ours = {"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": str(size), "PYTHONPATH": str(ROOT)}
    with (folder.parent / f"element-{rank}.log").open("a") as log:
        return subprocess.Popen(
            command, env={**os.environ, **ours, **environ}, stdout=log, stderr=log
        )


def shards(folder: Path) -> set[str]:
    return {path.name for path in (folder / ".complete").glob("generate-*.json")}


def wait(is_so, seconds=1200):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def check(folder: Path, alone: Path) -> None:
    """Refuse what is lost, doubled or other."""
    assert corpus_of(folder) == corpus_of(alone)
    assert len(list((folder / "generations").iterdir())) == N_SHARDS
    assert not (folder / ".work").exists()
    assert not (folder / "set-aside").exists()


# -- the same instant ------------------------------------------------------------------------------


def _race(folder: Path, maker: int, n: int, meeting, found) -> None:
    """Make every shard, and meet another before each mark; rows say by whom they are."""
    at = Shards(folder, print)
    create = at._create

    def together(*args):
        meeting.wait(600)
        return create(*args)

    at._create = together
    for number in range(n):
        meeting.wait(600)  # or the other's mark may be there before this one looks
        table = pa.table({"maker": [maker] * 3})
        if at.add_shard("s", number, n, {"t/part": table}):
            found.put((number, maker))
    found.put(None)


def _settle(folder: Path, is_over) -> None:
    at = Shards(folder, print)
    while not is_over.is_set():
        at.settle()


@pytest.mark.parametrize("n", [pytest.param(10_000 if SOAK else 300, marks=pytest.mark.soak)])
def test_two_workers_finish_the_same_shard_at_the_same_instant(tmp_path, forking, n):
    context = forking("augesc_builder.run.shards")
    meeting, found, is_over = context.Barrier(2), context.Queue(), context.Event()
    makers = [
        context.Process(target=_race, args=(tmp_path, maker, n, meeting, found)) for maker in (1, 2)
    ]
    owner = context.Process(target=_settle, args=(tmp_path, is_over))
    for process in (*makers, owner):
        process.start()
    said = [each for _ in makers for each in iter(found.get, None)]
    is_over.set()
    for process in (*makers, owner):
        process.join()
        assert process.exitcode == 0
    first = dict(said)
    assert len(said) == len(first) == n
    marks = Marks(tmp_path)
    for number in range(n):
        (name,) = files = marks.read(f"s-{number:05d}")["files"]
        assert not marks.damage(files)
        assert pq.read_table(tmp_path / name)["maker"].to_pylist() == [first[number]] * 3
    assert len(list((tmp_path / "t").iterdir())) == n
    assert not list((tmp_path / ".work").rglob("*.parquet"))
    print(f"{n} races: {sorted(first.values()).count(1)} to the first")


# -- kills -----------------------------------------------------------------------------------------


def _work(recipe, folder: Path, rank: int | None, until: str | None) -> None:
    """Do what a job of the batch file does; 3 is for what only the others can do."""
    if rank is not None:
        os.environ |= {"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": "2"}
    try:
        build(recipe, folder, QUIET, until=until)
    except ExecutorError as error:
        print(error)
        sys.exit(3)


@pytest.mark.parametrize("n_kills", [pytest.param(SOAK or 10, marks=pytest.mark.soak)])
def test_killed_at_random_in_all_stages(alone, shared, tmp_path, forking, n_kills):
    context = forking(
        "augesc_builder.pipeline.finetune.train", "augesc_builder.pipeline.filter.filter"
    )
    rng = random.Random() if SOAK else random.Random(5)
    kills, known, patience = 0, set(), 1.0
    stages: dict[str, int] = {}
    for number in itertools.count():  # builds, each killed until one is through
        folder = tmp_path / f"run-{number}"
        marks = folder / ".complete"
        while not (marks / "card.json").exists():
            if not (marks / f"{BEFORE}.json").exists():
                jobs = [(None, BEFORE)]
            elif len(shards(folder)) < N_SHARDS:
                jobs = [(0, None), (1, None), *([(None, None)] if rng.random() < 0.1 else [])]
            else:
                jobs = [(None, None)]
            at = [context.Process(target=_work, args=(shared, folder, *job)) for job in jobs]
            for process in at:
                process.start()
            for process in rng.sample(at, len(at)) if kills < n_kills else []:
                process.join(rng.uniform(0, patience))
                if process.exitcode is None:
                    stage = next((s for s in STAGES if not (marks / f"{s}.json").exists()), "card")
                    process.kill()
                    process.join()
                    stages[stage] = stages.get(stage, 0) + 1
                    kills += 1
            for process in at:
                process.join()
                assert process.exitcode in {0, 3, -signal.SIGKILL}
            # Whatever stands at its final place is whole.
            for path in folder.glob("[!.]*/**/*.parquet"):
                pq.read_table(path)
            for path in [*folder.glob("*.json"), *marks.glob("*.json")]:
                json.loads(path.read_text())
            found = {path.name for path in marks.glob("*.json")}
            # Where nothing new was finished, let the next ones live longer.
            known, patience = found, patience * 1.5 if found == known else max(1.0, patience / 2)
        check(folder, alone)
        shutil.rmtree(folder)
        if kills >= n_kills:
            break
    print(f"{kills} kills in {number + 1} builds, by stage: {stages}")


STAGES = ("queries", "finetune", "generate", "filter", "quality", "statistics", "card")


# -- stopped, and continued ------------------------------------------------------------------------


def test_an_element_is_stopped_until_the_run_is_done_and_then_goes_on(
    begun, alone, shared, tiny_file
):
    slow = element(begun, tiny_file, 0)
    try:
        wait(lambda: shards(begun) or slow.poll() is not None)
        slow.send_signal(signal.SIGSTOP)
        assert 0 < len(shards(begun)) < N_SHARDS
        assert element(begun, tiny_file, 1).wait() == 0
        assert build(shared, begun, QUIET)
        before = {path: path.stat().st_mtime_ns for path in begun.glob("*/**/*")}
    finally:
        slow.send_signal(signal.SIGCONT)
        code = slow.wait()
    assert code == 0
    after = {path: path.stat().st_mtime_ns for path in begun.glob("*/**/*")}
    assert {path: time for path, time in after.items() if ".workers" not in path.parts} == before
    check(begun, alone)


# -- clocks ----------------------------------------------------------------------------------------

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) { return atol(getenv("CLOCK_SHIFT")); }

int clock_gettime(clockid_t which, struct timespec *found) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int code = next(which, found);
    if (!code && which == CLOCK_REALTIME) found->tv_sec += shift();
    return code;
}

int gettimeofday(struct timeval *found, void *zone) {
    static int (*next)(struct timeval *, void *);
    if (!next) next = dlsym(RTLD_NEXT, "gettimeofday");
    int code = next(found, zone);
    if (!code) found->tv_sec += shift();
    return code;
}

time_t time(time_t *found) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found) *found = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A library that shifts the clock of a process that is begun with it."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a clock is shifted by a C compiler on Linux")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    library = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", library, folder / "clock.c", "-ldl"]
    subprocess.run(command, check=True)
    return library


def test_clocks_two_hours_apart_change_nothing(begun, alone, shared, tiny_file, clock):
    def at(rank, shift):
        return element(begun, tiny_file, rank, LD_PRELOAD=str(clock), CLOCK_SHIFT=str(shift))

    both = [at(0, -3600), at(1, 3600)]
    heard = {}
    while any(process.poll() is None for process in both):
        heard |= {each.pid: each.written.timestamp() - time.time() for each in read_workers(begun)}
        time.sleep(0.1)
    assert [process.returncode for process in both] == [0, 0]
    assert -3700 < heard[both[0].pid] < -3500
    assert 3500 < heard[both[1].pid] < 3700
    assert build(shared, begun, QUIET)
    check(begun, alone)


# -- the disk --------------------------------------------------------------------------------------


def _write(recipe, folder: Path, rank: int | None, until: str | None) -> None:
    try:
        _work(recipe, folder, rank, until)
    except DiskError as error:
        sys.exit(4 if "no space left to write it; free some" in str(error) else 5)


@pytest.mark.parametrize("n_times", [pytest.param(SOAK or 4, marks=pytest.mark.soak)])
def test_the_disk_is_full_at_a_random_write_of_any_stage(alone, shared, tmp_path, forking, n_times):
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk of this size can only be mounted by root")
    context = forking(
        "augesc_builder.pipeline.finetune.train", "augesc_builder.pipeline.filter.filter"
    )
    rng = random.Random() if SOAK else random.Random(5)
    full = 0

    def fill() -> None:
        free = rng.randrange(1 << 12, 1 << 20, 1 << 12) if full < n_times else 32 << 20
        with (mounted / "ballast").open("wb") as ballast:
            left = shutil.disk_usage(mounted).free
            ballast.truncate(0)
            os.posix_fallocate(ballast.fileno(), 0, max(1, left - free))

    try:
        for number in itertools.count():
            folder = mounted / f"run-{number}"
            while not (folder / ".complete/card.json").exists():
                fill()
                if not (folder / f".complete/{BEFORE}.json").exists():
                    jobs = [(None, BEFORE)]
                elif len(shards(folder)) < N_SHARDS:
                    jobs = [(0, None), (1, None)]
                else:
                    jobs = [(None, None)]
                at = [context.Process(target=_write, args=(shared, folder, *job)) for job in jobs]
                for process in at:
                    process.start()
                for process in at:
                    process.join()
                    assert process.exitcode in {0, 3, 4}
                    full += process.exitcode == 4
            check(folder, alone)
            shutil.rmtree(folder)
            if full >= n_times:
                break
    finally:
        # Lazily: torch may still hold the file that it could not finish.
        subprocess.run(["umount", "-l", str(mounted)], check=True)
    print(f"the disk was full {full} times in {number + 1} builds")


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_shard_is_told_by_the_last_job_and_made_again_by_an_element(
    begun, alone, shared, monkeypatch, how
):
    def as_element() -> None:
        with monkeypatch.context() as patch:
            patch.setenv("AUGESC_RANK", "0")
            assert build(shared, begun, QUIET)

    as_element()
    path = begun / f"generations/generations-00007-of-{N_SHARDS:05d}.parquet"
    data = path.read_bytes()
    cut = data[:-9] if how == "cut" else data[:99] + bytes([data[99] ^ 4]) + data[100:]
    path.write_bytes(cut)
    said: list[str] = []
    progress = Progress(quiet=True)
    progress.say = said.append
    with pytest.raises(ExecutorError, match="1 of 30 shards of generate are left: submit"):
        build(shared, begun, progress)
    assert any("generations-00007" in line and "made again" in line for line in said)
    as_element()
    assert build(shared, begun, QUIET)
    assert path.read_bytes() == data
    assert (begun / "set-aside" / path.relative_to(begun)).read_bytes() == cut
    assert corpus_of(begun) == corpus_of(alone)
    assert rows_of(begun / "generations") == rows_of(alone / "generations")
