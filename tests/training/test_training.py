"""Training of dialog models: examples, tokens, the loop, and what happens when it is disturbed."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.training import Data, dump_config, load_config, shipped_configs
from augesc_builder.dialog import examples, folder
from augesc_builder.dialog.encoding import PLAIN_TEMPLATE, Encoder, summed_loss
from augesc_builder.dialog.model import DialogModel
from augesc_builder.errors import (
    CheckpointError,
    InputError,
    RecipeError,
    SettingsChangedError,
    TrainingError,
)
from augesc_builder.models import causal_lm, dialog
from augesc_builder.run.progress import Progress
from augesc_builder.run.states import seal
from augesc_builder.run.status import overview
from augesc_builder.sources import sample
from augesc_builder.sources.base import Session
from augesc_builder.training.run import train
from tests.conftest import ROOT, shared

MINI = (
    "model.from_scratch={vocab_size: 400, d_model: 32, layers: 1, heads: 2, ffn_dim: 32, "
    "n_positions: 96, dropout: 0.0}",
    "data.validation=[{path: 'sample:validation', weight: 0.2}]",
    "phases.first={sessions: [{path: 'sample:train', weight: 0.11}], epochs: 1, "
    "learning_rate: 0.01, warmup_steps: 2}",
    "train.batch_size=8",
    "train.evaluate_every=4",
    "train.patience=null",
    "examples.max_target_tokens=48",
    "machine.micro_batch_size=8",
    "machine.save_every=3",
    "machine.keep_checkpoints=null",
    "machine.trackers=[]",
)
STEPS = 11
"""Optimizer steps of that: 82 examples, eight at a time."""


def mini(*overrides):
    return load_config("tiny", [*MINI, *overrides])


def trained(config, out, progress=None, **options):
    """Train; give the curve and the weights."""
    train(config, out, progress or Progress(quiet=True), **options)
    return curve_of(out), weights_of(out)


def curve_of(out):
    return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]


def weights_of(out):
    return load_file(Path(folder.find_model(str(out))) / "model.safetensors")


def assert_equal_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, msg=name)


def assert_close_curves(ours, theirs, tolerance=2e-3):
    assert [(r["phase"], r["step"], r.keys()) for r in ours] == [
        (r["phase"], r["step"], r.keys()) for r in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        for key in a.keys() & {"loss", "validation_loss"}:
            assert a[key] == pytest.approx(b[key], abs=tolerance)


class StopsAfter(Progress):
    """Interrupts a training in the middle of its n-th step."""

    def __init__(self, steps):
        super().__init__(quiet=True)
        self.left = steps

    def bar(self, *args, **kwargs):
        bar = super().bar(*args, **kwargs)
        update = bar.update

        def count(n, **postfix):
            update(n, **postfix)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        bar.update = count
        return bar


class Said(Progress):
    """Keeps what is said, and the bar."""

    text = ""

    def say(self, text=""):
        self.text += text + "\n"

    def bar(self, *args, **kwargs):
        self.bar_made = super().bar(*args, **kwargs)
        return self.bar_made


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("training") / "reference"
    return *trained(mini(), out), out


# -- examples -------------------------------------------------------------------------------------

UTTERANCES = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["a", "b c", "d"])),
    min_size=1,
    max_size=12,
)


def example_settings(**options):
    return load_config("tiny").examples.model_copy(update=options)


def session_of(*utterances):
    return Session("s", tuple({"role": r, "content": c} for r, c in utterances), "job crisis")


@given(UTTERANCES, st.booleans(), st.sampled_from(["drop", "keep"]), st.none() | st.integers(1, 5))
def test_every_answer_is_an_example_with_what_stands_before_it(said, merge, greetings, turns):
    wanted = example_settings(merge_consecutive=merge, greetings=greetings, history_turns=turns)
    pairs = examples.pairs_of(session_of(*said), wanted)
    for pair in pairs:
        messages = pair.session.messages
        assert messages[pair.turn] == {"role": "assistant", "content": pair.response}
        whole = messages[: pair.turn]
        assert pair.history == (whole if turns is None else whole[-turns:])
        assert any(m["role"] == "user" for m in whole)
    first = [role for role, _ in said].index("user") if ("user" in dict(said)) else len(said)
    answers = sum(role == "assistant" for role, _ in said[first:])
    if merge:
        spoken = [role for i, (role, _) in enumerate(said) if i < 1 or said[i - 1][0] != role]
        assert (
            len(pairs) == max(0, spoken[spoken.index("user") :].count("assistant"))
            if (first < len(said))
            else not pairs
        )
    else:
        assert len(pairs) == answers


def test_greetings_are_dropped_or_kept():
    said = [("assistant", "hello"), ("user", "hi"), ("assistant", "what is it?")]
    dropped = examples.pairs_of(session_of(*said), example_settings(greetings="drop"))
    kept = examples.pairs_of(session_of(*said), example_settings(greetings="keep"))
    assert [m["content"] for m in dropped[0].history] == ["hi"]
    assert [m["content"] for m in kept[0].history] == ["hello", "hi"]


def test_merging_joins_what_one_speaker_says_in_a_row():
    said = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d")]
    (pair,) = examples.pairs_of(session_of(*said), example_settings(merge_consecutive=True))
    assert ([m["content"] for m in pair.history], pair.response) == (["a b"], "c d")
    pairs = examples.pairs_of(session_of(*said), example_settings(merge_consecutive=False))
    assert [p.response for p in pairs] == ["c", "d"]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.floats(0.05, 3)), min_size=1, max_size=4),
    st.text(max_size=3),
)
def test_an_epoch_takes_each_set_as_often_as_its_weight_says(sets, key):
    sizes, weights = [n for n, _ in sets], [w for _, w in sets]
    order = examples.epoch_order(sizes, weights, key)
    assert order == examples.epoch_order(sizes, weights, key)
    for i, (size, weight) in enumerate(sets):
        times = [order.count((i, j)) for j in range(size)]
        assert sum(times) == int(weight) * size + round((weight - int(weight)) * size)
        assert all(int(weight) <= n <= int(weight) + 1 for n in times)


def turned(utterances):
    return [({"user": "assistant", "assistant": "user"}[role], text) for role, text in utterances]


@given(UTTERANCES, st.booleans(), st.none() | st.integers(1, 5))
def test_a_seekers_examples_are_a_supporters_with_the_sides_exchanged(said, merge, turns):
    same = {"merge_consecutive": merge, "greetings": "keep", "history_turns": turns}
    seekers = examples.pairs_of(session_of(*said), example_settings(role="seeker", **same))
    supporters = examples.pairs_of(session_of(*turned(said)), example_settings(**same))
    assert [(p.turn, p.response) for p in seekers] == [(p.turn, p.response) for p in supporters]
    for pair in seekers:
        assert pair.session.messages[pair.turn]["role"] == "user"


def test_a_seekers_first_words_are_an_example_only_behind_a_greeting():
    said = [("assistant", "hello"), ("user", "hi"), ("assistant", "what is it?"), ("user", "work")]
    dropped, kept = (
        examples.pairs_of(session_of(*said), example_settings(role="seeker", greetings=greetings))
        for greetings in ("drop", "keep")
    )
    assert [p.response for p in dropped] == ["work"]
    assert [m["content"] for m in dropped[0].history] == ["hi", "what is it?"]
    assert [p.response for p in kept] == ["hi", "work"]


def test_the_samples_seekers_are_counted_by_hand():
    """Every turn but the first of each seeker: counted in the bundled file itself."""
    answers = 0
    for line in sample.SESSIONS.read_text(encoding="utf-8").splitlines():
        speakers = [turn["speaker"] for turn in json.loads(line)["dialog"]]
        while speakers[0] == "sys":
            speakers.pop(0)
        runs = [who for i, who in enumerate(speakers) if not i or speakers[i - 1] != who]
        answers += runs.count("usr") - 1
    data = load_config("tiny").data
    found = examples.read_pairs("sample", data, example_settings(role="seeker"))
    assert len(found) == answers
    assert len(examples.read_pairs("sample", data, example_settings())) != answers


def test_the_samples_splits_are_of_every_problem_type_and_share_nothing():
    settings = load_config("tiny").data
    splits = [examples.read_sessions(f"sample:{split}", settings) for split in examples.SPLITS]
    assert [len(s) for s in splits] == [74, 13, 13]
    assert all(len({s.problem_type for s in sessions}) == 13 for sessions in splits)
    texts = [s.messages for sessions in splits for s in sessions]
    assert len({str(t) for t in texts}) == 100


def test_esconvs_greetings_and_problem_types_are_read():
    settings = load_config("esconv", [f"data.esconv_folder={shared('esconv')}"]).data
    dropped = examples.read_sessions("esconv:test", settings)
    kept = examples.read_sessions("esconv:test", settings, keep_greetings=True)
    assert len(dropped) == len(kept) == 195
    assert all(s.messages[0]["role"] == "user" for s in dropped)
    assert sum(s.messages[0]["role"] == "assistant" for s in kept) > 50
    assert all(s.problem_type for s in kept)


@pytest.mark.parametrize(
    ("role", "what"),
    [
        ("supporter", "a supporter's turn (role assistant) behind a seeker's, found 0 turns of s"),
        ("seeker", "a seeker's turn (role user) behind a supporter's, found 1 turns of seekers"),
    ],
)
def test_sessions_without_a_supporter_are_refused(role, what, tmp_path, refused):
    path = tmp_path / "s.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hello?"}]}\n')
    said = refused(
        *("train", "--config", "tiny", "--out", tmp_path / "out"),
        *("--set", f"phases.first.sessions=[{path}]", "--set", f"examples.role={role}"),
    )
    assert f"none of 1 sessions has {what}" in said
    assert str(path) in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("phases.first.sessions=['esconv:dev']", "no split 'dev'; expected one of train"),
        ("phases.first.sessions=[nothing.jsonl]", "no such file"),
        ("data.leave_out=[jobs]", "no example of the problem type 'jobs'; known: academic"),
        ("phases.first.epoch=1", "did you mean phases.first.epochs?"),
        ("phases.first.sessions=[{path: 'sample:train', weight: 0.0001}]", "leave no example"),
        ("method=sft", "needs model.name"),
        ("machine.trackers=[tensorbord]", "is no tracker of accelerate"),
        ("examples.max_source_tokens=97", "positions for 96; lower it"),
        ("examples.max_target_tokens=97", "positions for 96; lower it"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(override, said, tmp_path):
    with pytest.raises((InputError, RecipeError, TrainingError), match=said.replace("?", r"\?")):
        train(mini(override), tmp_path / "out", Progress(quiet=True))
    assert not (tmp_path / "out").exists()


# -- tokens ---------------------------------------------------------------------------------------

SAID = [
    {"role": "user", "content": "i lost my job"},
    {"role": "assistant", "content": "that is hard"},
    {"role": "user", "content": "yes"},
]
SIZES = {
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")},
    "d_model": 16,
    "max_position_embeddings": 64,
}


def family(name):
    """Return a tiny model of a family, and a tokenizer with the family's special tokens."""
    texts = [m["content"] for m in SAID] * 3
    special = ["<pad>", "<s>", "</s>", "<unk>", "__newln__"]
    tokenizer = causal_lm.train_tokenizer(texts, 300, special)
    tokenizer.add_special_tokens(
        {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    )
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    if name == "T5":
        tokenizer.model_max_length = 64
        shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        config = transformers.T5Config(**shape, **ids, decoder_start_token_id=0, dropout_rate=0)
    else:
        start = 2 if name == "Bart" else 1
        kind = getattr(transformers, f"{name}Config")
        config = kind(**SIZES, **ids, decoder_start_token_id=start, dropout=0.0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    return model.eval(), tokenizer


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Blenderbot", " i lost my job  that is hard  yes</s>"),
        ("BlenderbotSmall", "i lost my job__newln__that is hard__newln__yes</s>"),
        ("Bart", "<s>i lost my job</s></s>that is hard</s></s>yes</s>"),
        ("T5", "seeker: i lost my jobsupporter: that is hardseeker: yes</s>"),
    ],
)
def test_each_family_has_its_marks_and_the_loss_of_transformers(name, text):
    model, tokenizer = family(name)
    encoder = Encoder(
        model, tokenizer, example_settings(max_source_tokens=None, max_target_tokens=20)
    )
    long, short = encoder.encode(SAID, "i am so sorry"), encoder.encode(SAID[:1], "oh")
    assert tokenizer.decode(long.source) == text
    batch = encoder.collate([long, short])
    labels = batch["labels"].clone()
    with torch.no_grad():
        ours = summed_loss(model, dict(batch))
        theirs = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
        ).loss
    n_tokens = int((labels != -100).sum())
    assert float(ours.sum()) / n_tokens == pytest.approx(float(theirs), abs=1e-4)


