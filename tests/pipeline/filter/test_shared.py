"""Several processes at one filter: the bytes of one process, each shard once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import ExecutorError, RunFolderError, SettingsChangedError
from augesc_builder.executors.slurm import SlurmElement
from augesc_builder.pipeline.filter import stage
from augesc_builder.pipeline.filter.job import FilterJob
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.progress import Progress
from augesc_builder.sources import generations
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import render
from tests.conftest import corpus_of

QUIET = Progress(quiet=True)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(generations, "CHUNK", 4)
    monkeypatch.setattr(generations, "_SHARD", 10)


@pytest.fixture(params=["table", "lines"])
def made(request, tmp_path):
    """Write generations of two sources into files of several sizes, with bad lines in some."""
    sessions = [list(session.messages) for session in read_sample_sessions()]
    rows = [
        {
            "query": (own := sessions[n % len(sessions)])[0]["content"],
            "text": render(own[1:]).removeprefix("AI:") if n % 5 else "nothing",
            "source": "ab"[n % 2],
        }
        for n in range(57)
    ]
    folder = tmp_path / "made"
    folder.mkdir()
    schema = pa.Table.from_pylist(rows).schema
    for number, (start, end) in enumerate([(0, 0), (0, 9), (9, 40), (40, 40), (40, 57)]):
        path, part = folder / f"part-{number}", rows[start:end]
        if request.param == "table":
            table = pa.Table.from_pylist(part, schema=schema)
            pq.write_table(table, path.with_suffix(".parquet"), row_group_size=7)
        else:
            lines = [json.dumps(row) for row in part]
            lines[3:3] = ["{}"] * (number == 2)
            path.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def recipe_of(executor):
    return load_recipe("paper", [f"executor.type={executor}"])


def filter_by(monkeypatch, made, out, rank=None, n=2, **options):
    """Run the command as one of ``n`` elements, or as the owner."""
    if rank is None:
        monkeypatch.delenv("AUGESC_RANK", raising=False)
    else:
        monkeypatch.setenv("AUGESC_RANK", str(rank))
        monkeypatch.setenv("AUGESC_WORLD_SIZE", str(n))
    stage.standalone(recipe_of("slurm"), made, out, QUIET, **options)


def files_of(folder):
    """Give the bytes of all that a filter wrote but the record of how."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.is_file() and not name.startswith(".") and name != "manifest.json"
    }


@pytest.fixture
def alone(made, tmp_path):
    """Filter in one process."""
    stage.standalone(recipe_of("local"), made, tmp_path / "alone", QUIET)
    return files_of(tmp_path / "alone")


def test_elements_and_an_owner_write_what_one_process_does(made, alone, tmp_path, monkeypatch):
    """The first element finds all that the second never made; the owner adds up."""
    out = tmp_path / "out"
    with pytest.raises(ExecutorError, match="5 of 5 shards of filter are left: submit"):
        filter_by(monkeypatch, made, out)
    filter_by(monkeypatch, made, out, rank=1)
    assert not (out / "filter_report.json").exists()
    (said,) = read_workers(out)
    assert (said.state, said.stage, said.shards, said.n_shards) == ("finished", "filter", 5, 5)
    assert said.rows == 57 + len(list(made.glob("*.jsonl"))) // 5
    filter_by(monkeypatch, made, out, rank=0)
    filter_by(monkeypatch, made, out)
    assert files_of(out) == alone
    assert not (out / ".work").exists()


def test_the_first_element_begins_the_run(made, alone, tmp_path, monkeypatch):
    out = tmp_path / "out"
    filter_by(monkeypatch, made, out, rank=1)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["files"] == [str(path) for path in sorted(made.iterdir())]
    stage.standalone(recipe_of("local"), made, out, QUIET)  # with another executor at the end
    assert json.loads((out / "manifest.json").read_text())["run_id"] == manifest["run_id"]
    assert files_of(out) == alone


def _element(made, out, rank, begun):
    """Be an element, from the moment on that all are there."""
    os.environ |= {"AUGESC_RANK": str(rank), "AUGESC_WORLD_SIZE": "2"}
    generations.CHUNK, generations._SHARD = 4, 10
    begun.wait()
    stage.standalone(recipe_of("slurm"), made, out, QUIET)


def start(made, out, n):
    """Start elements that begin at the same moment."""
    context = multiprocessing.get_context("fork")
    begun = context.Barrier(n)
    elements = [
        context.Process(target=_element, args=(made, out, rank, begun)) for rank in range(n)
    ]
    for element in elements:
        element.start()
    return elements


def test_two_at_once_begin_one_run_and_make_it(made, alone, tmp_path, monkeypatch, forking):
    out = tmp_path / "out"
    elements = start(made, out, 2)
    for element in elements:
        element.join()
    assert [element.exitcode for element in elements] == [0, 0]
    filter_by(monkeypatch, made, out)
    assert files_of(out) == alone


def test_a_killed_element_is_made_up_for(made, alone, tmp_path, monkeypatch, forking):
    out = tmp_path / "out"
    elements = start(made, out, 2)
    while not list((out / ".complete").glob("filter-*")):
        time.sleep(0.01)
    os.kill(elements[0].pid, signal.SIGKILL)
    for element in elements:
        element.join()
    assert elements[1].exitcode == 0
    filter_by(monkeypatch, made, out)
    assert files_of(out) == alone


