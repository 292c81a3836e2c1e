"""Whole builds of the tiny recipe: what they leave, how they go on, and what kills do to them."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from augesc_builder import tables
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import RecipeError, SettingsChangedError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.filter.requirements import active
from augesc_builder.pipeline.inputs import run_settings, stages_of
from augesc_builder.pipeline.summary import summary
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompts import render_query
from tests.conftest import ROOT, SOAK, corpus_of, rows_of

QUIET = Progress(quiet=True)


def test_the_stages_stand_where_the_design_says(built, tiny):
    assert {p.name for p in built.iterdir()} == {
        *("recipe.yaml", "manifest.json", ".lock", ".complete", ".status.json"),
        *("queries", "checkpoint", "generations", "measured", "corpus"),
    }
    assert {p.name for p in (built / "corpus").iterdir()} == {
        *("data", "rejected", "README.md", "filter_report.json", "filter_report.md", "figures"),
        *("safety_report.json", "statistics.json", "quality", "quality.json", "quality.md"),
    }
    names = (
        *("session_statistics", "lexical_diversity", "query_effect", "duplication", "novelty"),
        "topic_correlates",  # with what stands beside the corpus
    )
    assert {p.name for p in (built / "corpus" / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("png", "svg")
    }
    marks = {p.stem for p in (built / ".complete").glob("*.json")}
    assert set(stages_of(tiny)) <= marks


def test_the_manifest_says_how_it_was_made(built, tiny):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["settings"]["generate"] == tiny.settings()["generate"]
    assert set(manifest["settings"]["inputs"]) == {
        *("finetune.sessions", "queries.sources.0", "safety.lexicon")
    }
    assert manifest["seed"] == tiny.seed
    assert {"torch", "datasets", "augesc-builder", "python"} <= set(manifest["versions"])
    assert set(manifest["stages"]) == set(manifest["seconds"]) == set(stages_of(tiny))
    assert re.fullmatch("[0-9a-f]{16}", manifest["fingerprint"])
    counts = manifest["tables"]
    assert (counts["queries"], counts["generations"]) == (12, 12)
    assert counts["sessions"] + counts["rejected"] == 12
    assert load_recipe(built / "recipe.yaml") == tiny


def test_tables_have_the_columns_they_promise(built):
    places = {
        "queries": "queries/queries-*.parquet",
        "rejected_posts": "queries/rejected.parquet",
        "generations": "generations/*.parquet",
        "sessions": "corpus/data/*.parquet",
        "rejected": "corpus/rejected/*.parquet",
        "measured": "measured/*.parquet",
        "quality": "corpus/quality/*.parquet",
    }
    # "failed" is there only where a row ended its worker: tests/pipeline/generate/test_poison.py
    assert {*places, "failed"} == set(tables.TABLES)
    for name, place in places.items():
        found = sorted(built.glob(place))
        assert found
        for path in found:
            assert pq.read_schema(path).equals(tables.plain_schema(tables.TABLES[name]))
            assert not pq.read_schema(
                path
            ).metadata  # "List" in it is what datasets 3.x cannot read


def test_generations_are_raw_and_belong_to_their_queries(built, tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built / "checkpoint")
    read = rows_of(built / "queries")  # queries, and posts that became none
    queries = {row["query_id"]: row for row in read if "reasons" not in row}
    rows = rows_of(built / "generations")
    assert {(row["query_id"], row["sample"]) for row in rows} == {(q, 0) for q in queries}
    for row in rows:
        assert row["query"] == queries[row["query_id"]]["text"]
        prompt = f"{tiny.prompt.instruction}\n{render_query(row['query'])}"
        assert row["n_prompt_tokens"] == len(tokenizer(prompt)["input_ids"])
        assert row["n_prompt_tokens"] + row["n_tokens"] <= tiny.generate.max_tokens
        assert row["finish_reason"] in {"eos", "length"}
        assert row["seed"] == tiny.seed


def test_what_the_source_says_of_a_trigger_goes_along(built):
    emotions = {row["query_id"]: row["emotion"] for row in rows_of(built / "queries")}
    assert all(emotions.values())  # the sample says it of each of its own
    for place in ("generations", "corpus/data", "corpus/rejected"):
        rows = rows_of(built / place)
        assert rows
        assert all(row["emotion"] == emotions[row["query_id"]] for row in rows)
        assert {row["subreddit"] for row in rows} == {None}


def test_nothing_is_dropped_without_a_row_that_says_why(built, tiny):
    generations = rows_of(built / "generations")
    kept, rejected = rows_of(built / "corpus/data"), rows_of(built / "corpus/rejected")
    assert len(kept) + len(rejected) == len(generations)
    assert kept
    assert rejected
    texts = {(row["query_id"], row["sample"]): row["text"] for row in generations}
    for row in rejected:
        assert row["violations"]
        assert set(row["violations"]) <= {r.name for r in active(tiny.requirements)}
        assert row["text"] == texts[row["query_id"], row["sample"]]
    for row in kept:
        assert row["session_id"] == f"{row['query_id']}-0"
        assert row["messages"][0]["role"] == "user"
        assert set(row["messages"][0]) == {"role", "content"}
    report = json.loads((built / "corpus/filter_report.json").read_text())
    assert report["total"] == len(generations)
    assert report["retained"] == len(kept)
    assert report["retention"] == len(kept) / len(generations)
    names = [requirement.name for requirement in active(tiny.requirements)]
    assert list(report["violations"]) == names
    for name, found in report["violations"].items():
        count = sum(name in row["violations"] for row in rejected)
        assert found == {"count": count, "share": count / len(generations)}


def test_the_corpus_loads(built, tmp_path):
    corpus = str(built / "corpus")
    sessions = load_dataset(corpus, split="train", cache_dir=str(tmp_path))
    rejected = load_dataset(corpus, "rejected", split="train", cache_dir=str(tmp_path))
    assert sessions.num_rows == len(rows_of(built / "corpus/data"))
    assert rejected.num_rows == len(rows_of(built / "corpus/rejected"))
    assert sessions.features == tables.SESSIONS
    assert rejected.features == tables.REJECTED


def test_two_corpora_are_not_taken_for_one(built, tiny_file, tmp_path):
    """The cache of `datasets` knows a local folder by its card alone."""
    other = load_recipe(tiny_file, ["seed=99"])
    build(other, tmp_path / "other" / "run", QUIET)
    rebuilt = tmp_path / "rebuilt"
    shutil.copytree(built, rebuilt)
    cache = str(tmp_path / "cache")

    def same(folder: Path) -> None:
        for config, place in (("default", "data"), ("rejected", "rejected")):
            rows = load_dataset(str(folder / "corpus"), config, split="train", cache_dir=cache)
            found = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
            assert found == rows_of(folder / "corpus" / place)

    same(rebuilt)
    same(tmp_path / "other" / "run")
    shutil.rmtree(rebuilt)
    shutil.copytree(tmp_path / "other" / "run", rebuilt)  # the same path, made anew
    same(rebuilt)


def test_a_build_that_keeps_nothing_says_so(tiny_file, tmp_path):
    strict = load_recipe(tiny_file, ["requirements.session_length.max=1"])
    assert build(strict, tmp_path / "run", QUIET)
    corpus = tmp_path / "run" / "corpus"
    rejected = load_dataset(str(corpus), "rejected", split="train", cache_dir=str(tmp_path))
    assert rejected.num_rows == 12
    assert json.loads((corpus / "statistics.json").read_text())["mean_session_words"] is None
    assert "No text met all requirements" in (corpus / "README.md").read_text()
    assert "Nothing was kept" in summary(tmp_path / "run")


@pytest.mark.slow
def test_a_build_that_rejects_nothing_loads(tiny_file, tmp_path):
    low = "{mean: {min: 0, max: 999}, short: 1, max_short_share: 1, max: 999}"
    lenient = load_recipe(
        tiny_file,
        [
            "requirements.session_length.max=999",
            "requirements.total_utterances={min: 1, max: 999}",
            "requirements.continuous_utterances.max=999",
            "requirements.balanced_utterances.max_ratio=999",
            f"requirements.seeker_utterance_length={low}",
            f"requirements.supporter_utterance_length={low}",
            "requirements.role_words.words=[]",
            "queries.max_per_source=1",
        ],
    )
    for seed in range(20):  # one text that has the format and both speakers
        recipe = lenient.model_copy(update={"seed": seed})
        build(recipe, tmp_path / str(seed), QUIET)
        corpus = tmp_path / str(seed) / "corpus"
        if not rows_of(corpus / "rejected"):
            break
    assert load_dataset(str(corpus), split="train", cache_dir=str(tmp_path)).num_rows == 1
    assert "No text was rejected" in (corpus / "README.md").read_text()
    with pytest.raises(ValueError, match="'rejected' not found"):
        load_dataset(str(corpus), "rejected", cache_dir=str(tmp_path))


def test_the_same_command_again_changes_nothing(built, tiny):
    def written() -> dict[Path, int]:
        about_it = {".lock", ".status.json"}
        return {p: p.stat().st_mtime_ns for p in built.rglob("*") if p.name not in about_it}

    before = written()
    assert build(tiny, built, QUIET) is False
    assert written() == before


def test_other_settings_are_refused(built, tiny_file):
    other = load_recipe(tiny_file, ["generate.top_p=0.5", "requirements.total_utterances.max=40"])
    with pytest.raises(SettingsChangedError) as error:
        build(other, built, QUIET)
    assert "generate.top_p (0.9 there, 0.5 now)" in str(error.value)
    assert "requirements.total_utterances.max (50 there, 40 now)" in str(error.value)


def test_another_folder_gives_the_same_corpus(built, tiny, tmp_path):
    assert build(tiny, tmp_path / "again", QUIET)
    assert corpus_of(tmp_path / "again") == corpus_of(built)


def test_shard_and_batch_size_change_no_row(built, tiny_file, tmp_path):
    other = load_recipe(tiny_file, ["generate.shard_size=5", "generate.backend.batch_size=2"])
    assert build(other, tmp_path / "other", QUIET)
    # Holds to the last bit for so small a model; see the note on rounding in the engine.
    assert rows_of(tmp_path / "other" / "generations") == rows_of(built / "generations")


def test_several_samples_of_a_query_differ(tiny_file, tmp_path):
    recipe = load_recipe(tiny_file, ["generate.samples_per_query=3", "queries.max_per_source=2"])
    build(recipe, tmp_path / "run", QUIET, until="generate")
    rows = rows_of(tmp_path / "run" / "generations")
    assert {row["sample"] for row in rows} == {0, 1, 2}
    assert len({row["text"] for row in rows}) == 6


def test_until_stops_and_a_later_run_goes_on(built, tiny, tmp_path):
    folder = tmp_path / "run"
    assert build(tiny, folder, QUIET, until="queries")
    assert not (folder / "checkpoint").exists()
    assert build(tiny, folder, QUIET, until="queries") is False
    assert build(tiny, folder, QUIET)
    assert corpus_of(folder) == corpus_of(built)


def test_an_unknown_stage(tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"unknown stage 'filtr'.* did you mean 'filter'"):
        build(tiny, tmp_path / "run", QUIET, until="filtr")
    assert not (tmp_path / "run").exists()


def test_a_local_checkpoint_as_backbone(built, tiny_file, tmp_path):
    recipe = load_recipe(
        tiny_file,
        [f"backbone={{name: '{built / 'checkpoint'}', revision: null, from_scratch: null}}"],
    )
    assert build(recipe, tmp_path / "run", QUIET, until="finetune")
    facts = Marks(tmp_path / "run").read("finetune")["facts"]
    first = Marks(built).read("finetune")["facts"]["first_loss"]
    assert facts["first_loss"] < first - 0.05  # it goes on from what was learned


# -- kills ----------------------------------------------------------------------------------------


def _build_and_die(recipe, folder: Path, after: int) -> None:
    """Build in a fresh process that is killed in the middle of its ``after``-th disk sync."""
    sync, left = os.fsync, after

    def dying_sync(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = dying_sync
    build(recipe, folder, QUIET)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("after", (1, 2, 3, 5, 9) if SOAK else (9,))
def test_killed_at_every_write_the_corpus_is_the_same(built, tiny, tmp_path, after, forking):
    context = forking(
        "augesc_builder.pipeline.finetune.train", "augesc_builder.pipeline.filter.filter"
    )
    folder, marks = tmp_path / "run", tmp_path / "run" / ".complete"
    stages = stages_of(tiny)
    interrupted, known, more = set(), set(), 0
    for _ in range(400):
        process = context.Process(target=_build_and_die, args=(tiny, folder, after + more))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        interrupted |= {next((s for s in stages if not (marks / f"{s}.json").exists()), "card")}
        # Whatever stands at its final place is whole.
        for path in folder.glob("[!.]*/**/*.parquet"):
            pq.read_table(path)
        for path in [*folder.glob("*.json"), *folder.glob("corpus/*.json"), *marks.glob("*.json")]:
            json.loads(path.read_text())
        # Where nothing new was finished, let the next attempt live a little longer.
        found = {path.name for path in marks.glob("*.json")}
        known, more = found, more + 3 if found == known else 0
    assert process.exitcode == 0
    assert interrupted | {"card"} == set(stages)  # what got the figures through is enough for it
    assert corpus_of(folder) == corpus_of(built)
    assert not (folder / ".work").exists()


@pytest.mark.parametrize(
    "n_kills", [pytest.param(SOAK or 4, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def test_killed_at_random_moments_of_the_command_line(built, tiny_file, tmp_path, n_kills):
    rng = random.Random() if SOAK else random.Random(5)
    seconds = sum(json.loads((built / "manifest.json").read_text())["seconds"].values())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kills = 0
    for n in itertools.count():  # builds, each killed until one is through
        folder, log = tmp_path / f"run-{n}", tmp_path / "log"
        command = [
            *(sys.executable, "-m", "augesc_builder", "build"),
            *("--recipe", str(tiny_file), "--out", str(folder)),
        ]
        returncode = None
        while returncode != 0:
            with log.open("w") as output:
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
                while process.poll() is None and not (folder / ".lock").exists():
                    time.sleep(0.01)  # importing is not what is to be killed
                try:
                    process.wait(rng.uniform(0.05, seconds / 2) if kills < n_kills else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
            returncode = process.returncode
            assert returncode in {0, -signal.SIGKILL}, log.read_text()
        assert corpus_of(folder) == corpus_of(built)
        shutil.rmtree(folder)
        if kills >= n_kills:
            break


def test_a_run_at_work_keeps_others_out(tiny_file, built, tmp_path):
    from augesc_builder.errors import RunFolderError
    from augesc_builder.run.folder import RunFolder

    recipe = load_recipe(tiny_file)
    with (
        RunFolder(tmp_path / "run", run_settings(recipe)),
        pytest.raises(RunFolderError, match="another run is at work"),
    ):
        build(recipe, tmp_path / "run", QUIET)
