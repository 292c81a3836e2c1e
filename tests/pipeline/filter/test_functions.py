"""The requirements as functions for Dataset.map and Dataset.filter: the form that users hold."""

from __future__ import annotations

import pickle

import pytest
from datasets import Dataset, load_dataset
from datasets.fingerprint import Hasher

import augesc
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.pipeline.filter.requirements import active
from tests.conftest import rows_of, shared

KIND = "Thank you for telling me, that sounds like a very hard week for you"
SAD = "I do not know what to do any more since I lost my job"


def session(n, seeker=SAD, supporter=KIND):
    """Give a session of ``n`` utterances, the seeker's first."""
    return [
        {"role": "assistant" if i % 2 else "user", "content": supporter if i % 2 else seeker}
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def conversations():
    return Dataset.from_dict(
        {
            "id": ["good", "short", "unbalanced", "role"],
            "messages": [
                session(12),
                session(9),
                session(4) + session(1) * 3 + session(2) + session(1) * 2,
                session(12, supporter=f"{KIND} AI"),
            ],
        }
    )


def kept(measured, *names, **options):
    test = augesc.meets(*names) if names else augesc.meets_requirements
    return measured.filter(test, **options)["id"][:]


def test_measured_and_filtered_as_the_readme_says(conversations):
    measured = conversations.map(augesc.measure, batched=True)
    assert measured["n_utterances"][:] == [12, 9, 11, 12]
    assert measured["messages"][:] == conversations["messages"][:]
    assert kept(measured) == ["good"]
    assert kept(measured, "role_words") == ["good", "short", "unbalanced"]
    assert kept(measured, "total_utterances") == ["good", "unbalanced", "role"]
    assert kept(measured, "total_utterances", "role_words") == ["good", "unbalanced"]


def test_whole_batches_are_judged_alike(conversations):
    measured = conversations.map(augesc.measure, batched=True, batch_size=3)
    assert kept(measured, batched=True, batch_size=2) == kept(measured)


def test_thresholds_come_by_fn_kwargs_or_a_recipe(conversations):
    measured = conversations.map(augesc.measure, batched=True)
    nine = {"requirements": {"total_utterances": {"min": 9}}}
    assert kept(measured, fn_kwargs=nine) == ["good", "short"]
    eight = {"requirements": {"total_utterances": {"min": 10, "max": 11}}}
    assert kept(measured, "total_utterances", fn_kwargs=eight) == ["unbalanced"]
    recipe = augesc.load_recipe("paper", ["requirements.total_utterances.min=9"])
    assert kept(measured, fn_kwargs={"requirements": recipe}) == ["good", "short"]
    assert kept(measured, fn_kwargs={"requirements": recipe.requirements}) == ["good", "short"]
    other = {"requirements": {"role_words": {"words": ["hard"]}}}
    measured = conversations.map(augesc.measure, batched=True, fn_kwargs=other)
    assert measured["n_role_words"][0] == 6


def test_several_processes_and_a_stream_give_the_same(conversations):
    one = conversations.map(augesc.measure, batched=True)
    two = conversations.map(augesc.measure, batched=True, num_proc=2)
    assert two[:] == one[:]
    assert (
        two.filter(augesc.meets_requirements, num_proc=2)[:]
        == (one.filter(augesc.meets_requirements)[:])
    )
    stream = conversations.to_iterable_dataset().map(augesc.measure, batched=True)
    assert list(stream) == list(one)
    found = stream.filter(augesc.meets_requirements, fn_kwargs={"requirements": None})
    assert [row["id"] for row in found] == ["good"]
    assert [row["id"] for row in stream.filter(augesc.meets("role_words"))] == (
        kept(one, "role_words")
    )


def test_a_second_call_comes_from_the_cache(tmp_path, conversations):
    """Fingerprints are stable: nothing is measured twice, in this process or the next."""
    path = tmp_path / "x.parquet"
    conversations.to_parquet(path)
    cache = str(tmp_path / "cache")

    def load():
        return load_dataset("parquet", data_files=str(path), split="train", cache_dir=cache)

    first = load().map(augesc.measure, batched=True)
    written = {file["filename"] for file in first.cache_files}
    second = load().map(augesc.measure, batched=True)
    assert written == {file["filename"] for file in second.cache_files}
    assert first._fingerprint == second._fingerprint
    for name in ("role_words", "format"):
        assert Hasher.hash(augesc.meets(name)) == Hasher.hash(augesc.meets(name))
    assert Hasher.hash(augesc.meets("role_words")) != Hasher.hash(augesc.meets("format"))
    for function in (augesc.measure, augesc.meets_requirements, augesc.meets("format")):
        assert Hasher.hash(pickle.loads(pickle.dumps(function))) == Hasher.hash(function)


def test_texts_and_tokens_are_measured_as_the_stage_does(built):
    """A generations table of a build gives its own table of measured numbers.

    Tokens are those of the rows, from which a build takes off what it does not read.
    """
    files = sorted(map(str, (built / "generations").glob("*.parquet")))
    generations = Dataset.from_parquet(files)
    names = generations.column_names
    options = {"requirements": augesc.load_recipe(built / "recipe.yaml")}
    measured = generations.map(augesc.measure, batched=True, fn_kwargs=options)
    keys = ("query_id", "sample", "source")
    rows = measured.remove_columns([name for name in names if name not in keys]).to_list()
    ours = {(row["query_id"], row["sample"]): row for row in rows_of(built / "measured")}
    theirs = {(row["query_id"], row["sample"]): row for row in rows}
    for row in generations:
        key = row["query_id"], row["sample"]
        assert theirs[key].pop("total_tokens") == row["n_prompt_tokens"] + row["n_tokens"]
        assert ours[key].pop("total_tokens") > 0
    assert theirs == ours
    passed = measured.filter(augesc.meets_requirements, fn_kwargs=options)
    report_kept = {row["session_id"] for row in rows_of(built / "corpus" / "data")}
    assert {f"{q}-{s}" for q, s in zip(passed["query_id"], passed["sample"], strict=True)} == (
        report_kept
    )


def test_sessions_of_a_corpus_are_measured_too(built):
    corpus = load_dataset("parquet", data_files=str(built / "corpus/data/*.parquet"), split="train")
    measured = corpus.map(augesc.measure, batched=True)
    assert measured["total_tokens"][:] == corpus["n_tokens"][:]


def test_a_text_without_a_role_has_no_numbers_and_fails():
    texts = Dataset.from_dict({"id": ["x", "y"], "text": ["no role", "Human: hi\nAI: there"]})
    measured = texts.map(augesc.measure, batched=True)
    assert measured["n_utterances"][:] == [None, 2]
    assert measured["total_tokens"][:] == [None, None]
    assert kept(measured, "format") == ["y"]
    assert kept(measured, "session_length") == ["x", "y"]  # nothing counted tokens
    assert kept(measured) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1]}, "expected a column messages or text, found x"),
        ({"text": [None]}, "line 1: column text: expected a text, found None"),
        ({"messages": [[{"role": "system", "content": "x"}]]}, "role user or assistant"),
        ({"messages": [[{"role": "user", "content": None}]]}, "and content, found"),
        ({"messages": ["hello"]}, "column messages: expected a list of utterances"),
    ],
)
def test_rows_of_another_form_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        augesc.measure(columns)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="no requirement 'role_word'; expected one of format"):
        augesc.meets("role_word")
    with pytest.raises(InputError, match=r"first ds.map\(augesc.measure, batched=True\)"):
        augesc.meets_requirements({"messages": session(12)})
    with pytest.raises(RecipeError, match="did you mean requirements"):
        augesc.measure({"text": ["x"]}, {"total_utterance": {"min": 1}})


def test_nothing_to_measure():
    assert augesc.measure({"messages": []})["n_utterances"] == []


def test_a_requirement_that_is_off_is_told_from_one_that_is_met(conversations):
    with pytest.raises(RecipeError, match=r"requirements\.test_overlap is null"):
        augesc.meets("test_overlap")(conversations.map(augesc.measure, batched=True)[0])


def test_real_sessions(tmp_path):
    """ESConv's sessions, by the paper's requirements: each one judged as the stage judges it."""
    from augesc_builder.sources.esconv import read_esconv

    sessions = read_esconv(shared("esconv/test.txt"))
    real = Dataset.from_dict({"messages": [list(s.messages) for s in sessions]})
    measured = real.map(augesc.measure, batched=True)
    assert sum(measured["n_utterances"]) == sum(len(s.messages) for s in sessions)
    shares = {
        one.name: len(measured.filter(augesc.meets(one.name))) / len(measured)
        for one in active(load_recipe("paper").requirements)
    }
    assert shares["format"] == shares["session_length"] == 1
    assert 0.5 < shares["continuous_utterances"] < 1
