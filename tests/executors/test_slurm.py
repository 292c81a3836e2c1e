"""The elements of an array: who takes which shard, and the file that is submitted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import ExecutorError
from augesc_builder.executors.slurm import SlurmElement, SlurmOwner, slurm_executor
from augesc_builder.pipeline.inputs import run_settings
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.versions import CODE, fingerprint
from tests.executors.shards_of_rows import Maker, job_at


class Job:
    """A job of numbers; ``made`` is what has a mark."""

    stage = "generate"

    def __init__(self, n_shards: int, made=()) -> None:
        self.n_shards, self.made, self.workers = n_shards, set(made), 0

    def missing(self):
        return (n for n in range(self.n_shards) if n not in self.made)

    def is_done(self, number):
        return number in self.made

    def worker(self, *, alone):
        assert not alone
        self.workers += 1
        return Worker(self)


class Worker:
    """Makes a shard at a time, and leaves off behind the second."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def make(self, numbers):
        for made, number in enumerate(numbers, 1):
            self.job.made.add(number)
            yield number
            if made == 2:
                return

    def close(self):
        self.job.workers -= 1


@given(st.integers(0, 60), st.integers(1, 9), st.data())
def test_an_element_takes_its_own_first_and_every_shard_once(n_shards, size, data):
    rank = data.draw(st.integers(0, size - 1))
    found = list(SlurmElement(rank, size).numbers(n_shards))
    own = list(range(rank, n_shards, size))
    assert found[: len(own)] == own
    assert sorted(found) == list(range(n_shards))


def test_elements_that_help_begin_at_other_places():
    firsts = {list(SlurmElement(rank, 16).numbers(1600))[100] for rank in range(16)}
    assert len(firsts) > 12


def test_an_element_makes_all_that_the_others_do_not():
    job = Job(10, made={0, 3, 4})
    assert sorted(SlurmElement(1, 3).run(job)) == [1, 2, 5, 6, 7, 8, 9]
    assert not list(job.missing())
    assert job.workers == 0


def test_nothing_is_loaded_where_nothing_is_left():
    job = Job(3, made=range(3))
    job.worker = None
    assert list(SlurmElement(0, 2).run(job)) == []


class Unloaded(Maker):
    """Cannot be loaded."""

    def __call__(self):
        raise ValueError("no such model")


def test_a_worker_that_cannot_be_made_is_not_said_to_be_at_work(tmp_path):
    job = job_at(tmp_path / "run", 3, Unloaded)
    with pytest.raises(ValueError, match="no such model"):
        list(SlurmElement(0, 1).run(job))
    assert list(read_workers(tmp_path / "run")) == []


def test_who_owns_the_run_makes_none_and_says_what_is_left():
    with pytest.raises(ExecutorError, match="1,500 of 2,000 shards of generate are left: submit"):
        SlurmOwner().run(Job(2000, made=range(500)))
    assert list(SlurmOwner().run(Job(2, made=range(2)))) == []


