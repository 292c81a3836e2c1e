"""Evaluation of dialog models without people, and talking to them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.training import load_config
from augesc_builder.dialog import examples
from augesc_builder.dialog.model import Decoding, DialogModel, in_batches, tidy
from augesc_builder.errors import CheckpointError
from augesc_builder.evaluation.scores import (
    COLUMNS,
    LIKELIHOOD_METRICS,
    TEXT_METRICS,
    likelihood_numbers,
    session_sums,
    text_numbers,
)
from augesc_builder.evaluation.significance import (
    distinct_test,
    holm,
    paired_randomization_test,
)
from augesc_builder.metrics.intervals import number_grams
from augesc_builder.run.progress import Progress
from augesc_builder.training.run import train
from tests.conftest import often
from tests.training.test_training import MINI, example_settings, session_of

safety = pytest.importorskip("augesc_builder.text.safety")


def quiet(_):
    """Be told of progress."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that never saw two problem types."""
    out = tmp_path_factory.mktemp("evaluated") / "run"
    left_out = "data.leave_out=[job crisis, sleep problems]"
    train(load_config("tiny", [*MINI, left_out]), out, Progress(quiet=True))
    return out


@pytest.fixture(scope="module")
def dialog(model):
    return DialogModel(str(model))


@pytest.fixture(scope="module")
def pairs(dialog):
    return examples.read_pairs("sample:test", load_config("tiny").data, dialog.examples)[:13]


# -- numbers --------------------------------------------------------------------------------------

MEAN = {"mean": lambda sums: sums[:, 0] / sums[:, 1]}


def test_models_that_do_not_differ_are_found_so_and_others_are_found_out():
    rng = np.random.default_rng(1)
    p_values = []
    for i in range(200):
        both = rng.normal(0, 1, (2, 40))
        first, second = (np.stack([x, np.ones(40)], axis=1) for x in both)
        p_values.append(paired_randomization_test(first, second, MEAN, 200, i)["mean"][1])
    assert 2 <= sum(p < 0.05 for p in p_values) <= 20  # ten are to be expected
    first = np.stack([rng.normal(0, 1, 40), np.ones(40)], axis=1)
    difference, p = paired_randomization_test(first, first + np.array([1.0, 0.0]), MEAN, 500, 1)[
        "mean"
    ]
    assert difference == pytest.approx(1)
    assert p == pytest.approx(1 / 501)
    assert paired_randomization_test(first, first, MEAN, 100, 1)["mean"] == (0, 1)


def test_distinct_of_two_models():
    dull = [[["i", "see"]] for _ in range(12)]
    rich = [[[f"w{i}", f"v{i}"]] for i in range(12)]
    known: dict = {}
    first, second = number_grams(dull, 1, known), number_grams(rich, 1, known)
    difference, p = distinct_test(first, second, 12, 500, 1)
    assert difference == pytest.approx(1 - 2 / 24)
    assert p < 0.02
    assert distinct_test(first, first, 12, 100, 1) == (0, 1)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


TEXTS = st.text("ab ,.", max_size=20)


@settings(max_examples=often(30))
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=6))
def test_bleu_of_sums_is_sacrebleus_corpus_bleu(said):
    from sacrebleu.metrics import BLEU

    made = [
        examples.pairs_of(session_of(("user", "hi"), ("assistant", ref)), example_settings())[0]
        for _, ref in said
    ]
    numbers = text_numbers(made, [hypothesis for hypothesis, _ in said])
    total = numbers.sum(0, keepdims=True)
    for n in (1, 2, 3, 4):
        theirs = BLEU(lowercase=True, max_ngram_order=n).corpus_score(
            [h for h, _ in said], [[ref for _, ref in said]]
        )
        assert TEXT_METRICS[f"bleu_{n}"](total)[0] == pytest.approx(theirs.score)


