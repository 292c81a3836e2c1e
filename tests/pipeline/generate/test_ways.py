"""Processes and threads: which are tried, which is chosen, what a resumed run keeps of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DiskError, RunFolderError
from augesc_builder.pipeline.generate import capacity, workers
from augesc_builder.pipeline.generate.backends import local
from augesc_builder.pipeline.generate.ways import (
    WORTH,
    Way,
    fastest,
    kept,
    noted,
    told,
    ways,
    worth_trying,
)
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.status import overview
from augesc_builder.run.status import told as told_status
from tests.conftest import rows_of

ONE, THREADS, PROCESSES = Way(1, 1), Way(1, 2), Way(2, 1)
N = st.integers(1, 200)


@pytest.mark.parametrize(
    ("most", "threads", "workers", "expected"),
    [
        (1, 1, None, [ONE]),
        (2, 2, None, [ONE, THREADS, PROCESSES]),
        (2, 1, None, [ONE, PROCESSES]),  # OMP_NUM_THREADS=1
        (1, 2, None, [ONE, THREADS]),  # memory for one
        (8, 8, None, [ONE, (1, 8), (2, 4), (4, 2), (8, 1)]),
        (3, 8, None, [ONE, (1, 8), (2, 4), (3, 1), (3, 2)]),
        (2, 2, 2, [PROCESSES]),
        (1, 2, 1, [ONE, THREADS]),
        (2, 8, 2, [PROCESSES, (2, 4)]),
    ],
)
def test_ways_to_try(most, threads, workers, expected):
    assert ways(most, threads, workers) == expected


@given(N, N, st.none() | N)
def test_no_way_takes_more_than_there_is(most, threads, workers):
    found = ways(most, threads, workers)
    assert found[0] == (workers or 1, 1)
    assert len(set(found)) == len(found)
    for processes, each in found:
        assert processes == workers if workers else processes <= most
        assert each == 1 or processes * each <= threads


def test_little_work_is_left_to_one():
    found = ways(4, 4, None)
    assert worth_trying(found, 2 * WORTH - 0.1) == [ONE]
    assert worth_trying(found, 2 * WORTH) == [ONE, (1, 4), (2, 2)]
    assert worth_trying(found, 4 * WORTH - 0.1) == [ONE, (1, 4), (2, 2)]
    assert worth_trying(found, 4 * WORTH) == found
    asked_for = ways(4, 8, 4)
    assert worth_trying(asked_for, 2 * WORTH - 0.1) == [Way(4, 1)]
    assert worth_trying(asked_for, 2 * WORTH) == asked_for


@pytest.mark.parametrize(
    ("one", "threads", "processes", "expected"),
    [
        (100, 150, 190, PROCESSES),
        (100, 190, 150, THREADS),
        (100, 190, 185, PROCESSES),  # hardly slower, and nothing waits
        (100, 100, 104, ONE),
        (100, 80, 106, PROCESSES),
        (100, 106, 90, THREADS),
        (100, 40, 60, ONE),
    ],
)
def test_the_fastest_way_or_a_cheaper_one_that_is_hardly_slower(one, threads, processes, expected):
    assert fastest({ONE: one, THREADS: threads, PROCESSES: processes}) == expected


@given(st.dictionaries(st.builds(Way, N, N), st.floats(1e-3, 1e6), min_size=1))
def test_no_choice_loses_much(rates):
    assert rates[fastest(rates)] * 1.05 >= max(rates.values())


@pytest.mark.parametrize(
    ("begun", "most", "cores", "expected"),
    [
        (PROCESSES, 2, 2, PROCESSES),
        (PROCESSES, 8, 8, PROCESSES),  # more room changes nothing
        (PROCESSES, 1, 2, ONE),  # no memory for two
        (PROCESSES, 2, 1, ONE),
        (Way(2, 4), 4, 4, (1, 4)),
        (Way(1, 8), 1, 2, (1, 8)),  # threads stay: rows may depend on them
    ],
)
def test_a_resumed_run_keeps_its_way_as_far_as_it_can(begun, most, cores, expected):
    assert kept(begun, most, cores) == expected


def test_the_choice_in_a_line():
    assert told(ONE, {}) == told(ONE, {ONE: 9}) == "1 process, 1 thread"
    rates = {ONE: 100.0, THREADS: 170.0, PROCESSES: 190.0}
    line = "2 processes, 1 thread each: 1.90 times one (1 process, 2 threads: 1.70)"
    assert told(PROCESSES, rates) == line
    assert told(Way(2, 4), {PROCESSES: 2.0, Way(2, 4): 3.0}) == (
        "2 processes, 4 threads each: 1.50 times 2 processes, 1 thread each"
    )
    facts = noted(PROCESSES, rates)
    assert (facts["processes"], facts["threads"], facts["choice"]) == (2, 1, line)
    assert facts["measured"][2] == {"processes": 2, "threads": 1, "tokens_a_second": 190.0}


# -- measured, on real models ----------------------------------------------------------------------


@pytest.fixture
def measures(monkeypatch):
    """Let there be work enough to measure for, and make the measuring short."""
    monkeypatch.setattr(local, "worth_trying", lambda found, _: found)
    monkeypatch.setattr(local, "_MEASURE", 0.05)
    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setattr(capacity, "cores", lambda: 2)


@pytest.fixture
def backend(built, tiny_file, tmp_path):
    """Make the backend of the tiny recipe, and close what was made."""
    made = []

    def make(*overrides):
        recipe = load_recipe(tiny_file, ["generate.backend.dtype=float32", *overrides])
        made.append(local.LocalBackend(recipe, built / "checkpoint", tmp_path))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _noted(folder: Path):
    return json.loads((folder / "manifest.json").read_text())["generate"]


@pytest.mark.parametrize("chosen", [pytest.param(ONE, marks=pytest.mark.slow), PROCESSES])
def test_it_is_measured_noted_and_kept_and_changes_no_row(
    chosen, generate, built, measures, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(local, "fastest", lambda _: chosen)
    begun = []
    crew_of = workers.crew_of
    monkeypatch.setattr(workers, "crew_of", lambda n, *a: begun.append(n) or crew_of(n, *a))
    assert generate(progress=Progress()) == rows_of(built / "generations")
    noted_there = _noted(tmp_path / "out")
    assert Way(noted_there["processes"], noted_there["threads"]) == chosen
    assert [(way["processes"], way["threads"]) for way in noted_there["measured"]] == [
        ONE,
        PROCESSES,
    ]
    assert all(way["tokens_a_second"] > 0 for way in noted_there["measured"])
    assert begun == [1, 2]  # the one that looked, and those that measured and then went on
    said = capsys.readouterr().out
    assert noted_there["choice"] in said
    assert f"Generation: {noted_there['choice']}." in told_status(overview(tmp_path / "out"))


def test_what_was_begun_is_kept_without_measuring(built, backend, measures, monkeypatch):
    facts = _noted(built)
    backend = backend()
    monkeypatch.setattr(local.LocalBackend, "_measured", lambda *_: pytest.fail("measured again"))
    for begun in (ONE, PROCESSES):
        known = {**facts, **begun._asdict()}
        assert backend.prepare(known, 12, 3) == known
        assert backend._way == begun
    assert backend.prepare({**facts, **PROCESSES._asdict()}, 1, 1)
    assert backend._way == ONE  # one row is left: no warning
    monkeypatch.setattr(local, "cores", lambda: 1)
    with pytest.warns(RuntimeWarning, match=r"begun with 2 processes.*goes on with 1 process, 1 t"):
        backend.prepare({**facts, **PROCESSES._asdict()}, 12, 3)
    with pytest.warns(RuntimeWarning, match="goes on with 1 process, 8 threads"):
        backend.prepare({**facts, "processes": 1, "threads": 8}, 12, 3)


def test_a_trial_of_processes_that_fails_ends_in_one(
    generate, built, measures, tmp_path, monkeypatch
):
    def killed(*_):
        raise RunFolderError("a process that generated was killed")

    monkeypatch.setattr(workers.Processes, "rate", killed)
    with pytest.warns(RuntimeWarning, match="1 process, 1 thread: the trial of others failed"):
        assert generate() == rows_of(built / "generations")
    assert _noted(tmp_path / "out")["choice"] == "1 process, 1 thread"


@pytest.mark.slow
def test_processes_end_where_the_folder_takes_no_more(generate, measures, tmp_path, monkeypatch):
    made = []
    processes = workers.Processes.__init__

    def noted(self, *arguments):
        processes(self, *arguments)
        made.extend(self._workers)

    def full(*_, **__):
        raise DiskError("no space left")

    monkeypatch.setattr(workers.Processes, "__init__", noted)
    monkeypatch.setattr(local, "fastest", lambda _: PROCESSES)
    monkeypatch.setattr(RunFolder, "add", full)
    with pytest.raises(DiskError):
        generate()
    assert len(made) == 2
    assert not any(worker.is_alive() for worker in made)


MEASURING = """
from augesc_builder.pipeline.generate.backends import local
from augesc_builder.pipeline.generate import capacity
local.worth_trying, local._MEASURE = lambda found, _: found, 600
local.cores = capacity.cores = lambda: 2
from augesc_builder.cli.app import main
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_kill_while_it_measures_leaves_nothing_bad(built, tiny_file, tmp_path, generate):
    script = tmp_path / "measuring.py"
    script.write_text(MEASURING)
    command = [sys.executable, script, "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([*map(str, command)], start_new_session=True, env=environment) as process:
        try:
            at = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while len(found := _spawned(at)) < 2:
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    while any(_is_at_work(pid) for pid in found):
        time.sleep(0.02)  # they end by themselves
    assert "generate" not in json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert generate() == rows_of(built / "generations")


def _spawned(children: Path) -> list[int]:
    found = map(int, children.read_text().split())
    return [pid for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def _is_at_work(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_rate_is_one_of_tokens(backend):
    alone = backend()._of(1)
    assert 0 < alone.rate(ONE, 0.05) < 1e6
    assert alone._generator().utilisation == 0  # what was measured is not counted
    assert backend("generate.max_tokens=1")._of(1).rate(ONE, 0.05) == float("inf")


def test_threads_are_as_before_behind_a_measurement(backend):
    torch.set_num_threads(2)
    try:
        backend()._of(1).rate(ONE, 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
