"""Several processes at the conversations of one run: the same rows, each shard once."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import Literal

import pytest

from augesc_builder.config.base import BackendSettings
from augesc_builder.config.executor import Executor
from augesc_builder.config.recipe import load_recipe
from augesc_builder.config.vllm import VllmSettings
from augesc_builder.errors import ExecutorError
from augesc_builder.executors.slurm import SlurmElement
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.generate import driving
from augesc_builder.pipeline.generate.job import Watch
from augesc_builder.pipeline.generate.order import Order
from augesc_builder.pipeline.inputs import run_settings
from augesc_builder.run.folder import RunFolder, join
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from tests.conftest import corpus_of, rows_of

QUIET = Progress(quiet=True)


@pytest.fixture
def shared(tiny_file):
    return load_recipe(tiny_file, ["executor.type=slurm"])


def job_at(folder, recipe):
    shards = join(folder, run_settings(recipe), print)
    shards.use("finetune")
    queries = [p for p in shards.use("queries", "queries") if p.name.startswith("queries-")]
    order = Order(queries, recipe.generate, checked=False)
    table = "generations/generations"
    return driving.job_of(
        shards, recipe, queries, folder / "checkpoint", table, order, order.n_tasks, Watch()
    )


@pytest.mark.slow
def test_an_element_makes_all_and_the_last_job_the_rest(
    trained, shared, built, monkeypatch, augesc, tiny_file
):
    monkeypatch.setenv("AUGESC_RANK", "1")
    monkeypatch.setenv("AUGESC_WORLD_SIZE", "2")
    command = ("build", "--recipe", tiny_file, "--out", trained, "--executor", "slurm")
    code, said, err = augesc(*command)
    assert code == 0, err
    assert "all 3 shards of conversations are made" in said
    assert rows_of(trained / "generations") == rows_of(built / "generations")
    monkeypatch.delenv("AUGESC_RANK")
    assert build(shared, trained, QUIET)
    assert corpus_of(trained) == corpus_of(built)


def test_two_at_once_make_each_shard_once(trained, shared, built):
    runs = [SlurmElement(rank, 2).run(job_at(trained, shared)) for rank in range(2)]
    made = []
    while runs:
        for run in list(runs):
            number = next(run, None)
            made.append(number)
            if number is None:
                runs.remove(run)
    assert set(made) == {0, 1, 2, None}
    assert rows_of(trained / "generations") == rows_of(built / "generations")
    assert len(list((trained / "generations").iterdir())) == 3
    assert not list((trained / ".work").rglob("*.parquet"))


def test_a_worker_says_what_it_makes_and_how_it_ended(trained, shared):
    job = job_at(trained, shared)
    worker = job.worker(alone=False)
    assert [status.state for status in read_workers(trained)] == ["running"]
    assert list(worker.make(iter([0]))) == [0]
    worker.close()
    (status,) = read_workers(trained)
    assert (status.state, status.shards, status.n_shards) == ("finished", 1, 3)
    assert status.rows
    assert status.tokens > 0
    assert status.judged == status.rows >= status.kept
    failing = job.worker(alone=False)
    with pytest.raises(ZeroDivisionError):
        list(failing.make(1 // 0 for _ in range(1)))
    failing.close()
    ended = {status.state: status.error for status in read_workers(trained)}
    assert ended["finished"] is None
    assert ended["failed"].startswith("ZeroDivisionError: ")


def test_what_the_first_chose_binds_the_others(trained, shared):
    first, second = job_at(trained, shared), job_at(trained, shared)
    first.shards.agree("generate", {"slots": 3, "dtype": "float32", "processes": 1, "threads": 1})
    worker = second.worker(alone=False)
    next(worker.make(iter([0])))
    assert worker._backend._slots == 3
    worker.close()


def test_a_shard_that_another_finished_is_left(trained, shared, monkeypatch):
    monkeypatch.setattr("augesc_builder.pipeline.generate.job._LOOK", -1)
    slow, quick = job_at(trained, shared), job_at(trained, shared)
    original, looks = slow.shards.has_shard, []

    def has_shard(stage, number):
        looks.append(number)
        if len(looks) == 3:
            with closing(quick.worker(alone=False)) as at_once:
                assert list(at_once.make(iter([0]))) == [0]
        return original(stage, number)

    slow.shards.has_shard = has_shard
    with closing(slow.worker(alone=False)) as worker:
        assert list(worker.make(iter([0]))) == [0]
        assert worker._rows == {}


def test_a_folder_that_is_another_runs_by_now_is_left_alone(trained, shared):
    job = job_at(trained, shared)
    manifest = trained / "manifest.json"
    with closing(job.worker(alone=False)) as worker:
        with RunFolder(trained, run_settings(shared)) as run:
            run.record(run_id="another")
        with pytest.raises(Exception, match="another run has begun there"):
            list(worker.make(iter([0])))
    assert manifest.exists()
    assert not job.shards.has_shard("generate", 0)


def test_who_comes_too_early_is_told_what_to_run(tiny_file, tmp_path, monkeypatch, shared):
    with RunFolder(tmp_path / "run", run_settings(shared)) as run:
        run.keep("recipe.yaml", "x")
    monkeypatch.setenv("AUGESC_RANK", "0")
    with pytest.raises(ExecutorError, match="queries is not finished there; run `augesc build"):
        build(shared, tmp_path / "run", QUIET)


def test_a_checkpoint_that_a_worker_cannot_see(trained, shared):
    job = job_at(trained, shared)
    shutil.rmtree(trained / "checkpoint")
    with pytest.raises(ExecutorError, match="checkpoint: not there for the worker on"):
        job.worker(alone=False)


@pytest.mark.parametrize("how", ["cut", pytest.param("flipped", marks=pytest.mark.slow)])
def test_a_shard_that_is_damaged_is_found_at_the_next_stage_and_made_again(
    trained, tiny, built, monkeypatch, how
):
    from augesc_builder.pipeline import build as module

    said, damaged, original = [], [], module.STAGES["filter"]

    def damage_and_filter(run, recipe, progress):
        path = trained / "generations/generations-00001-of-00003.parquet"
        if not damaged:
            damaged.append(path)
            data = path.read_bytes()
            path.write_bytes(data[:-9] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
        original(run, recipe, progress)

    monkeypatch.setitem(module.STAGES, "filter", damage_and_filter)
    progress = Progress(quiet=True)
    progress.say = said.append
    assert build(tiny, trained, progress)
    assert any("generations-00001" in line and "made again" in line for line in said)
    assert corpus_of(trained) == corpus_of(built)


def test_what_several_cannot_share_is_refused(refused, tiny_file, tmp_path):
    call = ("build", "--recipe", tiny_file, "--out", tmp_path / "run", "--executor", "slurm")
    assert "generate.keep ends where enough is kept" in refused(*call, "--keep", 3)


class AloneSettings(BackendSettings):
    type: Literal["alone"] = "alone"


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_a_backend_of_others_is_for_one_process_unless_it_says_more(tiny, kind, monkeypatch):
    generate = tiny.generate.model_copy(update={"backend": AloneSettings()})
    with pytest.raises(ValueError, match=f"executor {kind}: the backend alone is asked by one"):
        Executor(type=kind).check(generate)
    Executor(type="local").check(generate)
    monkeypatch.setattr(AloneSettings, "several", True)
    Executor(type=kind).check(generate)


def test_by_itself_elements_and_an_owner_make_what_one_process_does(
    built, tiny_file, tmp_path, generate, monkeypatch, augesc
):
    alone, out = generate(out="alone"), tmp_path / "out"
    command = ("generate", built / "queries", "--recipe", tiny_file, "--out", out, "--quiet")
    command += ("--checkpoint", built / "checkpoint", "--executor", "slurm")
    code, _, err = augesc(*command)
    assert code == 2
    assert "3 of 3 shards of generate are left: submit the array" in err
    monkeypatch.setenv("AUGESC_RANK", "1")
    monkeypatch.setenv("AUGESC_WORLD_SIZE", "2")
    assert augesc(*command) == (0, "", "")
    assert "generate" not in Marks(out)
    monkeypatch.delenv("AUGESC_RANK")
    assert augesc(*command) == (0, "", "")
    assert "generate" in Marks(out)
    assert rows_of(out) == alone


def test_by_itself_the_first_element_begins_and_another_seed_is_refused(
    built, tiny_file, tmp_path, generate, monkeypatch, refused
):
    out = tmp_path / "out"
    command = ("generate", built / "queries", "--recipe", tiny_file, "--out", out)
    command += ("--checkpoint", built / "checkpoint", "--executor", "slurm")
    monkeypatch.setenv("AUGESC_RANK", "0")
    generate("executor.type=slurm")
    assert "seed (" in refused(*command, "--set", "seed=14")


def test_a_worker_has_the_gpus_that_its_backend_computes_on(tiny):
    assert tiny.generate.backend.gpus == 1
    assert VllmSettings(tensor_parallel=2, pipeline_parallel=3).gpus == 6
    assert VllmSettings(address="http://127.0.0.1:1").gpus == 0
    assert load_recipe("paper-gpt3").generate.backend.gpus == 0
