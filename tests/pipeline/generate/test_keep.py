"""Generating until so many sessions are kept: the same rows, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import BudgetError, SettingsChangedError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.filter.filter import Filter
from augesc_builder.run.progress import Progress
from augesc_builder.tables import GENERATIONS, to_table
from tests.conftest import SOAK, mark_anew, rows_of

QUIET = Progress(quiet=True)
KEEP = ("generate.keep=5", "generate.keep_budget=60")


@pytest.fixture(scope="module")
def kept(built, tiny_file, tmp_path_factory):
    """Give the rows of a run that keeps five sessions."""
    from augesc_builder.pipeline.generate import stage

    out = tmp_path_factory.mktemp("keep") / "out"
    recipe = load_recipe(tiny_file, KEEP)
    stage.standalone(recipe, built / "queries", built / "checkpoint", out, QUIET)
    return rows_of(out)


def failures(rows, tiny):
    return Filter(tiny.requirements).violations(to_table(rows, GENERATIONS))


def test_the_table_ends_with_the_last_one_that_is_kept(kept, tiny, built):
    """The queries' order is that of their table, sample by sample."""
    (file,) = (built / "queries").glob("queries-*.parquet")
    ids = pq.read_table(file)["query_id"].to_pylist()
    place = {(key, n): n * len(ids) + i for n in range(9) for i, key in enumerate(ids)}
    rows = sorted(kept, key=lambda row: place[row["query_id"], row["sample"]])
    assert [place[row["query_id"], row["sample"]] for row in rows] == list(range(len(rows)))
    met = [not names for names in failures(rows, tiny)]
    assert sum(met) == 5
    assert met[-1]


@pytest.mark.parametrize(
    ("size", "workers"), [(1, 1), (3, 1), (7, 1), pytest.param(3, 2, marks=pytest.mark.slow)]
)
def test_neither_shards_nor_processes_change_a_row(kept, generate, size, workers):
    given = (f"generate.shard_size={size}", f"generate.backend.workers={workers}")
    assert generate(*KEEP, *given, "generate.backend.slots=2") == kept


def test_shards_of_nothing_are_not_left(kept, generate, tmp_path):
    assert generate(*KEEP, "generate.shard_size=1") == kept
    names = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert names == [f"generations-{n:05d}.parquet" for n in range(len(kept))]
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert facts["tables"]["generations"] == len(kept)
    assert facts["stages"]["generate"]["tokens"] == sum(row["n_tokens"] for row in kept)


def test_another_number_or_budget_goes_on_from_what_is_there(kept, generate, tmp_path, tiny):
    given = ("generate.keep_budget=60", "generate.shard_size=4")
    few = generate("generate.keep=2", *given)
    assert sum(not names for names in failures(few, tiny)) == 2
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("generations-00000*")}
    full = len(few) >= 4
    assert generate("generate.keep=5", *given) == kept
    if full:
        assert {p: p.stat().st_mtime_ns for p in first} == first
    assert generate("generate.keep=2", *given) == few


def test_shards_of_an_earlier_version_are_cut_too(generate, tmp_path):
    """Those had fewer columns; shards that are not cut stay as they are."""
    given, since = "generate.keep_budget=60", ["resampled", "n_resampled_tokens"]
    few = generate("generate.keep=2", given, out="few")
    generate("generate.keep=5", given, out="before")
    for path in (tmp_path / "before").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(since), path)
    mark_anew(tmp_path / "before")
    cut = generate("generate.keep=2", given, out="before")
    assert [dict.fromkeys(since) | row for row in cut] == few


def test_a_budget_that_is_spent_says_why_and_a_larger_one_goes_on(kept, generate, tmp_path):
    short = len(kept) - 1
    with pytest.raises(BudgetError, match=f"4 of 5 sessions are kept of all {short} cand") as error:
        generate("generate.keep=5", f"generate.keep_budget={short}")
    said = str(error.value)
    assert "raise generate.keep_budget" in said
    assert "%" in said
    assert "\n" not in said
    assert not (tmp_path / "out" / ".complete" / "generate.json").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("generations-00000*")}
    assert generate("generate.keep=5", f"generate.keep_budget={short + 1}") == kept
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_run_with_a_number_is_not_one_without(generate):
    generate(*KEEP)
    with pytest.raises(SettingsChangedError, match=r"generate\.keep"):
        generate()
    with pytest.raises(SettingsChangedError, match="requirements"):
        generate(*KEEP, "requirements.session_length.max=300")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_changes_no_row(kept, built, tiny_file, tmp_path, generate, workers):
    given = [*KEEP, f"generate.backend.workers={workers}", "generate.shard_size=1"]
    command = [sys.executable, "-m", "augesc_builder", "generate", built / "queries", "--quiet"]
    command += ["--checkpoint", built / "checkpoint", "--recipe", tiny_file]
    command += ["--out", tmp_path / "out"]
    for override in given:
        command += ["--set", override]
    marks = tmp_path / "out" / ".complete"
    for n in range(1, (SOAK or 1) + 1):
        process = subprocess.Popen([*map(str, command)], start_new_session=True)
        try:
            while process.poll() is None and len(list(marks.glob("generate-*"))) < n:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.wait()
        if (marks / "generate.json").exists():
            shutil.rmtree(tmp_path / "out")
    assert generate(*given) == kept


@pytest.mark.slow
def test_a_build_keeps_exactly_so_many(tiny_file, tmp_path):
    recipe = load_recipe(tiny_file, KEEP)
    assert build(recipe, tmp_path / "run", QUIET)
    report = json.loads((tmp_path / "run" / "corpus" / "filter_report.json").read_text())
    assert report["retained"] == len(rows_of(tmp_path / "run" / "corpus" / "data")) == 5
    assert report["total"] == len(rows_of(tmp_path / "run" / "generations"))
    assert not build(recipe, tmp_path / "run", QUIET)
    more = load_recipe(tiny_file, ["generate.keep=7", "generate.keep_budget=60"])
    assert build(more, tmp_path / "run", QUIET)
    assert len(rows_of(tmp_path / "run" / "corpus" / "data")) == 7
