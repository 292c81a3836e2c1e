from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from augesc_builder.config.base import FILE, MODEL
from augesc_builder.config.published import (
    is_local,
    label_of,
    local_places,
    relabelled,
    without_paths,
)
from augesc_builder.config.recipe import load_recipe, make_recipe
from augesc_builder.config.training import load_config


@pytest.mark.parametrize(
    ("text", "as_file", "as_model"),
    [
        ("/home/ann/x.csv", True, True),
        ("~/x", True, True),
        ("./x", True, True),
        ("../x", True, True),
        ("a/b/c", True, True),
        ("with blank/x", True, True),
        ("posts.csv", True, False),
        ("org/name", True, False),
        ("gpt2", True, False),
        ("EleutherAI/gpt-j-6b", True, False),
        ("hf://datasets/a/b", False, False),
        ("https://example.org/x", False, False),
        ("file:///home/ann/x", True, True),
    ],
)
def test_what_is_taken_for_a_path(text, as_file, as_model):
    assert is_local(text, FILE) == as_file
    assert is_local(text, MODEL) == as_model


def test_a_name_of_the_hub_that_is_a_folder_here_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_local("org/name", MODEL)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert is_local("org/name", MODEL)


def test_a_file_keeps_its_name_and_a_folder_does_not(tmp_path):
    folder = tmp_path / "ann" / "secret.d"
    folder.mkdir(parents=True)
    (folder / "train").write_text("x")
    assert label_of(str(folder / "train")) == "train (local file)"
    assert label_of(str(folder)) == "(local folder)"
    assert label_of(str(folder), "0123") == "(local folder, digest 0123)"
    assert label_of("/gone/train.txt", "0123") == "train.txt (local file, digest 0123)"
    assert label_of("/gone/ann") == "(local folder)"
    assert label_of("\0") == "(local folder)"


PLACES = {
    "backbone.name": "/p/backbone",
    "finetune.sessions": "/p/train.txt",
    "queries.sources.1.path": "/p/posts.csv",
    "queries.names_and_places": "/p/spacy",
    "queries.reddit.subreddits": "/p/subreddits.yaml",
    "queries.reddit.lexicons.serious_issue": "/p/serious.yaml",
    "queries.reddit.lexicons.medication": "/p/medication.yaml",
    "queries.reddit.lexicons.reddit_lingo": "/p/lingo.yaml",
    "queries.classifiers.emotions.1.model": "/p/emotion",
    "queries.classifiers.toxicity.model": "/p/toxicity",
    "safety.classifier.model": "/p/safety",
    "prompt.personas": "/p/personas.txt",
    "quality.consistency.classifier.model": "/p/contradictions",
    "quality.topic_drift.model": "/p/encoder",
    "quality.topic_drift.sessions": "/p/sessions",
    "quality.support_strategies.model": "/p/strategies",
}
"""Every key of a recipe that may name something on this disk."""


@pytest.fixture(scope="module")
def everywhere():
    return load_recipe(
        "paper",
        [
            "queries.sources=[{source: empathetic_dialogues}, {source: reddit, path: x}]",
            "safety.classifier={model: x, revision: null, threshold: 1, labels: {}}",
            "prompt.background=true",
            "quality.consistency.classifier={model: x, revision: null, threshold: 1}",
            "quality.topic_drift.scorer=encoder",
            *(f"{key}={path}" for key, path in PLACES.items()),
        ],
    )


def test_every_key_that_may_hold_a_path_is_known(everywhere):
    assert local_places(everywhere) == PLACES


def test_no_other_key_of_a_recipe_could_hold_one(everywhere):
    """A new key for a file or a model has to be marked as well."""
    free = {"name", "about", "prompt.instruction"}
    said = {*PLACES, *free}

    def texts(values, key=""):
        if isinstance(values, dict):
            for name, inner in values.items():
                yield from texts(inner, f"{key}.{name}" if key else name)
        elif isinstance(values, list):
            for i, inner in enumerate(values):
                yield from texts(inner, f"{key}.{i}")
        elif isinstance(values, str) and key not in said:
            yield key, values

    unmarked = [
        key
        for key, _ in texts(everywhere.settings())
        if any(word in key for word in ("path", "model", "file", "folder", "name", "dir"))
    ]
    assert unmarked == [
        "queries.classifiers.emotions.0.name",
        "queries.classifiers.emotions.0.model",  # a name on the Hub
        "queries.classifiers.emotions.1.name",
    ]


def test_a_relabelled_recipe_is_one(everywhere):
    labels = {key: label_of(path) for key, path in PLACES.items()}
    told = relabelled(everywhere, labels)
    assert type(told) is type(everywhere)
    assert "/p/" not in json.dumps(told.settings())
    assert told.finetune.sessions == "train.txt (local file)"
    assert make_recipe(told.settings()) == told
    assert relabelled(everywhere, {}) == everywhere


def test_an_address_and_what_is_served_there_are_not_told():
    keys = {"address": "http://ann.home:8000/v1", "model": "/home/ann/tuned"}
    section = [f"generate.backend.{key}={value}" for key, value in keys.items()]
    recipe = load_recipe("paper", ["generate.backend.type=vllm", *section])
    places = local_places(recipe, lambda key, _: None if "backend" in key else False)
    assert places == {f"generate.backend.{key}": value for key, value in keys.items()}
    told = relabelled(recipe, {key: label_of(value) for key, value in places.items()})
    assert "ann" not in json.dumps(told.settings()["generate"])
    assert make_recipe(told.settings()) == told
    section = [section[0], "generate.backend.model=org/tuned"]
    named = load_recipe("paper", ["generate.backend.type=vllm", *section])
    assert "generate.backend.address" in local_places(named)
    assert "generate.backend.model" not in local_places(named)
    assert "generate.backend.address" not in local_places(told)


def test_training_configs_have_theirs():
    config = load_config(
        "esconv_then_augesc",
        [
            "model.name=/p/model",
            "model.tokenizer=/p/tokenizer",
            "data.esconv_folder=/p/esconv",
            "data.validation=[/p/valid.txt]",
            "phases.further.sessions=[esconv:train, {path: /p/corpus, weight: 2}]",
        ],
    )
    assert set(local_places(config, lambda _, text: ":" not in text)) == {
        *("model.name", "model.tokenizer", "data.esconv_folder"),
        *("data.validation.0.path", "phases.further.sessions.1.path"),
    }


segments = st.lists(
    st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"), min_size=1),
    min_size=2,
    max_size=4,
)
around = st.text(st.sampled_from('ab :,"'), max_size=8)


@given(segments, around, around)
def test_a_path_is_out_of_any_value_and_text(parts, before, after):
    path = "/" + "/".join(parts)
    assume("/" in path.strip("./~"))  # else it is short: the next test's
    label = "X"
    said = {"k": [path, {path: f"{before}{path}{after}"}], "n": 3, "none": None}
    cleaned = without_paths(said, {path: label})
    assert cleaned == {
        "k": [label, {label: f"{before}{label}{after}"}],
        "n": 3,
        "none": None,
    }


def test_a_short_path_is_no_word_of_texts():
    said = {"settings": {"path": "x"}, "text": "a box of x", "dot": "."}
    assert without_paths(said, {"x": "L", ".": "F"}) == {
        "settings": {"path": "L"},
        "text": "a box of x",
        "dot": "F",
    }


def test_other_spellings_of_a_path_are_out_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    said = [str(tmp_path / "data" / "x.csv"), "data/x.csv", f"{tmp_path}/data/x.csv, line 3: no"]
    assert without_paths(said, {"./data//x.csv": "L"}) == ["L", "L", "L, line 3: no"]
