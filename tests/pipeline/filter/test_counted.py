"""Which text session length is counted of: as generated, or as it is read (section 4.3)."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.models.token_counter import load_counter
from augesc_builder.text.prompts import PromptTemplate, parse, read_text, whole_text
from tests.conftest import rows_of, shared

TEXT = " I see.\n * Human: He left.\n\n>> AI: And you?"
READ = " I see.\nHuman: He left.\nAI: And you?"
TEMPLATE = PromptTemplate(load_recipe("paper").prompt.instruction)


def row(text, n_tokens, sample):
    return {
        "query_id": "q",
        "sample": sample,
        "source": "s",
        "query": "I am sad.",
        "text": text,
        "n_prompt_tokens": 7,
        "n_tokens": n_tokens,
        "finish_reason": "eos",
        "seed": 1,
    }


@pytest.fixture(scope="module")
def count():
    counter = load_counter(shared("tokenizers/gpt2"))
    return lambda text: counter.count([whole_text("I am sad.", text, TEMPLATE)])[0]


@pytest.fixture
def generations(tmp_path):
    path = tmp_path / "generations.jsonl"
    rows = [row(TEXT, 100, 0), row(READ, 100, 1), row("no role", 100, 2), row(TEXT, None, 3)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def totals(folder):
    return [r["total_tokens"] for r in pq.read_table(folder / "measured").to_pylist()]


def test_what_reading_takes_away_is_not_counted(augesc, generations, count, tmp_path):
    """Where nothing is taken away a count stays, though a tokenizer would write other tokens."""
    gpt2 = ("--tokenizer", shared("tokenizers/gpt2"))
    code, text, err = augesc("filter", generations, "--out", tmp_path / "new", *gpt2)
    assert code == 0, err
    less = count(TEXT) - count(READ)
    assert less > 0
    assert totals(tmp_path / "new") == [107 - less, 107, 107, count(READ)]
    assert "as generated" not in text
    as_generated = ("--set", "requirements.counted=generated")
    code, text, err = augesc("filter", generations, "--out", tmp_path / "old", *gpt2, *as_generated)
    assert code == 0, err
    assert totals(tmp_path / "old") == [107, 107, 107, count(TEXT)]
    assert "as generated" not in text  # it was asked for


def test_every_text_is_counted_by_a_tokenizer_that_is_asked_for(
    augesc, generations, count, tmp_path
):
    name = shared("tokenizers/gpt2")
    asked = ("--set", f"requirements.tokenizer.name={name}")
    code, _, err = augesc("filter", generations, "--out", tmp_path / "out", *asked)
    assert code == 0, err
    assert totals(tmp_path / "out") == [count(READ), count(READ), count("no role"), count(READ)]


@pytest.mark.parametrize(("most", "n_kept"), [(0, 1), (-1, 0)])
def test_both_sides_of_the_threshold(augesc, generations, count, tmp_path, most, n_kept):
    """A text is kept by the tokens that are left."""
    generations.write_text(json.dumps(row(TEXT, 100, 0)))
    left = 107 - count(TEXT) + count(READ)
    loose = [
        f"--set=requirements.{key}={value}"
        for key, value in {
            "total_utterances.min": 1,
            "seeker_utterance_length.mean.min": 1,
            "seeker_utterance_length.short": 1,
            "supporter_utterance_length.mean.min": 1,
            "supporter_utterance_length.short": 1,
            "session_length.max": left + most,
        }.items()
    ]
    gpt2 = ("--tokenizer", shared("tokenizers/gpt2"))
    code, _, err = augesc("filter", generations, "--out", tmp_path / "out", *gpt2, *loose)
    assert code == 0, err
    assert [r["n_tokens"] for r in rows_of(tmp_path / "out" / "data")] == [left] * n_kept


def test_without_a_tokenizer_counts_stay_and_it_is_said(augesc, refused, generations, tmp_path):
    out = tmp_path / "out"
    code, text, err = augesc("filter", generations, "--out", out)
    assert code == 0, err
    assert totals(out)[:3] == [107] * 3
    generations.write_text(json.dumps(row(TEXT, 100, 0)))
    code, text, err = augesc("filter", generations, "--out", tmp_path / "all")
    assert code == 0, err
    assert "as generated" in text
    assert "--tokenizer" in text
    report = json.loads((tmp_path / "all" / "filter_report.json").read_text())
    assert report["counted"] == "generated"
    code, _, err = augesc("filter", "--reuse", tmp_path / "all", "--out", tmp_path / "again")
    assert code == 0, err
    again = json.loads((tmp_path / "again" / "filter_report.json").read_text())
    assert again["counted"] == "generated"
    said = refused("filter", "--reuse", out, "--set", "requirements.counted=generated")
    assert "requirements.counted changes what is measured" in said


def test_runs_of_before_counted_what_was_generated(augesc, refused, built, tmp_path):
    """Their manifests have no such key; to compare with one of today they are counted again."""
    recipe = (built / "recipe.yaml").read_text()
    assert "counted: stripped" in recipe
    old = tmp_path / "old.yaml"
    old.write_text(recipe.replace("  counted: stripped\n", ""))
    assert load_recipe(old).requirements.counted == "generated"
    before = tmp_path / "before"
    as_before = ("--set", "requirements.counted=generated")
    code, _, err = augesc("filter", built / "generations", "--out", before, *as_before)
    assert code == 0, err
    said = refused("compare", built, before)
    assert "requirements.counted ('generated' in before, 'stripped' in run)" in said
    assert "augesc filter" in said


def test_a_build_counts_as_the_paper_does(built):
    report = json.loads((built / "corpus" / "filter_report.json").read_text())
    assert report["counted"] == "stripped"


@given(st.lists(st.text("aB:*> \n.", max_size=12), max_size=6))
def test_what_is_read_stays_what_it_is(lines):
    """Reading what was read takes nothing away."""
    text = "\nHuman: ".join(lines)
    once = read_text("I am sad.", text, TEMPLATE)
    messages = parse(once.removeprefix(TEMPLATE.prefix))
    if messages is None:
        assert once == whole_text("I am sad.", text, TEMPLATE)
    else:
        assert once == TEMPLATE.for_session(messages)
        assert parse(whole_text("I am sad.", text)) == messages
