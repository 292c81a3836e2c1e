"""Whether two texts contradict each other, as a model of any labels and their order says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import CheckpointError, DownloadError
from augesc_builder.models.pair_classifier import (
    MODEL,
    REVISION,
    TOKENS_AT_ONCE,
    PairClassifier,
    batches,
    contradiction_label,
)

NLI = {0: "Entailment", 1: "NEUTRAL", 2: "contradiction"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a classifier of pairs with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("nli")
    named = ["[UNK]", "[PAD]", "[SEP]", *"abcdefgh"]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(named)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    ).save_pretrained(place)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(named),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.8,
        num_labels=3,
        id2label=NLI,
        label2id={label: i for i, label in NLI.items()},
    )
    BertForSequenceClassification(config).save_pretrained(place)
    return place


def test_each_pair_is_scored_as_it_is_alone_and_in_both_orders(folder):
    model = PairClassifier(str(folder), both_orders=True)
    pairs = [("a b", "c"), ("a", "c d e f g h a b"), ("", "b"), ("h " * 300, "a"), ("c", "a b")]
    together = model.contradictions(pairs)
    alone = [model.contradictions([pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=1e-6)
    assert together[0] == pytest.approx(together[4], abs=1e-6)
    assert len({round(score, 4) for score in together}) == 4
    assert all(0 < score < 1 for score in together)
    assert model.contradictions([]) == []
    one_way = PairClassifier(str(folder)).contradictions(pairs)
    assert all(one <= both + 1e-6 for one, both in zip(one_way, together, strict=True))
    assert one_way[0] != pytest.approx(one_way[4], abs=1e-6)
    about = {"model": str(folder), "commit": None, "longest": 256, "both_orders": True}
    assert model.settings() == about


def test_the_label_of_a_contradiction_is_read(folder):
    import torch

    model = PairClassifier(str(folder))
    encoded = model._tokenizer("a b", "c", return_tensors="pt")
    with torch.inference_mode():
        said = model._model(**encoded).logits.softmax(-1)[0, 2].item()
    assert model._score([("a b", "c")]) == pytest.approx([said], abs=1e-6)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_batches_hold_pairs_of_one_length(lengths):
    found = batches(lengths)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len({lengths[i] for i in batch}) == 1
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= TOKENS_AT_ONCE


@pytest.mark.parametrize(
    ("labels", "number"),
    [
        (NLI, 2),
        ({0: "CONTRADICTION", 1: "neutral", 2: "entailment"}, 0),
        ({0: "no_contradiction", 1: "contradiction"}, 1),
        ({0: "Contradiction", 1: "not contradiction"}, 0),
    ],
)
def test_labels_in_any_order_and_case(labels, number):
    assert contradiction_label("m", labels) == number


@pytest.mark.parametrize(
    "labels",
    [
        {0: "LABEL_0", 1: "LABEL_1"},
        {0: "POSITIVE", 1: "NEGATIVE"},
        {0: "entailment", 1: "not_entailment"},
        {0: "contradiction"},
        {0: "contradiction", 1: "contradiction"},
        {0: "contradiction", 1: "neutral", 2: "joy"},
        {0: "contradiction", 1: "neutral", 2: "entailment", 3: "neutral"},
        dict.fromkeys(range(1000), f"label {'x' * 1000}"),
    ],
)
def test_other_labels_are_refused_in_one_line_that_names_them(labels):
    with pytest.raises(CheckpointError) as refused:
        contradiction_label("some/model", labels)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 700
    assert line.startswith("some/model: its labels are ")
    assert str(labels[0])[:40] in line
    assert "expected contradiction, neutral and entailment" in line


def test_the_default_is_at_a_commit():
    assert re.fullmatch("[0-9a-f]{40}", REVISION)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be loaded as a classifier"):
        PairClassifier(str(tmp_path))


def test_without_a_network_it_says_how_to_get_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match=f"hf download {MODEL} --revision {REVISION}"):
        PairClassifier()