def test_an_element_with_other_settings_or_in_a_strange_folder_is_refused(
    made, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    filter_by(monkeypatch, made, out, rank=0)
    with pytest.raises(SettingsChangedError, match="includes_query"):
        filter_by(monkeypatch, made, out, rank=1, includes_query=True)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "mine.txt").write_text("kept")
    with pytest.raises(RunFolderError, match="holds files that no run left"):
        filter_by(monkeypatch, made, strange, rank=0)
    assert [path.name for path in strange.iterdir()] == ["mine.txt"]


def test_a_worker_without_the_files_is_told(made, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(SlurmElement, "run", lambda self, job: iter(jobs.append(job) or ()))
    filter_by(monkeypatch, made, tmp_path / "out", rank=0)
    (job,) = jobs
    assert isinstance(job, FilterJob)
    shutil.rmtree(made)
    with pytest.raises(ExecutorError, match="not there for the worker on"):
        job.worker(alone=False)


def test_a_shard_that_others_made_meanwhile_is_left(made, alone, tmp_path, monkeypatch):
    """Also where the look ahead has taken its number already."""
    out, jobs = tmp_path / "out", []
    monkeypatch.setattr(SlurmElement, "run", lambda self, job: iter(jobs.append(job) or ()))
    filter_by(monkeypatch, made, out, rank=0)
    filter_by(monkeypatch, made, out, rank=1)
    slow, quick = jobs
    for number in (3, 0):
        with closing(quick.worker(alone=False)) as worker:
            assert list(worker.make(iter([number]))) == [number]
    written = {path: path.stat().st_mtime_ns for path in (out / "measured").iterdir()}
    with closing(slow.worker(alone=False)) as worker:
        assert list(worker.make(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in written} == written
    filter_by(monkeypatch, made, out)
    assert files_of(out) == alone


def test_a_folder_that_is_another_runs_by_now_is_left_alone(made, tmp_path, monkeypatch):
    out, jobs = tmp_path / "out", []
    monkeypatch.setattr(SlurmElement, "run", lambda self, job: iter(jobs.append(job) or ()))
    filter_by(monkeypatch, made, out, rank=0)
    worker = jobs[0].worker(alone=False)
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    with RunFolder(out, settings) as run:
        run.record(run_id="another")
    with pytest.raises(RunFolderError, match="another run has begun there"):
        list(worker.make(iter([0])))
    worker.close()
    assert not (out / "measured").exists()
    assert [said.state for said in read_workers(out)] == ["failed"]


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_shard_is_made_again_by_the_next_command(made, alone, tmp_path, monkeypatch, how):
    out, said = tmp_path / "out", []
    filter_by(monkeypatch, made, out, rank=0)
    path = next((out / "rejected").glob("train-00002*"))
    data = path.read_bytes()
    path.write_bytes(data[:-9] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
    monkeypatch.delenv("AUGESC_RANK")
    progress = Progress(quiet=True)
    progress.say = said.append
    stage.standalone(recipe_of("local"), made, out, progress)
    assert any(path.name in line and "made again" in line for line in said)
    (out / "set-aside" / "rejected" / path.name).unlink()
    assert {k: v for k, v in files_of(out).items() if "set-aside" not in k} == alone


@pytest.mark.parametrize("how", ["cut", pytest.param("flipped", marks=pytest.mark.slow)])
def test_in_a_build_it_is_found_at_the_next_stage(built, tiny, tmp_path, monkeypatch, how):
    from augesc_builder.pipeline import build as module
    from augesc_builder.pipeline.inputs import run_settings

    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    with RunFolder(folder, run_settings(tiny)) as run:
        for name in ("card", "statistics"):
            run.start_again(name)
    said, damaged, original = [], [], module.STAGES["statistics"]

    def damage_and_measure(run, recipe, progress):
        if not damaged:
            path = next((folder / "corpus/data").iterdir())
            damaged.append(path)
            data = path.read_bytes()
            path.write_bytes(data[:-9] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
        original(run, recipe, progress)

    monkeypatch.setitem(module.STAGES, "statistics", damage_and_measure)
    progress = Progress(quiet=True)
    progress.say = said.append
    assert module.build(tiny, folder, progress)
    assert any(damaged[0].name in line and "made again" in line for line in said)
    assert corpus_of(folder) == corpus_of(built)


def test_the_last_job_of_an_array_filters_a_build_by_itself(built, tiny_file, tmp_path):
    """The array has helped with conversations alone."""
    from augesc_builder.pipeline.build import build
    from augesc_builder.pipeline.inputs import run_settings

    folder, recipe = tmp_path / "run", load_recipe(tiny_file, ["executor.type=slurm"])
    shutil.copytree(built, folder)
    with RunFolder(folder, run_settings(recipe)) as run:
        for name in ("card", "statistics", "filter"):
            run.start_again(name)
    assert build(recipe, folder, QUIET)
    assert corpus_of(folder) == corpus_of(built)


@pytest.mark.slow
def test_ray_workers_write_what_one_process_does(made, alone, tmp_path, monkeypatch):
    """They may stand in another folder than the command that names files by a path from there."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path is short
    monkeypatch.chdir(made.parent)
    recipe, out = load_recipe("paper", ["executor.type=ray", "executor.address=local"]), Path("out")
    stage.standalone(recipe, Path(made.name), out, QUIET)
    found = files_of(out)
    if any(made.glob("*.jsonl")):  # examples of bad lines name the file as it was given
        report = json.loads(found.pop("filter_report.json"))
        assert report["bad_lines"]["examples"][0].startswith("made/part-2.jsonl, line 4: ")
        alone.pop("filter_report.json")
    assert found == alone
