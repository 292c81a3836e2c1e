"""The status file: whole or not there, hostile ones refused, the dead told from the living."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import unicodedata
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import DiskError, RunFolderError
from augesc_builder.run import heartbeat
from augesc_builder.run.heartbeat import SILENT, StatusFile, Work, is_at_work, read_status
from tests.conftest import SOAK
from tests.readers.mutations import mutate_line

NOW = datetime.now(timezone.utc)
COUNTS, SECONDS = st.none() | st.integers(0, 1 << 53), st.floats(0, 1e12)
TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=90)
WORKS = st.builds(
    Work,
    stage=TEXTS,
    since=st.datetimes(timezones=st.just(timezone.utc)),
    seconds=SECONDS,
    what=TEXTS,
    unit=TEXTS,
    done=COUNTS,
    total=COUNTS,
    rate=st.none() | SECONDS,
    seconds_left=st.none() | SECONDS,
    facts=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20),
        st.floats(-1e12, 1e12) | st.integers(-(10**12), 10**12),
        max_size=5,
    ),
)


def written(folder: Path, **changes: object) -> dict[str, object]:
    """Write a status, and again with changes."""
    StatusFile(folder).write(Work(stage="generate", since=NOW, seconds=1.0))
    found = json.loads((folder / ".status.json").read_text()) | changes
    (folder / ".status.json").write_text(json.dumps(found))
    return found


@given(work=WORKS)
def test_what_is_written_is_read(work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    file = StatusFile(folder)
    file.write(work)
    found = read_status(folder)
    assert found is not None
    assert (found.work, found.state, found.pid) == (work, "running", os.getpid())
    file.end(None)
    assert read_status(folder).state == "finished"
    assert [path.name for path in folder.iterdir()] == [".status.json"]


@pytest.mark.parametrize(
    ("error", "state", "line"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "interrupted", None),
        (DiskError("no space\nleft \x1b[2J"), "failed", r"no space left \x1b[2J"),
        (ValueError("x" * 9000), "failed", f"ValueError: {'x' * 388}"),
    ],
)
def test_how_it_ended_is_told_in_a_line(tmp_path, error, state, line):
    file = StatusFile(tmp_path)
    file.write(Work(since=NOW, seconds=0.0))
    file.end(error)
    found = read_status(tmp_path)
    assert (found.state, found.error) == (state, line)


def test_a_run_goes_on_where_no_status_can_be_written(tmp_path):
    gone = StatusFile(tmp_path / "gone")
    gone.write(Work(since=NOW, seconds=0.0))
    gone.end(None)
    (tmp_path / ".status.json").mkdir()
    StatusFile(tmp_path).write(Work(since=NOW, seconds=0.0))
    assert [path.name for path in tmp_path.iterdir()] == [".status.json"]


def test_a_kill_leaves_a_whole_status_and_the_next_run_writes_over_it(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom datetime import datetime, timezone\n"
        "from augesc_builder.run.heartbeat import StatusFile, Work\n"
        "file, n = StatusFile(Path(sys.argv[1])), 0\n"
        "while True:\n"
        "    file.write(Work(since=datetime.now(timezone.utc), seconds=0.0, done=n))\n"
        "    n += 1\n"
    )
    rng, command = random.Random(0), [sys.executable, "-c", code, str(tmp_path)]
    for _ in range(SOAK or 4):
        before = read_status(tmp_path)
        with subprocess.Popen(command) as process:
            while read_status(tmp_path) == before:
                assert process.poll() is None
            time.sleep(rng.random() / 50)
            process.kill()
        found = read_status(tmp_path)
        assert (found.state, found.pid) == ("running", process.pid)
        assert is_at_work(found) is False
    StatusFile(tmp_path).write(Work(since=NOW, seconds=0.0))
    assert [path.name for path in tmp_path.iterdir()] == [".status.json"]


# -- hostile --------------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(RunFolderError) as error:
        read_status(folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pid": -1}, "pid: Input should be greater than or equal to 1"),
        ({"pid": True}, "pid: Input should be a valid integer"),
        ({"pid": 10**30}, "pid: "),
        ({"state": "\x1b[2J"}, "state: Input should be"),
        ({"kind": "app"}, "kind: Input should be 'augesc status'"),
        ({"written": "2026-01-01"}, "written: "),
        ({"written": 5}, "written: "),
        ({"error": "x" * 501}, "error: String should have at most 500 characters"),
        ({"work": []}, "work: "),
        ({"work": {"since": "2026-01-01T00:00:00Z", "seconds": 1e300}}, "work.seconds: "),
        (
            {"work": {"since": "2026-01-01T00:00:00Z", "seconds": 0, "facts": {"a": "b"}}},
            "work.facts.a.",
        ),
    ],
)
def test_wrong_values_are_one_line(tmp_path, changes, says):
    written(tmp_path, **changes)
    line = refused(tmp_path)
    assert line.startswith(f"{tmp_path / '.status.json'}: not as a run writes it: {says}")
    assert line.endswith("; remove it, the next run writes it anew")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 50_000, b"9" * 60_000, b'{"pid": NaN}', b"\xff\xfe", b"x" * (1 << 17)],
    ids=["empty", "half", "deep", "digits", "nan", "no-text", "large"],
)
def test_what_is_no_status_is_one_line(tmp_path, content):
    (tmp_path / ".status.json").write_bytes(content)
    assert "\n" not in refused(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device"])
def test_what_is_no_file_is_one_line(tmp_path, kind):
    path = tmp_path / ".status.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    assert "\n" not in refused(tmp_path)


@given(seed=st.integers(0, 10**9))
def test_a_damaged_status_is_one_or_refused_in_a_line(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("run")
    written(folder, error="e", state="failed")
    path = folder / ".status.json"
    path.write_bytes(mutate_line(random.Random(seed), path.read_bytes()))
    try:
        read_status(folder)
    except RunFolderError as error:
        line = str(error)
        assert not any(unicodedata.category(c) == "Cc" for c in line), line


def test_what_a_later_version_adds_is_passed_over(tmp_path):
    written(tmp_path, humidity=0.4)
    assert read_status(tmp_path).work.stage == "generate"


# -- at work or not -------------------------------------------------------------------------------


def test_this_process_is_at_work_and_others_of_its_number_are_not(tmp_path):
    written(tmp_path)
    mine = read_status(tmp_path)
    assert is_at_work(mine) is True
    assert is_at_work(mine.model_copy(update={"started": "1"})) is False


@pytest.mark.parametrize("is_reaped", [False, True])
def test_a_process_that_has_ended_is_not_at_work(tmp_path, is_reaped):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom datetime import datetime, timezone\n"
        "from augesc_builder.run.heartbeat import StatusFile, Work\n"
        "work = Work(since=datetime.now(timezone.utc), seconds=0.0)\n"
        "StatusFile(Path(sys.argv[1])).write(work)\n"
        "print('written', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"written\n"
        status = read_status(tmp_path)
        assert status.pid == process.pid
        assert is_at_work(status) is True
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if is_reaped else os.WNOWAIT))
        assert is_at_work(status) is False
        process.stdin.close()


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"pids": "pid:[1]"}])
@pytest.mark.parametrize(
    ("since", "expected"),
    [(SILENT - timedelta(seconds=60), True), (SILENT + timedelta(seconds=1), None)],
)
def test_elsewhere_it_is_at_work_as_long_as_it_is_heard_of(tmp_path, elsewhere, since, expected):
    """Another machine, or another container of this one; this process's number says nothing."""
    written(tmp_path)
    heard = datetime.now(timezone.utc) - since
    status = read_status(tmp_path).model_copy(
        update={**elsewhere, "written": heard, "pid": 1 << 30}
    )
    assert is_at_work(status) is expected


def test_without_proc_signals_tell(tmp_path, monkeypatch):
    written(tmp_path)
    mine = read_status(tmp_path)

    def fail(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(heartbeat.Path, "read_text", fail)
    assert is_at_work(mine) is True
    assert is_at_work(mine.model_copy(update={"pid": 1 << 30})) is False
