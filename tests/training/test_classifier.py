"""Training of classifiers: what they read, how they resume, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Tokenizer, pipeline

from augesc_builder.config.training import load_config
from augesc_builder.dialog.folder import find_model
from augesc_builder.dialog.labelled import read_labelled
from augesc_builder.errors import CheckpointError, InputError, RecipeError, TrainingError
from augesc_builder.models.sequence_classifier import (
    SequenceClassifier,
    encode,
    freeze_below,
    load_to_train,
)
from augesc_builder.run.progress import Progress
from augesc_builder.text.strategies import GROUPS, STRATEGIES
from augesc_builder.training.run import train
from tests import classifiers
from tests.conftest import shared
from tests.training.test_training import StopsAfter, assert_equal_weights, curve_of, weights_of

LABELS = ["glad", "sad"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return classifiers.causal_backbone(tmp_path_factory.mktemp("backbone") / "model")


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    """A file of pairs whose label is plain from one word of the second text."""
    return classifiers.moods(tmp_path_factory.mktemp("moods") / "moods.tsv")


def config_for(backbone, path, *overrides):
    return load_config("strategies", classifiers.small(backbone, path, *overrides))


@pytest.fixture(scope="module")
def trained(backbone, moods, tmp_path_factory):
    out = tmp_path_factory.mktemp("classifier") / "run"
    train(config_for(backbone, moods), out, Progress(quiet=True))
    return out


def rows_of(path, **settings):
    config = load_config("strategies")
    return read_labelled(str(path), config.data, config.examples.model_copy(update=settings))


# -- training -------------------------------------------------------------------------------------


def test_it_learns_and_its_folder_is_one_of_transformers(trained, moods):
    classifier = SequenceClassifier(find_model(str(trained)))
    assert classifier.labels == ("glad", "sad")
    rows = rows_of(moods)
    found = classifier.probabilities([(row.text, row.text_pair) for row in rows], 7)
    assert found.sum(1) == pytest.approx(1)
    told = [classifier.labels[i] for i in found.argmax(1)]
    assert sum(t == row.label for t, row in zip(told, rows, strict=True)) > 0.95 * len(rows)
    plain = pipeline("text-classification", model=find_model(str(trained)), device="cpu")
    for row, probabilities in zip(rows[:8], found[:8], strict=True):
        said = plain({"text": row.text, "text_pair": row.text_pair})
        said = said[0] if isinstance(said, list) else said
        assert said["label"] == classifier.labels[probabilities.argmax()]
        assert said["score"] == pytest.approx(probabilities.max(), abs=1e-4)


def test_a_text_is_classified_in_a_batch_as_alone(trained, moods):
    classifier = SequenceClassifier(find_model(str(trained)))
    texts = [(row.text, row.text_pair) for row in rows_of(moods)[:6]]
    texts += [("", "sad " * 400), ("", ""), ("only one", None)]
    together = classifier.probabilities(texts, 4)
    alone = [classifier.probabilities([each])[0] for each in texts]
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_killed_training_resumes_to_the_same_weights(backbone, moods, trained, tmp_path):
    config = config_for(backbone, moods)
    for steps in (5, 9):
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "out", StopsAfter(steps))
    train(config, tmp_path / "out", Progress(quiet=True))
    assert_equal_weights(weights_of(tmp_path / "out"), weights_of(trained))
    assert curve_of(tmp_path / "out") == curve_of(trained)


def test_only_the_upper_layers_are_trained_where_so_many_are_asked_for(
    backbone, moods, trained, tmp_path
):
    train(
        config_for(backbone, moods, "model.trainable_layers=1", "phases.first.epochs=1"),
        *(tmp_path / "out", Progress(quiet=True)),
    )
    begun, _ = load_to_train(str(backbone), None, None, LABELS, 13)
    ours, fresh = weights_of(tmp_path / "out"), begun.state_dict()
    changed = {name for name, value in ours.items() if not torch.equal(value, fresh[name])}
    assert "model.embed_tokens.weight" not in changed
    assert not any(name.startswith("model.layers.0.") for name in changed)
    assert any(name.startswith("model.layers.1.") for name in changed)
    assert {"model.norm.weight", "score.weight"} <= changed
    whole = weights_of(trained)
    assert not torch.equal(whole["model.embed_tokens.weight"], fresh["model.embed_tokens.weight"])
    with pytest.raises(TrainingError, match="is 3, and the model has 2 layers"):
        freeze_below(begun, 3)


@pytest.mark.slow
def test_a_second_phase_trains_the_same_head_further(backbone, moods, trained, tmp_path):
    further = (
        f"phases.further={{sessions: ['{moods}'], epochs: 1, learning_rate: 1.0e-9, "
        "warmup_steps: 0}"
    )
    train(config_for(backbone, moods, further), tmp_path / "out", Progress(quiet=True))
    ours, before = weights_of(tmp_path / "out"), weights_of(trained)
    torch.testing.assert_close(ours["score.weight"], before["score.weight"], atol=1e-6, rtol=0)


def test_the_card_names_labels_and_settings(trained):
    card = (trained / "model-first" / "README.md").read_text()
    assert "Labels: `glad`, `sad`" in card
    assert "pipeline_tag: text-classification" in card
    assert "nats a label" in card
    assert str(trained.parent) not in card
    assert "counsellor" not in card
    facts = json.loads((trained / "manifest.json").read_text())["stages"]["train"]
    assert facts["labels"] == LABELS
    assert facts["validation_loss"] < 0.5
    assert "validation_perplexity" not in facts


def test_a_classifier_is_no_dialog_model(trained, refused):
    assert "it tells labels of texts, and says nothing itself" in refused("chat", trained)


# -- models ---------------------------------------------------------------------------------------


def test_a_pair_is_joined_by_the_tokenizer_itself(backbone, tmp_path):
    """One that puts nothing between two texts gets a separator, which is saved with it."""
    model, tokenizer = load_to_train(str(backbone), None, None, LABELS, 1)
    end = tokenizer.eos_token_id
    one, other = (tokenizer(text)["input_ids"] for text in ("my dog", "is old"))
    assert end not in one
    assert tokenizer("my dog", "is old")["input_ids"] == [*one, end, *other]
    model.save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    again = SequenceClassifier(str(tmp_path / "m")).tokenizer
    assert again("my dog", "is old")["input_ids"] == [*one, end, *other]


def test_the_real_gpt2_tokenizer_keeps_the_separator(backbone, tmp_path):
    tokenizer = GPT2Tokenizer.from_pretrained(str(shared("tokenizers/gpt2")))
    tokenizer.save_pretrained(tmp_path / "gpt2")
    from augesc_builder.models.dialog import load_tokenizer
    from augesc_builder.models.sequence_classifier import _separate_pairs

    tokenizer = load_tokenizer(str(tmp_path / "gpt2"))
    _separate_pairs(tokenizer)
    tokenizer.save_pretrained(tmp_path / "again")
    joined = load_tokenizer(str(tmp_path / "again"))("my dog", "is old")["input_ids"]
    assert joined.count(tokenizer.eos_token_id) == 1


def test_what_is_too_long_loses_its_beginning(backbone):
    _, tokenizer = load_to_train(str(backbone), None, None, LABELS, 1)
    long, short = "one two three four five six seven eight", "my dog"
    whole = tokenizer(long, short)["input_ids"]
    cut = encode(tokenizer, long, short, len(whole) - 4)["input_ids"]
    assert cut == whole[4:]


def test_an_encoder_is_a_backbone_too(backbone, moods, tmp_path):
    """A BERT without a head, whose tokenizer marks the two texts by their types."""
    tokenizer = classifiers.word_pieces(tmp_path / "bert")
    config = BertConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64},
    )
    torch.manual_seed(1)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    overrides = ("phases.first.epochs=1", "model.trainable_layers=1")
    train(config_for(tmp_path / "bert", moods, *overrides), tmp_path / "out", Progress(quiet=True))
    classifier = SequenceClassifier(find_model(str(tmp_path / "out")))
    inputs = encode(classifier.tokenizer, "my dog", "today", 48)
    assert set(inputs["token_type_ids"]) == {0, 1}
    assert classifier.probabilities([("my dog", "today")]).shape == (1, 2)


def test_a_folder_with_other_weights_is_refused(backbone, tmp_path):
    with pytest.raises(CheckpointError, match=r"it is none, of transformers' kinds"):
        SequenceClassifier(str(backbone))
    from safetensors.torch import load_file, save_file

    folder = classifiers.causal_backbone(tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the weights model.layers.1.mlp.up_proj"):
        load_to_train(str(folder), None, None, LABELS, 1)


def test_a_classifier_of_other_labels_gets_a_new_head(tmp_path):
    folder = str(classifiers.classifier(tmp_path / "three", ["a", "b", "c"]))
    model, _ = load_to_train(folder, None, None, ["yes", "no"], 1)
    assert model.score.weight.shape[0] == 2
    assert model.config.id2label == {0: "yes", 1: "no"}
    same, _ = load_to_train(folder, None, None, ["c", "b", "a"], 1)
    assert same.config.id2label == {0: "a", 1: "b", 2: "c"}  # the head that it has


# -- examples -------------------------------------------------------------------------------------


def session(*turns, kind="job crisis"):
    names = {"u": "usr", "s": "sys"}
    dialog = [
        {"speaker": names[who], "text": text, **({"strategy": strategy} if strategy else {})}
        for who, text, strategy in turns
    ]
    return json.dumps({"problem_type": kind, "dialog": dialog})


TURNS = (
    ("s", "Hello!", "Others"),
    ("u", "I lost my job.", None),
    ("s", "How come?", "Question"),
    ("s", "That is hard.", None),
    ("u", "They closed.", None),
    ("s", "Rest a while.", "Providing Suggestions"),
)


def test_a_turn_with_a_strategy_is_an_example_behind_what_was_said(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(session(*TURNS) + "\n")
    first, second, third = rows_of(path, history_turns=2)
    assert (first.text, first.text_pair, first.label) == ("", "Hello!", "Others")
    assert second.text == "Supporter: Hello!\nSeeker: I lost my job."
    assert (second.text_pair, second.label) == ("How come?", "Question")
    assert third.text == "Supporter: That is hard.\nSeeker: They closed."
    assert third.label == "Providing Suggestions"
    assert {row.unit for row in (first, second, third)} == {"x-1"}
    assert {row.problem_type for row in (first, second, third)} == {"job crisis"}
    assert rows_of(path, history_turns=None)[-1].text.count("\n") == 4


def test_esconvs_own_strategies_are_all_read():
    config = load_config("strategies", [f"data.esconv_folder={shared('esconv')}"])
    rows = read_labelled("esconv:test", config.data, config.examples)
    assert len(rows) == 2895  # the supporters' turns of the test split, counted in the file
    assert {row.label for row in rows} == set(STRATEGIES) == set(GROUPS)


def test_labelled_texts_are_read_from_lines_and_tables(tmp_path):
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.tsv"
    lines.write_text(
        '{"text": "hi", "label": "x"}\n{"text": "a", "text_pair": "b", "label": "y", "group": "g"}'
    )
    table.write_text("label\ttext\tkind\nx\thi\t1\ny\ta\t2\n")
    assert [(r.text, r.text_pair, r.label, r.unit) for r in rows_of(lines)] == [
        ("hi", None, "x", "a-1"),
        ("a", "b", "y", "g"),
    ]
    assert [(r.text, r.text_pair, r.label) for r in rows_of(table)] == [
        ("hi", None, "x"),
        ("a", None, "y"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "text\tkind\nhi\tx\n", "no column label; the first line names the columns"),
        ("a.tsv", "text\tlabel\nhi\n", "1 values, expected 2"),
        ("a.jsonl", '{"text": "hi"}\n', "label: expected a text, found None"),
        ("a.jsonl", '{"text": " ", "label": "x"}\n', "text: expected a text"),
        ("a.jsonl", '{"text": "a", "text_pair": 3, "label": "x"}', "text_pair: expected a text or"),
        ("a.jsonl", '["text"]', "expected an object with the key 'dialog'"),
        ("a.jsonl", session(("u", "a", None), ("s", "b", None)), "no supporter's turn there has"),
    ],
)
def test_what_has_no_labels_is_refused_with_its_line(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        rows_of(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["phases.first.sessions=[{one}]"], "all 2 training examples have the label 'x'"),
        (["data.validation=[{one}]"], "has the label 'x', which the classifier does not"),
        (["phases.first.sessions=['sample:train']"], "no supporter's turn there has a strategy"),
        (["examples.role=seeker"], "method classifier learns the strategies of supporters"),
        (["method=sft"], "model.trainable_layers is of method classifier"),
        (["model.name=null", "model.from_scratch={shape}"], "needs model.name"),
        (["model.trainable_layers=3"], "is 3, and the model has 2 layers"),
        (["examples.max_source_tokens=129"], "positions for 128; lower it"),
    ],
)
def test_mistakes_are_told_in_a_line(overrides, said, backbone, moods, tmp_path, refused):
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}\n')
    shape = (
        "{vocab_size: 400, d_model: 32, layers: 1, heads: 2, ffn_dim: 32, n_positions: 96, "
        "dropout: 0.0}"
    )
    filled = [each.replace("{one}", str(one)).replace("{shape}", shape) for each in overrides]
    given = classifiers.small(backbone, moods, "model.trainable_layers=1", *filled)
    line = refused(
        *("train", "--config", "strategies", "--out", tmp_path / "out"),
        *(part for each in given for part in ("--set", each)),
    )
    assert said in line


def test_trainable_layers_belong_to_classifiers():
    with pytest.raises(RecipeError, match="trainable_layers is of method classifier"):
        load_config("esconv", ["model.trainable_layers=2"])
    assert "trainable_layers" not in load_config("esconv").fixed()["model"]
