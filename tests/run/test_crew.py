"""What is told of the workers of a run: from marks, and from what each says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from augesc_builder.run.crew import crew_of, told
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.heartbeat import WorkerStatus, read_workers, this_process
from augesc_builder.run.kinds import note_kind
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from augesc_builder.run.status import as_json, overview
from augesc_builder.run.status import told as all_told


def say(folder: Path, name: str = "a", **facts) -> None:
    given = {
        "stage": "generate",
        "device": "a GPU\x1b[31m",
        **{"n_shards": 10, "shards": 2, "rows": 9, "tokens": 90},
        **{"rows_a_second": 2.0, "tokens_a_second": 20.0, "slots_in_use": 0.5},
    }
    status = WorkerStatus(**{**given, **this_process("running"), **facts})
    (folder / ".workers").mkdir(exist_ok=True)
    (folder / f".workers/{name}.json").write_text(status.model_dump_json())


@pytest.fixture
def run(tmp_path):
    """Give the folder of a run with four shards, as a stop leaves it."""
    stopped, settings = pytest.raises(KeyboardInterrupt), {"stage": "generate"}
    with stopped, RunFolder(tmp_path, settings, Progress(quiet=True)) as folder:
        folder.begin("generate")
        for number in range(4):
            folder.add_shard("generate", number, 10, {"t/x": pa.table({"a": [1]})})
        raise KeyboardInterrupt
    return tmp_path


def test_without_workers_nothing_is_said_of_any(run):
    assert crew_of(run, Marks(run).counts()) is None
    assert "Workers" not in all_told(overview(run))


def test_rates_and_what_is_left_are_those_of_all_at_work(run):
    say(run, "a", kept=3, judged=8)
    say(run, "b", shards=1, rows=3, rows_a_second=1.0, kept=1, judged=2)
    crew = overview(run).crew
    assert (crew.shards, crew.n_shards, crew.rows_a_second) == (4, 10, 3.0)
    assert crew.seconds_left == 6 * 4 / 3  # 12 rows in 3 shards: 4 a shard
    lines = all_told(overview(run))
    assert (
        "Workers: 2 at work; 4 of 10 shards are done, 4 of 10 rows kept so far, 00:08 left."
        in lines
    )
    assert "\x1b" not in lines
    assert json.loads(as_json(overview(run)))["crew"]["workers"][0]["state"] == "at work"


def test_a_run_is_at_work_while_its_workers_are(run):
    say(run, "a")
    found = overview(run)
    assert (found.state, found.stages[0].state, found.to_go_on) == ("running", "at work", None)
    assert all_told(found).endswith("Workers are at work, and no process owns the run now.")
    say(run, "a", state="finished")
    found = overview(run)
    assert (found.state, found.stages[0].state) == ("interrupted", "begun")


def test_who_makes_nothing_is_idle_and_who_begins_is_not(run):
    say(run, "a", tokens_a_second=0.0, rows_a_second=0.0)
    say(run, "b", tokens_a_second=0.0, tokens=0)
    assert [w.state for w in crew_of(run, Marks(run).counts()).workers] == ["idle", "at work"]


def test_how_workers_ended(run):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    say(run, "a", state="finished")
    say(run, "b", state="failed", error="no space left")
    say(run, "c", pid=ended.pid)
    say(run, "d", host="elsewhere", written=long_ago)
    say(run, "e", host="elsewhere", written=long_ago + timedelta(hours=2))  # its clock is ahead
    crew = crew_of(run, Marks(run).counts())
    assert [w.state for w in crew.workers] == ["ended", "failed", "gone", "silent", "at work"]
    lines = told(crew)
    assert f"/{os.getpid()} failed: no space left" in "\n".join(lines)
    assert crew.rows_a_second == 2.0


def test_files_that_no_worker_wrote_are_passed_over(run):
    say(run, "a")
    for name, text in {"b": "{", "c": "[]", "d": "{}", "e": "x" * 70_000}.items():
        (run / f".workers/{name}.json").write_text(text)
    os.mkfifo(run / ".workers/f.json")
    (run / ".workers/g.json").mkdir()
    assert len(read_workers(run)) == 1


def test_they_go_when_the_run_is_done(run):
    say(run, "a")
    with RunFolder(run, {"stage": "generate"}) as folder:
        folder.complete("generate")
    assert not (run / ".workers").exists()


def test_kinds_of_machines_are_named(run):
    shards = Shards(run, print)
    note_kind(shards, "generate", {"name": "a GPU\x1b[31m", "dtype": "bfloat16"})
    assert "Machines: a GPU\\x1b[31m." in all_told(overview(run))
    note_kind(shards, "generate", {"name": "a CPU", "dtype": "float32"})
    found = overview(run)
    assert sorted(found.kinds) == ["a CPU (dtype float32)", "a GPU\\x1b[31m (dtype bfloat16)"]
    assert "Kinds of machines: " in all_told(found)
    assert json.loads(as_json(found))["kinds"] == found.kinds