def test_what_each_response_adds():
    said = [("user", "my doctor gave me pills"), ("assistant", "How are you ?")]
    pair = examples.pairs_of(session_of(*said), example_settings())[0]
    responses = [
        "how are you ? how are you ?",
        "how are you ? how are you ?",
        "You should stop taking your medication.",
    ]
    numbers = text_numbers([pair] * 3, responses)
    total = numbers.sum(0, keepdims=True)
    assert TEXT_METRICS["words"](total)[0] == pytest.approx((8 + 8 + 7) / 3)
    assert TEXT_METRICS["repetition"](total)[0] == pytest.approx(100 * (2 + 2) / (6 + 6 + 5))
    assert TEXT_METRICS["repeated_responses"](total)[0] == pytest.approx(200 / 3)
    assert TEXT_METRICS["flag_medical_advice"](total)[0] == pytest.approx(100 / 3)
    assert TEXT_METRICS["flagged"](total)[0] == pytest.approx(100 / 3)
    assert TEXT_METRICS["rouge_l"](numbers)[0] == pytest.approx(100 * 2 * (3 / 6) * 1 / (3 / 6 + 1))
    assert (session_sums(numbers, ["x", "y", "x"])[0] == numbers[0] + numbers[2]).all()
    assert numbers.shape == (3, len(COLUMNS))


# -- models ---------------------------------------------------------------------------------------


def test_perplexity_is_that_of_transformers_and_batches_change_nothing(dialog, pairs):
    one, many = (dialog.likelihoods(pairs, size, quiet) for size in (1, 5))
    for a, b, pair in zip(one, many, pairs, strict=True):
        assert a.nats == pytest.approx(b.nats, rel=1e-4)
        example = dialog.encoder.encode(pair.history, pair.response)
        with torch.no_grad():
            loss = dialog.model(
                input_ids=torch.tensor([example.source]), labels=torch.tensor([example.target])
            ).loss
        assert a.nats == pytest.approx(float(loss) * a.n_tokens, rel=1e-4)
    total = likelihood_numbers(one).sum(0, keepdims=True)
    nats = sum(x.nats for x in one)
    tokens, words = sum(x.n_tokens for x in one), sum(x.n_words for x in one)
    assert LIKELIHOOD_METRICS["perplexity_token"](total)[0] == pytest.approx(
        math.exp(nats / tokens)
    )
    assert LIKELIHOOD_METRICS["perplexity_word"](total)[0] == pytest.approx(math.exp(nats / words))


@pytest.mark.parametrize("top_p", [None, 0.9])
def test_a_response_belongs_to_its_history_whatever_the_batch(dialog, pairs, top_p):
    def respond(some, size, seed=13):
        decoding = Decoding(max_tokens=12, top_p=top_p, batch_size=size, seed=seed)
        return dialog.respond(some, decoding, quiet)

    whole = respond(pairs, 5)
    assert respond(pairs, 1) == whole
    assert respond(pairs[::-1], 4) == whole[::-1]
    if top_p:
        assert respond(pairs, 5, seed=2) != whole
        assert len(set(whole)) > 6


def test_greedy_decoding_is_that_of_transformers(dialog, pairs):
    source = dialog.encoder.source(pairs[0].history)
    theirs = dialog.model.generate(torch.tensor([source]), max_new_tokens=12, do_sample=False)
    ours = dialog.respond(pairs[:1], Decoding(max_tokens=12), quiet)
    assert ours == [dialog.decode(theirs[0].tolist())]


def test_batches_are_of_like_lengths_and_halved_when_memory_runs_out():
    seen = []

    def work(batch):
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        seen.append(list(batch))

    lengths = [3, 9, 1, 7, 5, 2, 8]
    in_batches(lengths, 7, work)
    assert [lengths[i] for batch in seen for i in batch] == sorted(lengths, reverse=True)
    assert [len(batch) for batch in seen] == [3, 3, 1]

    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    with pytest.raises(CheckpointError, match="out of memory with one example"):
        in_batches(lengths, 7, never)


def test_tidy_writes_as_people_do():
    assert tidy("i ' m here . what ' s up ? ( no , really )") == "i'm here. what's up? (no, really)"
    assert tidy("they said 'no' and left") == "they said 'no' and left"


# -- the commands ---------------------------------------------------------------------------------


