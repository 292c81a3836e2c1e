from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import DiskError, InputError, RunFolderError, SettingsChangedError
from augesc_builder.run import folder as folder_module
from augesc_builder.run import progress as progress_module
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.layout import shard_path
from augesc_builder.run.progress import Progress

TABLE = pa.table({"a": [1, 2, 3]})


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {".lock"}


def test_a_run_leaves_its_files_and_nothing_half_done(tmp_path):
    out = tmp_path / "new" / "run"
    with RunFolder(out, {"seed": 1}) as run:
        run.write_table("t/x.parquet", TABLE)
        run.write_text("t/x.txt", "caf\u00e9")
        run.write_folder("folder", lambda f: (f / "inner").write_text("1") and None)
        run.complete("stage", tables={"t": 3}, rows=3)
    assert files(out) == {
        *("t/x.parquet", "t/x.txt", "folder/inner", "manifest.json", ".complete/stage.json"),
    }
    assert not (out / ".work").exists()
    assert pq.read_table(out / "t" / "x.parquet") == TABLE
    manifest = read_manifest(out)
    assert manifest.pop("seconds")["stage"] < 600
    assert len(manifest.pop("run_id")) == 32
    assert set(manifest.pop("stage_versions")["stage"]) >= {"augesc-builder", "torch"}
    assert manifest == {
        "kind": "augesc run",
        "fingerprint": "a4bbadc1c78966d2",
        "settings": {"seed": 1},
        "stages": {"stage": {"rows": 3}},
        "tables": {"t": 3},
    }
    with RunFolder(out, {"seed": 1}) as run:
        assert run.is_complete("stage")
        assert run.facts("stage") == {"rows": 3}
        assert not run.is_complete("other")


def test_shards_are_written_once(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        assert list(run.shards("s", 3)) == [0, 1, 2]
        run.add_shard("s", 1, 3, {"t/part": TABLE, "u/part": TABLE[:1]}, kept=2)
        assert list(run.shards("s", 3)) == [0, 2]
        assert (tmp_path / shard_path("t/part", 1, 3)).name == "part-00001-of-00003.parquet"
        run.add_shard("s", 0, 3, {"t/part": TABLE})
        run.add_shard("s", 2, 3, {"t/part": TABLE})
        assert run.shard_facts("s", 3)[1] == {"rows": {"t/part": 3, "u/part": 1}, "kept": 2}


def test_a_failed_write_leaves_what_was_there(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with RunFolder(tmp_path, {}) as run:
        run.write_text("a.txt", "old")
        run.write_folder("folder", lambda f: (f / "whole").write_text("1") and None)
        run.complete("stage")
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, {}) as run:
        run.write_folder("folder", fail)
    with pytest.raises(ValueError, match="JSON compliant"), RunFolder(tmp_path, {}) as run:
        run.write_json("a.txt", float("nan"))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert {p.name for p in (tmp_path / "folder").iterdir()} == {"whole"}


def test_other_settings_are_refused_with_what_differs(tmp_path):
    with RunFolder(tmp_path, {"seed": 1, "generate": {"top_p": 0.9, "x": 1}}) as run:
        run.complete("stage")
    with (
        pytest.raises(SettingsChangedError) as error,
        RunFolder(tmp_path, {"seed": 2, "generate": {"top_p": 0.8, "x": 1}, "new": None}),
    ):
        pass
    assert "seed (1 there, 2 now), generate.top_p (0.9 there, 0.8 now)" in str(error.value)
    assert "new" not in str(error.value)


def test_settings_may_change_while_nothing_is_finished(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, {"seed": 1}) as run:
        (run.work("finetune") / "state").write_text("of seed 1")
        raise KeyboardInterrupt
    with RunFolder(tmp_path, {"seed": 1}) as run:
        assert (run.work("finetune") / "state").exists()
        raise_it = KeyboardInterrupt
    with pytest.raises(raise_it), RunFolder(tmp_path, {"seed": 1}) as run:
        (run.work("finetune") / "state").write_text("of seed 1")
        raise KeyboardInterrupt
    with RunFolder(tmp_path, {"seed": 2}) as run:
        assert not (run.work("finetune") / "state").exists()
        assert run.manifest["settings"] == {"seed": 2}
        assert set(run.manifest) == {"kind", "run_id", "settings", "fingerprint"}


def test_a_mistake_before_anything_is_finished_leaves_nothing(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError), RunFolder(out, {}) as run:
        run.record(more="facts")
        raise InputError("bad", "file")
    assert not out.exists()
    out.mkdir()  # an empty folder of the user's stays
    with pytest.raises(InputError), RunFolder(out, {}) as run:
        run.write_text("recipe.yaml", "x")
        raise InputError("bad", "file")
    assert not out.exists() or not any(out.iterdir())


def test_a_mistake_removes_the_tables_of_the_unfinished_stage(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError), RunFolder(out, {}) as run:
        run.write_table("t/x.parquet", TABLE)
        raise InputError("bad", "file")
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt), RunFolder(out, {}) as run:
        run.write_table("t/x.parquet", TABLE)  # as after a kill: there, and no mark
        raise KeyboardInterrupt
    with pytest.raises(InputError), RunFolder(out, {}) as run:
        raise InputError("bad", "file")
    with RunFolder(out, {}) as run:  # the folder is still known as a run's
        run.complete("stage")


