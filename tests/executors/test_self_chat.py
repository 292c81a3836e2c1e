"""Two models that talk to each other, in several workers: the rows that one process makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import ExecutorError
from augesc_builder.pipeline.generate import stage
from augesc_builder.pipeline.generate.job import GenerateJob
from augesc_builder.run.progress import Progress
from tests.conftest import ROOT, rows_of
from tests.dialog_models import blender
from tests.pipeline.generate.test_self_chat import QUERIES, recipe_of

QUIET = Progress(quiet=True)
SMALL = "generate.shard_size=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder with queries and both models, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("talk")
    for seed, role in enumerate(("seeker", "supporter")):
        blender(folder / role, seed, bias={"__end__": 1.5})
    table = {"query_id": [f"q{n}" for n in range(9)], "source": ["sample"] * 9}
    pq.write_table(pa.table(table | {"text": QUERIES[:9]}), folder / "queries.parquet")
    generate(folder, "alone", "executor.type=local")
    return folder


def recipe(folder, *overrides):
    speakers = {role: folder / role for role in ("seeker", "supporter")}
    return recipe_of(speakers, SMALL, *overrides)


def generate(folder, out, *overrides):
    given = recipe(folder, *overrides)
    stage.standalone(given, folder / "queries.parquet", None, folder / out, QUIET)


def test_elements_and_an_owner_make_what_one_process_does(folder, monkeypatch):
    monkeypatch.setenv("AUGESC_WORLD_SIZE", "2")
    for rank in ("1", "0", None):
        monkeypatch.setenv("AUGESC_RANK", rank) if rank else monkeypatch.delenv("AUGESC_RANK")
        generate(folder, "shared", "executor.type=slurm")
    assert rows_of(folder / "shared") == rows_of(folder / "alone")


def test_a_model_that_a_worker_cannot_see_is_named(folder, tmp_path, monkeypatch):
    job = GenerateJob(
        folder=tmp_path,
        run_id="",
        stage="generate",
        n_shards=1,
        inputs={},
        recipe=recipe(folder, "executor.type=slurm"),
        checkpoint=tmp_path,
        queries=(),
        table="generations/generations",
        n_tasks=1,
    )
    (folder / "seeker").rename(folder / "gone")
    try:
        with pytest.raises(ExecutorError, match=r"seeker: not there for the worker on"):
            job.worker(alone=False)
    finally:
        (folder / "gone").rename(folder / "seeker")


@pytest.mark.slow
def test_a_worker_of_ray_finds_paths_where_the_driver_stands(folder):
    pytest.importorskip("ray")
    from tests.executors.test_ray import cluster

    sides = {role: {"model": f"./{role}", "revision": None} for role in ("seeker", "supporter")}
    backend = recipe(folder).generate.backend.model_dump(mode="json") | sides
    with cluster(1) as found:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "augesc_builder", "generate", "queries.parquet"),
                *("--recipe", "tiny", "--out", "by-ray", "--ray-address", found.address),
                *("--set", f"generate.backend={json.dumps(backend)}", "--set", SMALL),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert rows_of(folder / "by-ray") == rows_of(folder / "alone")
