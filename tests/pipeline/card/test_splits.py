"""Splits: no query's sessions part, and the corpus is as it was."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import datasets
import pytest
import yaml

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.pipeline.card.splits import split_of
from augesc_builder.run.marks import Marks
from augesc_builder.run.progress import Progress
from tests.conftest import corpus_of, rows_of

QUIET = Progress(quiet=True)
BOTH = {"validation": 0.3, "test": 0.3}


def test_a_query_falls_into_a_split_by_its_id_alone():
    names = [f"{i:016x}" for i in range(10_000)]
    found = Counter(split_of(name, {"validation": 0.1, "test": 0.05}) for name in names)
    assert 420 < found["test"] < 580  # 3.7 standard deviations
    assert 890 < found["validation"] < 1_110
    assert found["train"] == 10_000 - found["test"] - found["validation"]
    in_test = {name for name in names if split_of(name, {"test": 0.05}) == "test"}
    assert len(in_test) == found["test"]
    assert in_test < {name for name in names if split_of(name, {"test": 0.1}) == "test"}
    assert {split_of(name, {}) for name in names} == {"train"}


@pytest.fixture
def run(built, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    return folder


@pytest.fixture
def parted(run, tiny_file):
    """Build again with other splits; give the files of each."""

    def build_with(splits):
        recipe = load_recipe(tiny_file, [f"card.splits={json.dumps(splits)}"])
        is_changed = build(recipe, run, QUIET)
        files = sorted((run / "corpus" / "splits").glob("*.parquet"))
        return is_changed, Counter(file.name.split("-")[0] for file in files)

    return build_with


def sessions(run, split):
    data = datasets.load_dataset(
        "parquet", data_files=str(run / f"corpus/splits/{split}-*.parquet"), split="train"
    )
    return data.to_list()


def test_a_finished_build_is_parted_and_put_together_again(run, parted, tmp_path):
    before, shards = corpus_of(run), len(list((run / "corpus" / "data").glob("*.parquet")))
    stages = {n: Marks(run).path(n).read_bytes() for n in Marks(run).names() if "card" not in n}
    is_changed, found = parted(BOTH)
    assert is_changed
    assert found == dict.fromkeys(("train", "validation", "test"), shards)
    parts = {split: sessions(run, split) for split in found}
    rows = [row for part in parts.values() for row in part]
    assert sorted(row["session_id"] for row in rows) == sorted(
        row["session_id"] for row in before["sessions"]
    )
    queries = [{row["query_id"] for row in part} for part in parts.values()]
    assert all(queries)
    assert len(set.union(*queries)) == sum(map(len, queries))
    for split, part in parts.items():
        assert {split_of(row["query_id"], BOTH) for row in part} == {split}
    after = corpus_of(run)
    assert {k: v for k, v in after.items() if k != "README.md"} == {
        k: v for k, v in before.items() if k != "README.md"
    }
    now = {n: Marks(run).path(n).read_bytes() for n in stages}
    assert {n for n in stages if now[n] != stages[n]} <= {"kept-recipe.yaml"}
    values, body = split_card(after["README.md"])
    assert [info["num_examples"] for info in values["dataset_info"][0]["splits"]] == [
        len(parts[split]) for split in ("train", "validation", "test")
    ]
    assert f"`test` ({len(parts['test'])} sessions)" in body
    loaded = datasets.load_dataset(str(run / "corpus"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in loaded.items()} == {
        split: len(part) for split, part in parts.items()
    }
    assert parted(BOTH)[0] is False  # nothing to do

    is_changed, found = parted(None)
    assert is_changed
    assert not found
    assert not (run / "corpus" / "splits").exists()
    assert corpus_of(run) == before


def test_other_shares_take_the_place_of_those_there(run, parted):
    parted(BOTH)
    _, found = parted({"test": 0.5})
    assert set(found) == {"train", "test"}
    assert {split_of(row["query_id"], {"test": 0.5}) for row in sessions(run, "test")} == {"test"}


def test_a_corpus_too_small_for_a_test_split(run, tiny_file, refused):
    before = corpus_of(run)
    given = ("build", "--recipe", tiny_file, "--out", run, "--set")
    line = refused(*given, "card.splits={test: 0.000001}")
    assert "card.splits: the corpus is too small for the split test: of " in line
    assert "give other shares, or null for no splits" in line
    assert not (run / "corpus" / "splits").exists()
    assert not (run / "corpus" / "README.md").exists()  # it would tell of other files
    assert build(load_recipe(tiny_file), run, QUIET)
    assert corpus_of(run) == before


def test_a_damaged_split_is_made_again(run, parted):
    parted(BOTH)
    (path,) = (run / "corpus" / "splits").glob("test-00000-*")
    was = rows_of(path.parent)
    path.write_bytes(b"PAR1")
    assert parted(BOTH)[0]
    assert rows_of(path.parent) == was


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ("{test: 1.0}", r"card\.splits"),
        ("{test: 0}", r"card\.splits"),
        ("{dev: 0.1}", r"card\.splits.*dev"),
        ("{}", "null parts nothing"),
        ("{test: 0.6, validation: 0.4}", "sum is below 1"),
        ("test", r"card\.splits"),
    ],
)
def test_shares_that_part_nothing(splits, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe("tiny", [f"card.splits={splits}"])


def test_recipes_and_runs_of_before_have_none(tiny_file, tmp_path):
    old = load_recipe("paper").settings()
    del old["card"]
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(old))
    assert load_recipe(path).card.splits is None
    assert "card" not in load_recipe("tiny").fixed_settings()