def test_a_mistake_later_keeps_what_is_finished(tmp_path):
    with pytest.raises(InputError), RunFolder(tmp_path, {}) as run:
        run.complete("stage")
        raise InputError("bad", "file")
    assert RunFolder(tmp_path, {}).is_complete("stage")


def test_two_runs_at_once(tmp_path):
    with (
        RunFolder(tmp_path, {}),
        pytest.raises(RunFolderError, match="another run is at work there"),
        RunFolder(tmp_path, {}),
    ):
        pass


def test_folders_that_are_none_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"), RunFolder(tmp_path / "file", {}):
        pass
    with pytest.raises(RunFolderError, match="no run left"), RunFolder(tmp_path, {}):
        pass
    with pytest.raises(DiskError, match="Not a directory"), RunFolder(tmp_path / "file" / "x", {}):
        pass
    with pytest.raises(RunFolderError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    assert files(tmp_path) == {"file"}


def test_a_broken_manifest_is_an_error(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"unreadable.*put the file back") as error:
        RunFolder(tmp_path, {}).__enter__()
    assert "delete" not in str(error.value)
    assert files(tmp_path) == {"manifest.json"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(27, "File too large"),
        OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left" })'),
    ],
)
def test_a_full_disk_is_known_from_whichever_library(error):
    with pytest.raises(DiskError, match="no space left"), disk_errors(Path("x")):
        raise error


def test_other_errors_are_not_taken_for_a_full_disk():
    with pytest.raises(FileNotFoundError), disk_errors(Path("x")):
        raise FileNotFoundError(2, "nothing such")
    with pytest.raises(ValueError, match="280"), disk_errors(Path("x")):
        raise ValueError("code: 280")


def test_marks_hold_json(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        run.complete("stage", share=None)
    mark = json.loads((tmp_path / ".complete" / "stage.json").read_text())
    assert mark["facts"] == {"share": None}


# -- how long a stage took ------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Time that passes where a test says so, for folders and what they say of progress."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(folder_module, "time", clock)
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def spend(out: Path, clock: Any, seconds: float, *, end: BaseException | None = None) -> None:
    """Be so long at a stage that has a shard done, and finish it or end by an error."""
    with RunFolder(out, {}, Progress(quiet=True)) as run:
        run.begin("generate")
        if "generate-00000" not in run.marks:
            run.add_shard("generate", 0, 2, {"t/x": TABLE})
        clock.now += seconds
        run._progress._look()  # as its thread does every two seconds
        if end is not None:
            raise end
        run.complete("generate")


def test_a_stage_took_as_long_as_all_the_processes_at_it(tmp_path, clock):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        spend(out, clock, 30, end=KeyboardInterrupt())
    with pytest.raises(InputError):
        spend(out, clock, 20, end=InputError("gone", "file"))
    assert read_manifest(out)["seconds"] == {"generate": 30}
    spend(out, clock, 10)
    assert read_manifest(out)["seconds"] == {"generate": 60}
    with RunFolder(out, {}, Progress(quiet=True)) as run:  # what is done is not counted again
        clock.now += 5
        run.begin("filter")
        run.complete("filter")
    assert read_manifest(out)["seconds"] == {"generate": 60, "filter": 5}
    with RunFolder(out, {}, Progress(quiet=True)) as run:  # from new inputs: another stage
        run.start_again("generate")
        assert run.manifest["seconds"] == {"filter": 5}
        assert run.marks.names("generate") == []


def test_a_killed_process_counts_to_its_last_word(tmp_path):
    code = (
        "import os, sys\n"
        "from augesc_builder.run import progress\n"
        "from augesc_builder.run.folder import RunFolder\n"
        "run = RunFolder(sys.argv[1], {}, progress.Progress(quiet=True)).__enter__()\n"
        "run.begin('generate')\n"
        "run._progress._clock -= 100\n"
        "run._progress._look()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    out = tmp_path / "run"
    for _ in range(2):
        killed = subprocess.run([sys.executable, "-c", code, str(out)], check=False)
        assert killed.returncode == -signal.SIGKILL
    with RunFolder(out, {}) as run:
        assert 200 <= run.manifest["seconds"]["generate"] < 300
    with RunFolder(out, {}) as run:  # by a process without a word of its own: counted once
        assert 200 <= run.manifest["seconds"]["generate"] < 300
        run.complete("generate")
    assert 200 <= read_manifest(out)["seconds"]["generate"] < 500


def test_a_status_file_that_is_none_costs_nothing_but_the_time_it_told(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        run.add_shard("generate", 0, 2, {"t/x": TABLE})
    (tmp_path / ".status.json").write_text("nonsense")
    with RunFolder(tmp_path, {}) as run:
        run.complete("generate")
    assert read_manifest(tmp_path)["seconds"]["generate"] < 100
