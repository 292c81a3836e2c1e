"""Builds whose files are lost, damaged, or made from something else: made again, or named."""

from __future__ import annotations

import json
import shutil

import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import CheckpointError, InputError, SettingsChangedError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.inputs import input_digests
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from tests.conftest import corpus_of

QUIET = Progress(quiet=True)


@pytest.fixture
def copy(built, tmp_path):
    """A finished build that a test may harm."""
    shutil.copytree(built, tmp_path / "run")
    return tmp_path / "run"


def said(tiny, folder) -> list[str]:
    """Build again; return what was said."""
    lines: list[str] = []
    progress = Progress(quiet=True)
    progress.say = lines.append
    build(tiny, folder, progress)
    return lines


@pytest.mark.parametrize(
    "lost",
    [
        "queries/queries-00000-of-00001.parquet",
        "generations/generations-00001-of-00003.parquet",
        "measured/train-00000-of-00001.parquet",
        "corpus/data/train-00000-of-00001.parquet",
        "corpus/statistics.json",
        "corpus/figures/novelty.png",
        "corpus/README.md",
    ],
)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_lost_is_made_again_and_is_the_same(built, tiny, copy, lost, how):
    path = copy / lost
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    lines = said(tiny, copy)
    assert any(lost in line and "made again" in line for line in lines)
    assert (copy / "set-aside" / lost).exists() == (how == "cut")
    if path.suffix == ".parquet":
        assert path.read_bytes() == (built / lost).read_bytes()
    assert corpus_of(copy) == corpus_of(built)
    assert build(tiny, copy, QUIET) is False


def test_a_stale_table_of_a_run_is_refused(tiny, copy):
    shard = copy / "generations/generations-00000-of-00003.parquet"
    stale = shard.with_name("generations-00003-of-00004.parquet")
    shutil.copy(shard, stale)
    (copy / "corpus/statistics.json").unlink()
    build(tiny, copy, QUIET)  # reads no generations
    (copy / "corpus/filter_report.json").unlink()
    with pytest.raises(InputError, match=r"00003-of-00004.*no file of the run.*move it elsewhere"):
        build(tiny, copy, QUIET)
    stale.unlink()
    assert build(tiny, copy, QUIET)


def test_a_checkpoint_trained_in_place_is_refused_while_conversations_are_half_made(tiny, copy):
    weights = copy / "checkpoint/model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + b"\1\2\3\4")
    assert build(tiny, copy, QUIET) is False  # nothing asks for it any more
    (copy / "generations/generations-00001-of-00003.parquet").unlink()
    with pytest.raises(CheckpointError, match=r"other bytes.*conversations were generated with it"):
        build(tiny, copy, QUIET)
    weights.write_bytes(data)
    assert build(tiny, copy, QUIET)


def test_a_checkpoint_that_nothing_was_made_with_is_made_again(built, tiny, tmp_path):
    folder = tmp_path / "run"
    build(tiny, folder, QUIET, until="finetune")
    (folder / "checkpoint/model.safetensors").write_bytes(b"no weights")
    build(tiny, folder, QUIET, until="finetune")
    again = (folder / "checkpoint/model.safetensors").read_bytes()
    assert again == (built / "checkpoint/model.safetensors").read_bytes()
    assert (folder / "set-aside/checkpoint/model.safetensors").read_bytes() == b"no weights"


def test_generations_of_another_checkpoint_are_not_mixed(tiny_file, copy, built, tmp_path):
    """The standalone command knows a checkpoint by its bytes."""
    from augesc_builder.pipeline.generate import stage

    recipe = load_recipe(tiny_file)
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(built / "checkpoint", checkpoint)
    stage.standalone(recipe, built / "queries", checkpoint, tmp_path / "out", QUIET)
    stage.standalone(recipe, built / "queries", checkpoint, tmp_path / "out", QUIET)
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(SettingsChangedError, match="checkpoint"):
        stage.standalone(recipe, built / "queries", checkpoint, tmp_path / "out", QUIET)


def test_versions_stand_with_each_stage_and_shard(built):
    marks = Marks(built)
    assert {"filter-00000", "generate-00002", "card"} <= set(marks.names())
    for name in marks.names():
        assert {"augesc-builder", "torch", "python"} <= set(marks.read(name)["versions"])


@pytest.mark.parametrize("key", ["subreddits", "lexicons.reddit_lingo"])
def test_an_edited_word_list_is_another_setting(tmp_path, tiny_file, key):
    posts, words = tmp_path / "posts.jsonl", tmp_path / "words.yaml"
    posts.write_text(json.dumps({"title": "x", "selftext": "I am sad", "subreddit": "sad"}))
    words.write_text("[sad]" if key == "subreddits" else "{lingo: []}")
    recipe = load_recipe(
        tiny_file,
        [
            f"queries.sources=[{{source: reddit, path: {posts}}}]",
            f"queries.reddit.{key}={words}",
            "queries.classifiers.enabled=false",
        ],
    )
    before = input_digests(recipe)
    words.write_text("[glad]")
    changed = {k for k, v in input_digests(recipe).items() if v != before[k]}
    assert changed == {f"queries.reddit.{key}"}


def test_a_local_classifier_trained_anew_is_another(tmp_path, tiny_file):
    model = tmp_path / "classifier"
    model.mkdir()
    (model / "model.safetensors").write_text("weights")
    recipe = load_recipe(
        tiny_file,
        [f"safety.classifier={{model: {model}, revision: null, threshold: 0.5, labels: {{a: b}}}}"],
    )
    before = input_digests(recipe)["safety.classifier"]
    (model / "model.safetensors").write_text("Weights")
    assert input_digests(recipe)["safety.classifier"] != before


def test_marks_of_an_earlier_version_are_taken_as_they_are(built, tiny, copy):
    marks = Marks(copy)
    for name in marks.names():
        marks.path(name).write_text(json.dumps(marks.read(name)["facts"]))
    assert build(tiny, copy, QUIET) is False
    for name in ("filter", "filter-00000", "statistics", "card"):
        marks.path(name).unlink()
    assert build(tiny, copy, QUIET)
    assert corpus_of(copy) == corpus_of(built)
