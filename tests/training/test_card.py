from __future__ import annotations

import json
import shutil

import pytest
import yaml

from augesc_builder.config.training import load_config
from augesc_builder.pipeline.card.metadata import split_card
from augesc_builder.sources import sample
from augesc_builder.training.card import render_model_card
from augesc_builder.training.run import run_settings

FACTS = {
    "steps": 2,
    "validation_perplexity": 3.5,
    "examples": [7],
    "validation_examples": 1,
}
VERSIONS = {"versions": {"python": "3.10"}}


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "Ann Müller" / "zqx-private"
    folder.mkdir(parents=True)
    for name in ("train.txt", "valid.txt"):
        shutil.copy(sample.SESSIONS, folder / name)
    (folder / "qqmodel").mkdir()
    return folder


def rendered(config, **manifest):
    return render_model_card(
        config, FACTS, {"settings": run_settings(config), **VERSIONS, **manifest}
    )


def test_no_part_of_a_path_is_in_the_card_of_a_dialog_model(home):
    given = {
        "model.name": str(home / "qqmodel"),
        "model.tokenizer": str(home / "qqmodel"),
        "data.esconv_folder": str(home),
        "data.validation": ["esconv:validation"],
        "phases.first.sessions": [str(home / "train.txt"), "sample:train"],
    }
    config = load_config("esconv", [f"{k}={json.dumps(v)}" for k, v in given.items()])
    card = rendered(config)
    for part in ("Ann M", "zqx-private", "qqmodel", str(home)):
        assert part not in card
    assert "base_model" not in split_card(card)[0]
    assert "- Start: (local folder)" in card
    digest = run_settings(config)["inputs"][str(home / "train.txt")]
    assert f"`train.txt (local file, digest {digest})` (weight 1.0), `sample:train`" in card
    settings = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert settings["data"]["esconv_folder"] == "(local folder)"
    assert settings["phases"]["first"]["sessions"][1]["path"] == "sample:train"


def test_a_model_of_the_hub_is_named_with_the_commit_that_was_loaded():
    config = load_config("esconv", ["phases.first.sessions=[sample]", "data.validation=[sample]"])
    card = rendered(config, revisions={"model": "0123456789" * 4})
    assert split_card(card)[0]["base_model"] == "facebook/blenderbot-1B-distill"
    assert f"- Start: facebook/blenderbot-1B-distill at commit `{'0123456789' * 4}`" in card


def test_a_setting_does_not_end_the_block_it_stands_in():
    config = load_config("tiny", ["about='```\n\n# Heading'", "phases.first.sessions=[sample]"])
    card = rendered(config)
    assert "````yaml\n" in card
