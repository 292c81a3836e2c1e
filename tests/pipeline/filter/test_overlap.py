"""Texts that stand in what models are tested on are rejected where a recipe asks for it."""

from __future__ import annotations

import json

import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.card.filtered import render_filtered
from augesc_builder.pipeline.filter.functions import measure, meets
from augesc_builder.pipeline.filter.overlap import with_tests_at_hand
from augesc_builder.pipeline.filter.requirements import (
    Requirement,
    decide,
    register_requirement,
)
from augesc_builder.pipeline.inputs import check_inputs, input_digests
from augesc_builder.run.folder import RunFolder
from augesc_builder.sources.esconv import INFO, read_esconv
from augesc_builder.sources.sample import read_sample_sessions
from tests.conftest import rows_of, shared
from tests.pipeline.filter.test_filter import lines, report_of

TEST = "a b c d e f g h"
"""Four shingles of five words."""


def talk(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def tests(tmp_path):
    said = [{"speaker": "usr", "text": TEST}, {"speaker": "sys", "text": "x y z"}]
    return lines(tmp_path / "tests.txt", [{"dialog": said[:1]}, {"dialog": said}])


def violations(tests, messages, similarity=0.8, span=None):
    section = {"sessions": str(tests), "similarity": similarity}
    given = {"test_overlap": {**section, **({"span": span} if span else {})}}
    batch = measure({"messages": [messages]}, given)
    names = decide(batch, load_recipe("paper").requirements.settings() | given)["violations"][0]
    met = meets("test_overlap")({name: column[0] for name, column in batch.items()}, given)
    assert met == ("test_overlap" not in names)
    return "test_overlap" in names, batch["test_similarity"], batch["test_span"]


@pytest.mark.parametrize(
    ("texts", "similarity", "span", "rejected"),
    [
        ((TEST[:-2], "h i"), 0.8, None, True),  # four of five shingles
        ((TEST[:-2], "h i"), 0.81, None, False),
        ((TEST[:-2], "h i j"), 0.8, None, False),  # four of six
        ((TEST, "x y z"), 1, None, True),
        ((TEST, "x y z z"), 1, None, False),
        (("a b c d", "e f g h i j k l m"), 1, 5, False),  # spans end with an utterance: four words
        (("a b c d e", "f g h i j k l m"), 1, 5, True),
        (("a b c d e", "f g h i j k l m"), 1, 6, False),
        (("well", "hm"), 0.01, 1, False),
        (("...", "?"), 0.01, 1, False),  # no words at all
    ],
)
def test_both_sides_of_the_thresholds(tests, texts, similarity, span, rejected):
    assert violations(tests, talk(*texts), similarity, span)[0] is rejected


def test_what_is_measured(tests):
    _, similarity, span = violations(tests, talk("A b c d e f", "g, h i!"))
    assert similarity == [4 / 5]
    assert span == [5]  # case-sensitive
    batch = measure({"text": ["no role"]}, {"test_overlap": {"sessions": "x", "similarity": 1}})
    assert batch["test_similarity"] == batch["test_span"] == [None]  # nothing was read for it


def test_it_is_off_unless_asked_for(tests):
    assert "test_overlap" not in load_recipe("paper").requirements.settings()
    assert "test_similarity" not in measure({"messages": [talk("Hi.", "Hm.")]})
    taken = Requirement("test_overlap", "x", lambda batch, _: [True])
    with pytest.raises(ValueError, match="test_overlap is a requirement of augesc"):
        register_requirement(taken)


def test_texts_are_rejected_with_the_reason(augesc, refused, tmp_path):
    """Two sessions of a test file among others, judged, and judged again by other thresholds."""
    every = [list(session.messages) for session in read_sample_sessions()]
    tests = lines(
        tmp_path / "tests.txt",
        [
            {
                "dialog": [
                    {"speaker": "usr" if m["role"] == "user" else "sys", "text": m["content"]}
                    for m in messages
                ]
            }
            for messages in every[:2]
        ],
    )
    file = lines(tmp_path / "mine.jsonl", [{"messages": messages} for messages in every[:6]])
    section = f"requirements.test_overlap={{sessions: {tests}, similarity: 0.8, span: 13}}"
    out = tmp_path / "out"
    code, text, err = augesc("filter", file, "--set", section, "--out", out)
    assert code == 0, err
    assert "test overlap" in text
    rejected = [r for r in rows_of(out / "rejected") if "test_overlap" in r["violations"]]
    assert len(rejected) == report_of(out)["violations"]["test_overlap"]["count"] == 2
    assert len(rows_of(out / "data")) == 4
    given = json.loads((out / "manifest.json").read_text())["settings"]
    assert "requirements.test_overlap.sessions" in given  # a digest of the file
    told = dict.fromkeys(("title", "licence", "about"), "x")
    card = render_filtered(out, told, given)
    assert "sessions: tests.txt (local file, digest " in card
    assert str(tmp_path) not in card
    reuse = ("filter", "--reuse", out, "--set")
    code, text, err = augesc(*reuse, "requirements.test_overlap=null")
    assert code == 0, err
    assert "Kept 6 of 6" in text
    said = refused(*reuse, "requirements.test_overlap.sessions=esconv")
    assert "nothing was measured against those; filter again without --reuse" in said


def test_esconvs_test_split_is_rejected_and_validation_is_not(augesc, tmp_path):
    esconv = {split: shared(f"esconv/{split}.txt") for split in ("test", "valid")}
    section = f"{{sessions: {esconv['test']}, similarity: 0.8, span: null}}"
    for split, file in esconv.items():
        part = tmp_path / f"{split}.txt"
        part.write_text("".join(file.read_text().splitlines(keepends=True)[:20]))
        out = tmp_path / split
        code, _, err = augesc(
            *("filter", part, "--set", f"requirements.test_overlap={section}", "--out", out)
        )
        assert code == 0, err
        count = report_of(out)["violations"]["test_overlap"]["count"]
        assert count == (20 if split == "test" else 0)


def test_a_source_is_read_at_one_commit_for_the_whole_run(tmp_path, monkeypatch):
    """As it is on the Hub: which file of which commit, the manifest says."""
    asked = []

    def test_files(revision):
        asked.append(revision)
        return [tmp_path / "test.txt"], "c" * 40

    monkeypatch.setitem(vars(INFO), "test_files", test_files)
    recipe = load_recipe("paper", ["requirements.test_overlap={sessions: esconv, similarity: 0.8}"])
    with RunFolder(tmp_path / "run", {}) as folder:
        for _ in range(2):
            limits = with_tests_at_hand(folder, recipe)
            assert limits.test_overlap.sessions == str(tmp_path / "test.txt")
        assert folder.manifest["revisions"] == {"esconv": "c" * 40}
    assert asked == [recipe.finetune.revision, "c" * 40]
    assert with_tests_at_hand(folder, load_recipe("paper")).test_overlap is None


def test_sessions_that_are_not_there(tests, tmp_path):
    name = "requirements.test_overlap"
    for where, says in (
        ("nowhere.txt", r"nowhere\.txt: no such file"),
        ("sample", "sample: has no split that models are tested on, and requirements.test_overlap"),
    ):
        recipe = load_recipe("tiny", [f"{name}={{sessions: {where}, similarity: 0.8}}"])
        with pytest.raises(InputError, match=says):
            check_inputs(recipe)
    recipe = load_recipe("tiny", [f"{name}={{sessions: {tests}, similarity: 0.8}}"])
    assert f"{name}.sessions" in input_digests(recipe)
    for wrong in (
        "{sessions: x}",
        "{sessions: x, similarity: 0}",
        "{sessions: x, similarity: 1.1}",
    ):
        with pytest.raises(RecipeError, match=r"requirements\.test_overlap\.similarity"):
            load_recipe("tiny", [f"{name}={wrong}"])
    with pytest.raises(RecipeError, match=r"requirements\.test_overlap\.span"):
        load_recipe("tiny", [f"{name}={{sessions: x, similarity: 1, span: 0}}"])
    assert len(read_esconv(tests)) == 2