def test_a_causal_model_is_its_templates_assistant_whichever_role_it_learns(tmp_path):
    model, tokenizer = causal_lm.load(causal(tmp_path), revision=None, dtype="float32")
    tokenizer.chat_template = PLAIN_TEMPLATE
    sources = {
        role: Encoder(model, tokenizer, example_settings(role=role)).source(said)
        for role, said in (("supporter", SAID), ("seeker", SAID[:2]))
    }
    assert tokenizer.decode(sources["supporter"]) == (
        "user:\ni lost my job\nassistant:\nthat is hard<|endoftext|>\nuser:\nyes\nassistant:\n"
    )
    assert tokenizer.decode(sources["seeker"]) == (
        "assistant:\ni lost my job<|endoftext|>\nuser:\nthat is hard\nassistant:\n"
    )


def test_a_long_history_loses_its_beginning():
    model, tokenizer = family("Bart")
    wanted = example_settings(max_source_tokens=8, max_target_tokens=3)
    whole = Encoder(model, tokenizer, example_settings(max_source_tokens=60)).source(SAID)
    encoder = Encoder(model, tokenizer, wanted)
    assert encoder.source(SAID) == [1, *whole[-7:]]
    cut = encoder.encode(SAID, "a very long answer to that")
    assert cut.cut
    assert len(cut.target) == 3
    assert tokenizer.eos_token_id not in cut.target