def test_two_models_are_compared_by_problem_type(augesc, model, tmp_path):
    out = tmp_path / "evaluation"
    code, text, err = augesc(
        *("evaluate-model", model, "--against", model, "--sessions", "sample:test"),
        *("--out", out, "--resamples", 100, "--max-tokens", 12),
    )
    assert code == 0, err
    for name in ("perplexity_word", "bleu_4", "rouge_l", "distinct_3", "repetition", "flagged"):
        assert f"| {name} " in text
    assert "p (Holm)" in text
    report = json.loads((out / "evaluation.json").read_text())
    groups = report["groups"]
    unseen = groups["unseen types"]
    assert unseen["responses"] == sum(
        groups[kind]["responses"] for kind in ("job crisis", "sleep problems")
    )
    assert groups["all"]["responses"] == unseen["responses"] + groups["seen types"]["responses"]
    assert groups["all"]["sessions"] == 13
    for test in groups["all"]["tests"][0].values():  # a model and itself
        assert test["difference"] in {0, None}  # None: such a response has no trigram
        assert test["p"] == 1
    for estimate in groups["all"]["estimates"][0].values():
        if estimate["value"] is not None:
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    rows = [json.loads(line) for line in (out / "responses.jsonl").read_text().splitlines()]
    assert len(rows) == groups["all"]["responses"]
    assert rows[0]["responses"][0] == rows[0]["responses"][1]
    assert (out / "evaluation.md").read_text().strip() == text.strip()


def test_several_models_are_held_against_the_first_under_their_configs_names(
    augesc, model, tmp_path
):
    shutil.copytree(model, tmp_path / "control")
    facts = tmp_path / "control" / "model-first" / "training.json"
    known = json.loads(facts.read_text())
    known["config"]["name"] = "esconv_equal_steps"
    facts.write_text(json.dumps(known))
    code, text, err = augesc(
        *("evaluate-model", tmp_path / "control", "--against", model, "--against", model),
        *("--sessions", "sample:test", "--limit", 3, "--perplexity-only", "--resamples", 100),
        *("--out", tmp_path / "out"),
    )
    assert code == 0, err
    table = [line for line in text.splitlines() if line.startswith("|")]
    header, _, configs, row = table[:4]
    assert f"{model} (2)" in header
    assert "p (Holm) (3)" in header
    assert [cell.strip() for cell in configs.split("|")][1:5] == [
        *("config", "esconv_equal_steps", "tiny", "tiny")
    ]
    assert row.count("1.000") == 4
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len(report["groups"]["all"]["tests"]) == 2
    assert report["configs"] == ["esconv_equal_steps", "tiny", "tiny"]


def test_a_limit_and_perplexity_alone(augesc, model):
    code, text, err = augesc(
        *("evaluate-model", model, "--sessions", "sample:test", "--limit", 3),
        *("--perplexity-only", "--resamples", 100),
    )
    assert code == 0, err
    assert "of 3 sessions" in text
    assert "bleu_1" not in text


@pytest.fixture
def seeker(model, tmp_path):
    """The same model, as one that had learned the other role."""
    shutil.copytree(model, tmp_path / "seeker")
    facts = tmp_path / "seeker" / "model-first" / "training.json"
    known = json.loads(facts.read_text())
    known["config"]["examples"]["role"] = "seeker"
    facts.write_text(json.dumps(known))
    return tmp_path / "seeker"


def test_a_seeker_is_evaluated_on_seekers_and_not_beside_a_supporter(
    seeker, model, augesc, refused, tmp_path
):
    options = ("--sessions", "sample:test", "--perplexity-only", "--resamples", 100)
    code, _, err = augesc("evaluate-model", seeker, *options, "--out", tmp_path / "out")
    assert code == 0, err
    wanted = examples.read_pairs(
        "sample:test",
        load_config("tiny").data,
        load_config("tiny", ["examples.role=seeker"]).examples,
    )
    (report,) = (json.loads(p.read_text()) for p in (tmp_path / "out").glob("*.json"))
    assert report["examples"] == len(wanted)
    said = refused("evaluate-model", seeker, "--against", model, *options)
    assert f"{seeker} a seeker, {model} a supporter" in said


def test_nobody_chats_with_a_seeker(seeker, refused):
    assert "supports nobody" in refused("chat", seeker)


def test_mistakes_of_an_evaluation(refused, model, tmp_path):
    (tmp_path / "x").write_text("")
    assert "is not empty" in refused("evaluate-model", model, "--out", tmp_path)
    assert "no such folder" in refused("evaluate-model", tmp_path / "y")
    said = refused(
        "evaluate-model", model, "--sessions", "esconv:test", "--esconv-folder", tmp_path
    )
    assert "no files of ESConv there" in said
