"""Recipes and run folders of earlier versions: read, with one line that names the new key."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import pytest
import yaml

from augesc_builder.config.quality import QUALITY
from augesc_builder.config.recipe import dump_recipe, load_recipe, make_recipe, modernize
from augesc_builder.config.statistics import STATISTICS
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.build import build
from augesc_builder.run.progress import Progress


def of_before(settings):
    """Write settings as they were before there were backends."""
    old = copy.deepcopy(settings)
    backend = old["generate"].pop("backend")
    backend.pop("type")
    backend["engine"] = {"continuous": "slots", "static": "simple"}[backend["engine"]]
    del old["reading"]
    for name in ("form", "background", "personas", "strategies"):
        del old["prompt"][name]
    del old["generate"]["background"], old["generate"]["resample"]
    old["generate"] |= backend
    del old["statistics"]
    for name in ("card", "executor"):  # a run's settings have none
        old.pop(name, None)
    if not old["quality"]["measures"]:
        del old["quality"]
    del old["finetune"]["held_out"], old["select"]
    del old["generate"]["keep"], old["generate"]["keep_budget"]
    return old


@pytest.mark.parametrize("name", ["paper", "tiny"])
def test_an_old_recipe_is_the_new_one(name, tmp_path, caplog):
    recipe = load_recipe(name)
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(of_before(recipe.settings())))
    assert "backend" not in path.read_text()
    found = load_recipe(path)
    assert found.settings() == recipe.settings()
    told = [record.getMessage() for record in caplog.records]
    assert "augesc: recipe: generate.dtype is now generate.backend.dtype" in told
    assert "augesc: recipe: generate.backend.engine: slots is now continuous" in told


def test_old_keys_override_what_a_recipe_extends(tmp_path, caplog):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\ngenerate: {slots: 3, engine: simple}\n")
    backend = load_recipe(path, ["generate.workers=2"]).generate.backend
    assert (backend.slots, backend.engine, backend.workers) == (3, "static", 2)
    assert backend.dtype == "float32"
    assert sum("is now" in record.getMessage() for record in caplog.records) == 4


def test_todays_keys_are_silent(caplog):
    load_recipe("paper", ["generate.backend.slots=3"])
    assert not caplog.records


def test_a_run_of_an_earlier_version_is_resumed(built, tiny, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["settings"] = of_before(manifest["settings"])
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert build(tiny, folder, Progress(quiet=True)) is False  # nothing to do


def test_what_older_recipes_lack_is_as_shipped():
    recipe = load_recipe("paper")
    assert recipe.statistics.model_dump() == STATISTICS
    assert recipe.quality.model_dump() == QUALITY


def test_a_run_of_one_stage_alone_has_the_form_that_there_was(caplog):
    before = {"stage": "generate", "prompt": {"instruction": "Be kind."}}
    assert modernize(before)["prompt"] == {
        "instruction": "Be kind.",
        "form": "paper",
        "background": False,
        "personas": None,
        "strategies": False,
    }
    assert modernize({"extends": "x", "prompt": {}})["prompt"] == {}
    assert not caplog.records


def test_modernize_changes_nothing_of_today():
    settings = load_recipe("paper").settings()
    assert modernize(settings) == settings
    assert modernize({"stage": "queries"}) == {"stage": "queries"}
    training = {"name": "esconv", "train": {"seed": 1}}  # its run's folder is read as any other
    assert modernize(training) == training


def test_an_unknown_backend_and_unknown_keys_of_one():
    with pytest.raises(RecipeError, match=r"generate\.backend\.type: .*self_chat.*, found 'lokal'"):
        load_recipe("paper", ["generate.backend.type=lokal"])
    with pytest.raises(RecipeError, match=r"backend\.slotz; did you mean generate\.backend\.slots"):
        load_recipe("paper", ["generate.backend.slotz=1"])


def test_a_recipe_goes_to_another_process_and_back():
    recipe = load_recipe("paper", ["requirements.total_utterances.min=3"])
    there = pickle.loads(pickle.dumps(recipe))
    assert there.settings() == recipe.settings()
    assert there.requirements.total_utterances.min == 3
    limits = pickle.loads(pickle.dumps(recipe.requirements))
    assert limits.settings() == recipe.requirements.settings()
    assert make_recipe(yaml.safe_load(dump_recipe(recipe))).settings() == recipe.settings()