def test_blenderbot_smalls_own_tokenizer(tmp_path):
    folder = shared("tokenizers/blenderbot_small")
    tokenizer = dialog.load_tokenizer(str(folder))
    shape = load_config("tiny").model.from_scratch
    model = dialog.from_scratch(shape, tokenizer, 1)
    ids = Encoder(model, tokenizer, load_config("tiny").examples).source(SAID)
    assert tokenizer.convert_ids_to_tokens(ids).count("__newln__") == 2
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _, again = dialog.load(tmp_path)
    assert again("i lost my job")["input_ids"] == tokenizer("i lost my job")["input_ids"]


def test_a_tokenizer_that_is_not_the_models(tmp_path):
    model, tokenizer = family("Bart")
    tokenizer.eos_token = "<unk>"
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="eos_token_id is 2 for the model and 3"):
        dialog.load(tmp_path)
    tokenizer.add_tokens([f"<x{i}>" for i in range(9)])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="do not belong together"):
        dialog.load(tmp_path)


def causal(folder):
    """Make a tiny GPT-J, with a tokenizer that has no chat template."""
    shape = FromScratch(
        vocab_size=400, n_embd=16, n_layer=1, n_head=2, rotary_dim=4, n_positions=128
    )
    model, tokenizer = causal_lm.from_scratch(shape, [m["content"] for m in SAID], 1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_causal_model_is_not_trained_as_an_encoder_decoder(tmp_path):
    config = mini(f"model.name={causal(tmp_path / 'causal')}", "model.from_scratch=null")
    with pytest.raises(CheckpointError, match="gptj is trained with method: sft"):
        train(config, tmp_path / "out", Progress(quiet=True))


@pytest.mark.parametrize(
    ("name", "said"),
    [("somebody/model", "--set model.name=PATH"), ("/nowhere/model", "no such folder")],
)
def test_a_model_that_cannot_be_had(name, said, refused, tmp_path):
    options = [*MINI, f"model.name={name}", "model.from_scratch=null"]
    given = [part for option in options for part in ("--set", option)]
    assert said in refused("train", "--config", "tiny", "--out", tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


# -- the loop -------------------------------------------------------------------------------------


def test_a_training_learns_and_leaves_what_the_readme_says(reference):
    curve, _, out = reference
    losses = [row["loss"] for row in curve if "loss" in row]
    validations = [row for row in curve if "validation_loss" in row]
    assert len(losses) == STEPS
    assert [row["step"] for row in validations] == [4, 8, STEPS]
    assert losses[-1] < losses[0] - 0.3
    assert {p.name for p in out.iterdir()} >= {
        *("config.yaml", "manifest.json", "curve.jsonl", "model-first", "checkpoints")
    }
    assert load_config(out / "config.yaml") == mini()
    facts = json.loads((out / "manifest.json").read_text())["stages"]["train"]
    best = min(row["validation_loss"] for row in validations)
    assert facts["validation_loss"] == best
    assert facts["validation_perplexity"] == pytest.approx(math.exp(best))
    status = overview(out)
    assert (status.kind, status.state) == ("train", "complete")
    assert (status.stages[0].name, status.stages[0].made) == ("train", {"steps": STEPS})
    states = [p.name for p in sorted((out / "checkpoints").iterdir())]
    assert states == [f"step-{n:07d}" for n in (3, 6, 9, STEPS)]


def test_the_card_says_how_the_model_was_made(reference):
    card = (reference[2] / "model-first" / "README.md").read_text()
    perplexity = min(r["validation_perplexity"] for r in reference[0] if "validation_loss" in r)
    assert f"Best validation perplexity: {perplexity:.2f} a token" in card
    assert "`sample:train` (weight 0.11)" in card
    assert "This is a demonstration" in card
    assert "license: apache-2.0" in card
    assert "findahelpline.com" in card
    assert dump_config(mini()).strip() in card
    assert "{{" not in card


def test_a_seeker_is_trained_and_its_card_says_so(reference, tmp_path):
    config, out = mini("examples.role=seeker"), tmp_path / "out"
    curve, _ = trained(config, out)
    assert curve != reference[0]
    assert curve[-1]["validation_loss"] < curve[0]["loss"] - 0.3
    model = Path(folder.find_model(str(out)))
    facts, card = folder.read_facts(model), (model / "README.md").read_text()
    assert facts["config"]["examples"]["role"] == "seeker"
    assert "Role: it learned the seeker's utterances" in card
    assert "it is nobody's supporter" in card
    assert "it learned the supporter's" in (reference[2] / "model-first" / "README.md").read_text()
    with pytest.raises(SettingsChangedError, match=r"examples.role \('seeker' there, None now\)"):
        train(mini(), out, Progress(quiet=True))


def test_trainings_of_before_there_were_seekers_go_on(reference, tmp_path):
    """Their settings and the facts of their models have no such key."""
    out = tmp_path / "out"
    shutil.copytree(reference[2], out)
    assert "role" not in json.loads((out / "manifest.json").read_text())["settings"]["examples"]
    facts = out / "model-first" / "training.json"
    known = json.loads(facts.read_text())
    del known["config"]["examples"]["role"]
    facts.write_text(json.dumps(known))
    assert DialogModel(str(out)).examples.role == "supporter"
    config = tmp_path / "config.yaml"
    lines = (out / "config.yaml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if line.strip() != "role: supporter"))
    train(load_config(config), out, Progress(quiet=True))


def test_the_same_command_again_has_nothing_to_do(reference, capsys):
    train(mini("machine.micro_batch_size=4"), reference[2], Progress())
    assert "is complete: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("stop", [2, 5, 10])
def test_a_killed_training_goes_on_to_the_same_losses_and_weights(stop, reference, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(mini(), out, StopsAfter(stop))
    curve, weights = trained(mini(), out)
    assert curve == reference[0]
    assert_equal_weights(weights, reference[1])


@pytest.mark.slow
def test_a_training_that_is_killed_outright_goes_on(reference, tmp_path):
    out, path = tmp_path / "out", tmp_path / "mini.yaml"
    path.write_text(dump_config(mini("machine.save_every=1")))
    code = "from augesc_builder.cli.app import main; main()"
    command = [sys.executable, "-c", code, "train", "--config", path, "--out", out, "--quiet"]
    threads = str(torch.get_num_threads())  # another number would round otherwise
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([str(part) for part in command], env=environment)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if list(out.glob("checkpoints/step-*")):
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    curve, weights = trained(mini(), out)
    assert curve == reference[0]
    assert_equal_weights(weights, reference[1])


def test_mixed_precision(reference, tmp_path):
    curve, _ = trained(mini("train.mixed_precision=bf16"), tmp_path / "out")
    assert_close_curves(curve, reference[0], tolerance=0.1)
    assert curve != reference[0]


def test_dropout_too_goes_on_as_it_would_have(tmp_path):
    config = mini("model.from_scratch.dropout=0.2")
    whole = trained(config, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "b", StopsAfter(8))
    curve, weights = trained(config, tmp_path / "b")
    assert curve == whole[0]
    assert_equal_weights(weights, whole[1])


def test_any_checkpoint_can_be_gone_on_from(reference, tmp_path):
    state = reference[2] / "checkpoints" / "step-0000006"
    curve, weights = trained(mini(), tmp_path / "new", resume_from=state)
    assert curve == reference[0]
    assert_equal_weights(weights, reference[1])


def test_checkpoints_of_another_config_are_refused(reference, tmp_path):
    state = reference[2] / "checkpoints" / "step-0000006"
    with pytest.raises(SettingsChangedError, match=r"train.batch_size \(8 there, 4 now\)"):
        train(mini("train.batch_size=4"), tmp_path / "x", Progress(quiet=True), resume_from=state)
    with pytest.raises(CheckpointError, match=r"is no saved state: it has no state.json"):
        train(mini(), tmp_path / "x", Progress(quiet=True), resume_from=tmp_path)
    assert not (tmp_path / "x").exists()
    with pytest.raises(SettingsChangedError, match="seed"):
        train(mini("seed=2"), reference[2], Progress(quiet=True))
    assert curve_of(reference[2]) == reference[0]


class Writes:
    """What a stranger pickles: loading it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_a_strangers_pickles_are_refused_and_not_executed(reference, refused, tmp_path):
    """The files of accelerate's own states, each of which would write a file when loaded."""
    state, proof = tmp_path / "step-0000006", tmp_path / "proof"
    state.mkdir()
    for name in (
        *("facts.pt", "optimizer.bin", "scheduler.bin", "custom_checkpoint_0.pkl"),
        *("random_states_0.pkl", "scaler.pt", "pytorch_model.bin"),
    ):
        (state / name).write_bytes(pickle.dumps(Writes(proof)))
        torch.save(Writes(proof), state / name)
    path = tmp_path / "mini.yaml"
    path.write_text(dump_config(mini()))
    command = ("train", "--config", path, "--out", tmp_path / "out", "--resume-from", state)
    assert "is no saved state: it has no state.json" in refused(*command)
    shutil.copyfile(reference[2] / "checkpoints" / state.name / "state.json", state / "state.json")
    assert "is damaged: optimizer.safetensors is missing" in refused(*command)
    assert not proof.exists()
    assert not (tmp_path / "out").exists()
    torch.load(state / "facts.pt", weights_only=False)
    assert proof.read_text() == "executed"  # the bait is one


def test_facts_that_somebody_made_up(reference, refused, tmp_path):
    state, path = tmp_path / "step-0000006", tmp_path / "mini.yaml"
    shutil.copytree(reference[2] / "checkpoints" / "step-0000006", state)
    path.write_text(dump_config(mini()))
    command = ("train", "--config", path, "--out", tmp_path / "out", "--resume-from", state)
    settings = mini().fixed()
    for place in (None, 1, {"phase": "x"}, {"step": -1}, {"curve": 3}, {"phase": 1}):
        seal(state, {"place": place, "settings": settings})
        assert "is no state of `augesc train`" in refused(*command)
    seal(state, {"place": {"phase": 0, "step": 6, "total": 6}, "settings": "none"})
    assert "is a checkpoint of another config" in refused(*command)
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(reference, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(mini(), out, StopsAfter(8))
    newest, before = out / "checkpoints" / "step-0000006", out / "checkpoints" / "step-0000003"
    flip(newest / "weights.safetensors")
    train(mini(), out, Progress())
    said = capsys.readouterr().out
    assert f"{newest} is damaged: weights.safetensors is not what was saved; trying" in said
    assert "resuming from step-0000003" in said
    assert curve_of(out) == reference[0]
    assert_equal_weights(weights_of(out), reference[1])
    assert before.is_dir()


def test_where_every_checkpoint_is_damaged_one_line_says_so(refused, tmp_path):
    out, path = tmp_path / "out", tmp_path / "mini.yaml"
    path.write_text(dump_config(mini()))
    with pytest.raises(KeyboardInterrupt):
        train(mini(), out, StopsAfter(8))
    for state in (out / "checkpoints").iterdir():
        flip(state / "optimizer.safetensors")
    said = refused("train", "--config", path, "--out", out)
    assert "none of the 2 saved states can be resumed from" in said
    assert "give another --out" in said
    assert len(list((out / "checkpoints").iterdir())) == 2


def flip(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    train(mini("machine.keep_checkpoints=2"), tmp_path / "out", Progress(quiet=True))
    states = sorted(p.name for p in (tmp_path / "out" / "checkpoints").iterdir())
    assert states == ["step-0000009", "step-0000011"]


@pytest.mark.parametrize(
    "change", ["machine.micro_batch_size=3", "machine.gradient_checkpointing=true"]
)
def test_what_the_machine_asks_for_changes_rounding_only(change, reference, tmp_path):
    curve, _ = trained(mini(change), tmp_path / "out")
    assert_close_curves(curve, reference[0])


def test_a_phase_stops_early_and_keeps_its_best(tmp_path, capsys):
    wild = "phases.first.learning_rate=0.5"
    config = mini(wild, "phases.first.epochs=9", "train.evaluate_every=1", "train.patience=2")
    train(config, tmp_path / "out", Progress())
    assert "early stopping: the phase ends" in capsys.readouterr().out
    validations = [
        r["validation_loss"] for r in curve_of(tmp_path / "out") if "validation_loss" in r
    ]
    best = validations.index(min(validations))
    assert len(validations) == best + 3 < 9 * STEPS
    facts = folder.read_facts(tmp_path / "out" / "model-first")
    assert (facts["step"], facts["validation_loss"]) == (best + 1, validations[best])


def test_phases_follow_each_other_and_mix_and_go_on_after_a_kill(tmp_path):
    further = (
        "phases.further={sessions: [{path: 'sample:test', weight: 0.3}, {path: 'sample:train', "
        "weight: 0.1}], epochs: 1, learning_rate: 0.005, warmup_steps: 0}"
    )
    whole = trained(mini(further), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(mini(further), tmp_path / "b", StopsAfter(STEPS + 4))
    curve, weights = trained(mini(further), tmp_path / "b")
    assert curve == whole[0]
    assert_equal_weights(weights, whole[1])
    losses = [r["loss"] for r in curve if r["phase"] == "further" and "loss" in r]
    assert losses[0] < curve[0]["loss"] - 0.3  # it did not begin anew
    assert folder.find_model(str(tmp_path / "a")).endswith("model-further")
    assert folder.read_facts(tmp_path / "a" / "model-first")["phase"] == "first"


def test_left_out_problem_types_are_not_trained_on():
    config = mini("data.leave_out=[Job crisis]", "phases.first.sessions=['sample:train']")
    from augesc_builder.training.run import read_data

    found = read_data(config)
    kinds = {p.session.problem_type for p in [*found.phases[0].sets[0], *found.validation]}
    assert "job crisis" not in kinds
    assert len(kinds) == 12


def test_a_loss_that_is_none_stops_the_training_and_keeps_what_was_saved(tmp_path):
    config = mini(
        "phases.first.learning_rate=1e30", "train.max_grad_norm=null", "machine.save_every=1"
    )
    with pytest.raises(TrainingError, match=r"loss of step \d+ is (nan|inf); lower phases.first"):
        train(config, tmp_path / "out", Progress(quiet=True))
    assert list((tmp_path / "out" / "checkpoints").glob("step-*"))


def train_with_little_memory(overrides, out, said):
    """Limit this process's memory in the middle of a step that needs more."""

    class Limits(Progress):
        def say(self, text=""):
            with Path(said).open("a") as file:
                print(text, file=file)

        def bar(self, *args, **kwargs):
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
            return super().bar(*args, **kwargs)

    train(mini(*overrides), Path(out), Limits())


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_and_nothing_else(tmp_path):
    sizes = (
        "model.from_scratch={vocab_size: 400, d_model: 256, layers: 1, heads: 2, ffn_dim: 8192, "
        "n_positions: 96, dropout: 0.0}",
        "phases.first.sessions=[{path: 'sample:train', weight: 0.05}]",
        "data.validation=[{path: 'sample:validation', weight: 0.05}]",
        "train.batch_size=32",
        "machine.micro_batch_size=32",
    )
    plain, _ = trained(mini(*sizes), tmp_path / "a")
    # A process of its own: what this one has freed would not count against its limit.
    arguments = (sizes, str(tmp_path / "b"), str(tmp_path / "said"))
    other = multiprocessing.get_context("spawn").Process(
        target=train_with_little_memory, args=arguments
    )
    other.start()
    other.join(600)
    assert other.exitcode == 0
    said = (tmp_path / "said").read_text()
    assert "out of memory with 32 examples at a time: continuing with 16" in said
    assert_close_curves(curve_of(tmp_path / "b"), plain)


def test_tensorboard_is_written_and_goes_on(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, out = mini("machine.trackers=[tensorboard]"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(config, out, StopsAfter(5))
    train(config, out, Progress(quiet=True))
    events = EventAccumulator(str(out / "logs" / "tiny")).Reload()
    losses = events.Scalars("first/loss")
    assert [e.step for e in losses] == list(range(1, STEPS + 1))
    ours = [row["loss"] for row in curve_of(out) if "loss" in row]
    assert [e.value for e in losses] == pytest.approx(ours)
    assert events.Scalars("first/validation_loss")


@pytest.mark.slow
def test_three_processes_give_the_losses_of_one(reference, tmp_path):
    """By the script in training/, launched as users do; three do not divide the batch of eight."""
    out, path = tmp_path / "run", tmp_path / "mini.yaml"
    path.write_text(dump_config(mini()))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--cpu", "--num_processes", "3", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0"),
        *("training/finetune_blender.py", "--config", path, "--out", out, "--debug"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_close_curves(curve_of(out), reference[0])


def test_causal_models_are_trained_by_trl_and_go_on(tmp_path):
    """Interrupted, resumed, and then loaded as anybody would."""
    config = mini(
        *("method=sft", f"model.name={causal(tmp_path / 'causal')}", "model.from_scratch=null"),
        *("train.evaluate_every=5", "examples.max_source_tokens=64"),
    )
    with pytest.raises(CheckpointError, match="no chat template; set model"):
        train(config, tmp_path / "out", Progress(quiet=True))
    made = config.model.model_copy(update={"chat_template": "plain"})
    config = config.model_copy(update={"model": made})

    class Stops(Progress):
        def say(self, text=""):
            if "step 10" in text:
                raise KeyboardInterrupt

    whole = trained(config, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "b", Stops())
    newest = tmp_path / "b" / "checkpoints" / "first" / "checkpoint-5"
    assert (newest / "state.json").is_file()
    half = newest.with_name("checkpoint-7")  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    said = Said(quiet=True)
    curve, weights = trained(config, tmp_path / "b", said)
    assert "checkpoint-7 is no saved state" in said.text
    assert said.bar_made.done == said.bar_made.total == STEPS  # those before the stop among them
    assert set(said.bar_made.facts) == {"loss", "validation_perplexity"}
    assert_close_curves(curve, whole[0])
    assert_equal_weights(weights, whole[1])
    losses = [row["loss"] for row in curve if "loss" in row]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    model, tokenizer = dialog.load(tmp_path / "b" / "model-first")
    assert model.config.model_type == "gptj"
    assert tokenizer.chat_template


# -- configs --------------------------------------------------------------------------------------


def test_every_shipped_config_is_read_and_the_papers_is_commented():
    assert shipped_configs() == [
        *("cpu", "esconv", "esconv_equal_steps", "esconv_then_augesc", "strategies", "tiny")
    ]
    for name in shipped_configs():
        config = load_config(name)
        assert config.name == name
    text = (ROOT / "training" / "configs" / "esconv.yaml").read_text().splitlines()
    for i, line in enumerate(text):
        key = line.strip()
        if (
            line.startswith("  ")
            and ": " in key
            and not key.startswith(("#", "weight_decay", "sessions"))
        ):
            assert text[i - 1].strip().startswith("#"), line


def test_the_papers_comparison_differs_in_the_further_phase():
    first, then = load_config("esconv"), load_config("esconv_then_augesc")
    assert list(first.phases) == ["first"]
    assert list(then.phases) == ["first", "further"]
    assert first.phases["first"] == then.phases["first"]
    assert first.model == then.model
    assert first.model.name == "facebook/blenderbot-1B-distill"
    assert isinstance(first.data, Data)