def test_the_environment_says_which_element_this_is():
    array = {"SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_MAX": "7"}
    element = slurm_executor({"SLURM_ARRAY_TASK_ID": "5", **array})
    assert (element.rank, element.size, element.joins) == (1, 4, True)
    element = slurm_executor({"AUGESC_RANK": "2", "AUGESC_WORLD_SIZE": "3"})
    assert (element.rank, element.size) == (2, 3)
    assert not slurm_executor({"SLURM_JOB_ID": "5"}).joins
    most = slurm_executor({"AUGESC_RANK": "0", "AUGESC_WORLD_SIZE": "9" * 10})
    assert most.size == 9_999_999_999


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_ARRAY_TASK_ID": "x"},
        {"SLURM_ARRAY_TASK_ID": "9" * 40},
        {"AUGESC_RANK": "0", "AUGESC_WORLD_SIZE": "1" + "0" * 10},
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "2"},
        {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_STEP": "2"},
        {"AUGESC_RANK": "1"},
        {"AUGESC_RANK": "-1", "AUGESC_WORLD_SIZE": "2"},
    ],
)
def test_an_environment_that_is_none_is_told_in_a_line(environ):
    with pytest.raises(ExecutorError):
        slurm_executor(environ)


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Put a Slurm on the path that notes what is asked of it; give the notes."""
    folder, notes = tmp_path / "bin", tmp_path / "notes"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/bash\necho "$@" >> {notes}\necho 7\n')
    (folder / "scontrol").write_text('#!/bin/bash\necho "MaxArraySize            = 1001"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return notes


def test_the_file_is_a_script_that_submits_itself(augesc, sbatch, tmp_path):
    given = ["--set", "seed=5", "--set", "name=it's $(touch x)", "--sbatch=--gres=gpu:1"]
    code, said, err = augesc("slurm", "tiny", "--out", tmp_path / "a b", "--array", 16, *given)
    assert code == 0, err
    file = tmp_path / "a b.sbatch"
    assert f"bash '{file}'" in said
    text = file.read_text()
    assert "#SBATCH --gres=gpu:1\n" in text
    assert "#SBATCH --requeue\n" in text
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0
    subprocess.run(["bash", str(file)], check=True)
    first, shards, last = sbatch.read_text().splitlines()
    assert first == f"--parsable {file} first"
    assert "--array=0-15 --dependency=afterok:7" in shards
    assert last == f"--parsable --dependency=afterany:7 {file} last"
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("role", "until"), [("first", "finetune"), ("shards", None), ("last", None)]
)
def test_each_job_is_the_same_build(augesc, tmp_path, role, until):
    file = tmp_path / "x.sbatch"
    augesc(
        "slurm", "tiny", "--out", tmp_path / "run", "--array", 2, "--file", file, "--set", "seed=5"
    )
    said = tmp_path / "said"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {said}\n')
    python.chmod(0o755)
    file.write_text(file.read_text().replace(sys.executable, str(python)))
    subprocess.run(["bash", str(file), role], check=True)
    words = said.read_text().splitlines()
    expected = ["-m", "augesc_builder", "build", "--recipe", "tiny"]
    expected += ["--out", str(tmp_path / "run"), "--set", "seed=5", "--executor", "slurm"]
    assert words == expected + (["--until", until] if until else [])


@pytest.mark.parametrize("name", ['a "b', "a\nb"])
@pytest.mark.parametrize("in_folder", [False, True])
def test_a_file_that_no_batch_file_can_name(refused, tmp_path, monkeypatch, name, in_folder):
    folder = tmp_path / name if in_folder else tmp_path
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    file = "x.sbatch" if in_folder else f"{name}.sbatch"
    call = ("slurm", "tiny", "--out", tmp_path / "run", "--array", 2, "--file", file)
    assert "a batch file cannot name it; give another --file" in refused(*call)
    assert not (folder / file).exists()


def test_what_somebody_edited_is_not_overwritten(augesc, refused, tmp_path):
    call = ("slurm", "tiny", "--out", tmp_path / "run", "--array", 2)
    assert augesc(*call)[0] == 0
    assert augesc(*call)[0] == 0
    (tmp_path / "run.sbatch").write_text("mine")
    assert "says something else" in refused(*call)
    assert (tmp_path / "run.sbatch").read_text() == "mine"


def test_an_array_larger_than_the_cluster_takes(refused, augesc, sbatch, tmp_path):
    call = ("slurm", "tiny", "--out", tmp_path / "run", "--submit", "--array")
    assert "at most 1,000 elements (MaxArraySize)" in refused(*call, 1001)
    assert not sbatch.exists()
    code, said, _ = augesc(*call, 1000)
    assert code == 0
    assert "submitted: first 7, shards 7, last 7" in said


def test_no_sbatch_on_the_path(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch on the path" in refused(
        "slurm", "tiny", "--out", tmp_path / "run", "--array", 2, "--submit"
    )
    assert not (tmp_path / "run.sbatch").exists()


def test_the_file_of_a_ray_cluster(augesc, sbatch, tmp_path):
    given = ["--ray", "--nodes", 3, "--sbatch=--gres=gpu:1", "--set", "name=it's $(touch x)"]
    code, _, err = augesc("slurm", "tiny", "--out", tmp_path / "a b", *given)
    assert code == 0, err
    file = tmp_path / "a b.sbatch"
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0
    assert "#SBATCH --gres=gpu:1\n" in file.read_text()
    subprocess.run(["bash", str(file)], check=True)
    first, shards, last = sbatch.read_text().splitlines()
    assert first == f"--parsable --nodes=1 {file} first"
    assert shards.startswith("--parsable --nodes=3 --ntasks-per-node=1 --no-kill --dependency")
    assert last.startswith("--parsable --nodes=1 --dependency=afterok:7")
    assert not Path("x").exists()


@pytest.mark.parametrize(
    "given",
    [[], ["--ray"], ["--nodes", 2], ["--ray", "--array", 2], ["--array", 2, "--nodes", 2]],
)
def test_an_array_or_a_ray_cluster(refused, tmp_path, given):
    said = refused("slurm", "tiny", "--out", tmp_path / "run", *given)
    assert "expected either --array N" in said
    assert not (tmp_path / "run.sbatch").exists()


@pytest.mark.parametrize(
    ("recorded", "given", "said"),
    [
        ({}, ("--set", "seed=14"), r"seed \(13 there, 14 now\); give another --out"),
        ({"torch": "1.0"}, (), r"torch [\d.]\S*, and the run 1\.0: .* install the same versions"),
        ({CODE: "0" * 16}, (), r"augesc-builder's code [0-9a-f]{16}, and the run 0{16}: rows may"),
    ],
)
def test_an_element_that_differs_is_refused_and_both_are_named(
    refused, tiny_file, tmp_path, monkeypatch, recorded, given, said
):
    folder, shared = tmp_path / "run", load_recipe(tiny_file, ["executor.type=slurm"])
    with RunFolder(folder, run_settings(shared)) as run:
        run.keep("recipe.yaml", "x")
        run.add_shard("s", 0, 1, {"t/part": pa.table({"a": [1]})})
        run.record(made_with={**fingerprint(), **recorded})
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("AUGESC_RANK", "1")
    monkeypatch.setenv("AUGESC_WORLD_SIZE", "2")
    call = ("build", "--executor", "slurm", "--recipe", tiny_file, "--out", folder, *given)
    assert re.search(said, refused(*call))
    assert sorted(folder.rglob("*")) == before


def test_slurm_that_takes_nothing_is_told_with_its_reason(refused, sbatch, tmp_path):
    (tmp_path / "bin/sbatch").write_text("#!/bin/bash\necho 'sbatch: error: no GPU' >&2; exit 1\n")
    call = ("slurm", "tiny", "--out", tmp_path / "run", "--submit", "--array", 2)
    assert refused(*call).endswith("run.sbatch: sbatch: error: no GPU")
