from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from augesc_builder.config.recipe import RECIPES, Prompt, load_recipe
from augesc_builder.errors import CheckpointError, RecipeError, TrainingError
from augesc_builder.models import causal_lm
from augesc_builder.models.training_step import IGNORED, mixed_precision
from augesc_builder.pipeline.finetune.examples import (
    collate,
    encode,
    encode_all,
    held_out,
    opening_words,
    problem_types,
    sample_sessions,
)
from augesc_builder.pipeline.finetune.train import _batches, _check_launch, finetune
from augesc_builder.run.progress import Progress
from augesc_builder.sources.base import Session
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PromptTemplate, render
from tests.conftest import ROOT, shared
from tests.pipeline.finetune import distributed

KIND = Prompt(form="paper", instruction="Be kind.")


def sessions_of(**counts):
    message = {"role": "user", "content": "hi"}
    return [
        Session(f"{kind}-{i}", (message,), kind) for kind, n in counts.items() for i in range(n)
    ]


class TestSampling:
    def test_the_papers_100_of_esconv(self):
        sessions = [
            s
            for split in ("train", "valid", "test")
            for s in read_esconv(shared(f"esconv/{split}.txt"))
        ]
        counts = Counter(s.problem_type for s in sample_sessions(sessions, 100, 13))
        assert counts.total() == 100
        assert counts["school bullying"] == 2  # all there are
        others = [n for kind, n in counts.items() if kind != "school bullying"]
        assert len(others) == 12
        assert set(others) == {8, 9}

    def test_of_the_train_split_the_small_types_give_all_they_have(self):
        sessions = read_esconv(shared("esconv/train.txt"))
        chosen = {s.session_id for s in sample_sessions(sessions, 100, 13)}
        counts = problem_types(sessions, chosen)
        assert list(counts.values()) == [9] * 8 + [8, 7, 7, 4, 2]
        assert counts["issues with parents"] == 4
        assert counts["school bullying"] == 2

    def test_types_are_counted_the_most_frequent_first(self):
        sessions = [*sessions_of(b=2, a=2, c=3), Session("x", (), None)]
        chosen = {s.session_id for s in sessions} - {"b-1", "a-0"}
        assert list(problem_types(sessions, chosen).items()) == [
            ("c", 3),
            ("a", 1),
            ("b", 1),
            ("none", 1),
        ]

    @given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.data())
    def test_as_even_as_the_counts_allow(self, sizes, data):
        sessions = sessions_of(**{f"t{i}": n for i, n in enumerate(sizes)})
        n = data.draw(st.integers(1, len(sessions)))
        chosen = sample_sessions(sessions, n, data.draw(st.integers(0, 99)))
        assert len(chosen) == n == len({s.session_id for s in chosen})
        taken = Counter(s.problem_type for s in chosen)
        most = max(taken.values())
        for i, size in enumerate(sizes):  # whoever gives less than most - 1 has no more to give
            assert taken[f"t{i}"] >= min(size, most - 1)

    def test_the_seed_decides(self):
        sessions = sessions_of(a=30, b=30)
        ids = [[s.session_id for s in sample_sessions(sessions, 10, seed)] for seed in (1, 1, 2)]
        assert ids[0] == ids[1] != ids[2]

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
    def test_held_out_sessions_are_none_of_those_learned_from(self, sizes, data):
        sessions = sessions_of(**{f"t{i}": n for i, n in enumerate(sizes)})
        n = data.draw(st.integers(0, len(sessions)))
        n_held = data.draw(st.integers(0, len(sessions) - n))
        chosen = sample_sessions(sessions, n, 5)
        held = held_out(sessions, chosen, n_held, 5)
        ids = {s.session_id for s in [*chosen, *held]}
        assert len(held) == n_held
        assert len(ids) == n + n_held

    def test_more_held_out_than_are_left(self):
        sessions = sessions_of(a=5)
        assert len(held_out(sessions, sessions[:3], 2, 1)) == 2
        with pytest.raises(TrainingError, match=r"held_out is 3, but of 5 sessions 3 are learned"):
            held_out(sessions, sessions[:3], 3, 1)

    def test_more_than_there_are(self):
        with pytest.raises(TrainingError, match="only 3 sessions; lower it"):
            sample_sessions(sessions_of(a=3), 4, 1)


@pytest.fixture(scope="module")
def tokenizer():
    return causal_lm.train_tokenizer([render(s.messages) for s in read_sample_sessions()], 500)


@pytest.fixture(scope="module")
def form(tokenizer):
    return prompt_form(KIND, tokenizer, "tiny")


class TestEncoding:
    def test_the_loss_leaves_out_the_instruction_and_nothing_else(self, tokenizer, form):
        session = read_sample_sessions()[0]
        example = encode(session, form, 10_000)
        learned = [t for t in example.labels if t != IGNORED]
        assert tokenizer.decode(learned[:-1]) == render(session.messages)
        assert learned[-1] == tokenizer.eos_token_id
        ignored = example.input_ids[: len(example.input_ids) - len(learned)]
        assert tokenizer.decode(ignored) == "Be kind.\n"

    def test_long_sessions_are_cut_at_the_end(self, form):
        session = read_sample_sessions()[0]
        whole = encode(session, form, 10_000)
        cut = encode(session, form, 100)
        assert cut.input_ids == whole.input_ids[:100]
        assert cut.labels == whole.labels[:100]

    def test_gpt2s_tokenizer_continues_a_prompt_as_in_training(self):
        from transformers import GPT2TokenizerFast

        folder = shared("tokenizers/gpt2")
        tokenizer = GPT2TokenizerFast.from_pretrained(folder)
        session = read_sample_sessions()[0]
        form = prompt_form(KIND, tokenizer, folder)
        trained = encode(session, form, 10_000).input_ids
        prompt = form.for_query(session.messages[0]["content"])
        assert trained[: len(prompt)] == [*prompt]

    def test_padding(self, form):
        sessions = read_sample_sessions()[:2]
        examples = [encode(s, form, n) for s, n in zip(sessions, (50, 80), strict=True)]
        batch = collate(examples, 0)
        assert batch["input_ids"].shape == (2, 80)
        assert (batch["input_ids"][0, 50:] == 0).all()
        assert (batch["input_ids"][1] == torch.tensor(examples[1].input_ids)).all()
        assert (batch["labels"][0, 50:] == IGNORED).all()


class TestGrounds:
    """Sessions with a background and with strategies: two texts of one, and tags in it."""

    SAID = (
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi there."},
        {"role": "user", "content": "I lost my job in May, and since then I sit at home all day."},
        {"role": "assistant", "content": "What was it?"},
    )

    @pytest.fixture
    def grounded(self, tokenizer):
        return prompt_form(KIND.model_copy(update={"background": True}), tokenizer, "tiny")

    def test_a_session_with_a_situation_is_two_texts(self, tokenizer, grounded):
        session = Session("s", self.SAID, situation="I was let go.")
        talk, before = encode_all(session, grounded, 10_000)
        given, learned = self._parts(tokenizer, talk)
        assert given == "Be kind.\nBackground: I was let go.\n"
        assert learned == render(self.SAID) + tokenizer.eos_token
        given, learned = self._parts(tokenizer, before)
        assert given == f"Be kind.\nHuman: {self.SAID[2]['content']}\nBackground:"
        assert learned == " I was let go.\n"

    def test_without_a_situation_or_without_backgrounds_it_is_the_papers(self, form, grounded):
        told = Session("s", self.SAID, situation="I was let go.")
        bare = Session("s", self.SAID)
        assert (
            encode_all(bare, grounded, 99) == encode_all(told, form, 99) == [encode(bare, form, 99)]
        )

    def test_the_longest_words_stand_for_a_query_where_none_is_as_long(self):
        said = ("Hi.", "I am so sad.", "Yes.")
        messages = tuple({"role": "user", "content": text} for text in said)
        assert opening_words(Session("s", messages)) == "I am so sad."
        assert opening_words(Session("s", self.SAID)) == self.SAID[2]["content"]

    def test_strategies_are_learned_as_tags(self, tokenizer):
        form = prompt_form(KIND.model_copy(update={"strategies": True}), tokenizer, "tiny")
        session = Session("s", self.SAID, strategies=(None, "Others", None, "Question"))
        (example,) = encode_all(session, form, 10_000)
        text = self._parts(tokenizer, example)[1]
        assert "\nAI: [Others] Hi there.\n" in text
        assert "\nAI: [Question] What was it?" in text
        untold = Session("s", self.SAID)
        assert encode(untold, form, 99) == encode(untold, prompt_form(KIND, tokenizer, "tiny"), 99)

    def test_words_that_look_like_a_strategy_are_told_of(self, tokenizer):
        form = prompt_form(KIND.model_copy(update={"strategies": True}), tokenizer, "tiny")
        odd = ({"role": "user", "content": "Hi."}, {"role": "assistant", "content": "[nods] Yes."})
        with pytest.raises(TrainingError, match=r"session s-7: .* does not come back"):
            encode_all(Session("s-7", odd), form, 99)

    @pytest.mark.parametrize(
        ("key", "lacks"), [("background", "situation"), ("strategies", "strategy")]
    )
    def test_what_no_session_has_cannot_be_learned(self, tiny_file, tmp_path, key, lacks):
        recipe = load_recipe(tiny_file, [f"prompt.{key}=true"])
        sessions = [replace(s, situation=None) for s in read_sample_sessions()]
        with pytest.raises(TrainingError, match=rf"prompt\.{key}: none of the 13 .* has a {lacks}"):
            finetune(recipe, sessions, lambda _: None, tmp_path, Progress(quiet=True))

    def _parts(self, tokenizer, example):
        n = sum(label == IGNORED for label in example.labels)
        assert example.labels == [IGNORED] * n + example.input_ids[n:]
        ids = example.input_ids
        return tokenizer.decode(ids[:n]), tokenizer.decode(ids[n:])


def train(recipe, folder: Path, state: Path | None = None, stop_after: int | None = None):
    """Fine-tune into ``folder``; give the facts and the weights."""
    state = state or folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    if stop_after is not None:

        class Stops(Progress):
            def bar(self, *args, **kwargs):
                bar = super().bar(*args, **kwargs)
                taken = 0
                update = bar.update

                def count(n, **postfix):
                    nonlocal taken
                    taken += 1
                    update(n, **postfix)
                    if taken == stop_after:
                        raise KeyboardInterrupt

                bar.update = count
                return bar

        progress: Progress = Stops(quiet=True)
    else:
        progress = Progress(quiet=True)

    def save(fill):
        (folder / "checkpoint").mkdir(parents=True)
        fill(folder / "checkpoint")

    facts = finetune(recipe, read_sample_sessions(), save, state, progress)
    return facts, load_file(folder / "checkpoint" / "model.safetensors")


def tuned(tiny_file, *overrides):
    return load_recipe(tiny_file, overrides)


def assert_equal_weights(ours, theirs, tolerance=0.0):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture(scope="module")
def reference(tiny_file, tmp_path_factory):
    return train(load_recipe(tiny_file), tmp_path_factory.mktemp("reference"))


def test_the_model_learns(tiny_file, tmp_path):
    facts, _ = train(tuned(tiny_file, "finetune.epochs=8"), tmp_path)
    assert facts["steps"] == 8 * math.ceil(13 / 4)
    assert facts["last_epoch_loss"] < facts["first_loss"] - 0.5
    kinds = Counter(name.split("-")[0] for name in facts["sessions"])
    assert kinds.total() == 13


def test_the_loss_is_that_of_transformers(tiny, reference):
    """The mean over the batch's conversation tokens, of the model as it starts."""
    chosen = sample_sessions(read_sample_sessions(), tiny.finetune.n_sessions, tiny.seed)
    instruction = tiny.prompt.instruction
    texts = [PromptTemplate(instruction).for_session(s.messages) for s in chosen]
    model, tokenizer = causal_lm.from_scratch(tiny.backbone.from_scratch, texts, tiny.seed)
    form = prompt_form(tiny.prompt, tokenizer, "tiny")
    examples = [encode(s, form, tiny.finetune.max_tokens) for s in chosen]
    settings = tiny.finetune
    first = next(_batches(len(examples), settings.batch_size, settings.epochs, tiny.seed))
    batch = collate([examples[i] for i in first], tokenizer.eos_token_id)
    with torch.no_grad():
        theirs = float(model.eval()(**batch).loss)
    assert reference[0]["first_loss"] == pytest.approx(theirs, abs=2e-3)


def test_a_killed_run_goes_on_to_the_same_weights(tiny_file, tmp_path, reference):
    recipe = load_recipe(tiny_file)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "a", tmp_path / "state", stop_after=5)
    states = sorted(p.name for p in (tmp_path / "state").iterdir())
    assert states == ["step-0000002", "step-0000004"]
    facts, weights = train(recipe, tmp_path / "b", tmp_path / "state")
    assert facts == reference[0]
    assert_equal_weights(weights, reference[1])


@pytest.fixture(scope="module")
def told(tiny_file, tmp_path_factory):
    return train(tuned(tiny_file, "finetune.held_out=5"), tmp_path_factory.mktemp("held"))


class TestHeldOut:
    """13 of the sample are learned from, and 5 others told of."""

    def test_nothing_that_is_learned_changes(self, told, reference):
        facts, weights = told
        assert {key: value for key, value in facts.items() if key != "held_out"} == reference[0]
        assert_equal_weights(weights, reference[1])
        assert not {*facts["held_out"]["sessions"]} & {*facts["sessions"]}

    def test_the_losses_are_those_of_the_checkpoint(self, tiny, tiny_file, tmp_path):
        overrides = ("finetune.held_out=5", "finetune.epochs=3")
        told = train(tuned(tiny_file, *overrides), tmp_path)[0]["held_out"]
        model, tokenizer = causal_lm.load(tmp_path / "checkpoint", revision=None, dtype="float32")
        form = prompt_form(tiny.prompt, tokenizer, "the checkpoint")
        sessions = {s.session_id: s for s in read_sample_sessions()}
        total, n = 0.0, 0
        for name in told["sessions"]:
            example = encode(sessions[name], form, tiny.finetune.max_tokens)
            batch = {k: torch.tensor([v]) for k, v in vars(example).items()}
            with torch.no_grad():
                total += model(**batch).loss.item() * example.n_learned
            n += example.n_learned
        assert told["losses"][-1] == pytest.approx(total / n, abs=2e-3)
        assert len(told["losses"]) == 3
        assert told["loss_before"] > told["losses"][0] > told["losses"][-1]

    @pytest.mark.parametrize("stop_after", [3, 5, 6])  # in and after the first epoch of four steps
    def test_a_killed_run_tells_the_same(self, tiny_file, tmp_path, told, stop_after):
        recipe = tuned(tiny_file, "finetune.held_out=5")
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "a", tmp_path / "state", stop_after=stop_after)
        facts, weights = train(recipe, tmp_path / "b", tmp_path / "state")
        assert facts == told[0]
        assert_equal_weights(weights, told[1])


class TestArithmetic:
    def test_auto_is_what_the_processor_computes_in(self, tiny_file, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        for able, kind in (
            ({}, "no"),
            ({"avx512_bf16": False}, "no"),
            ({"amx_bf16": True}, "bf16"),
        ):
            monkeypatch.setattr(
                torch.cpu, "get_capabilities", lambda able=able: able, raising=False
            )
            assert mixed_precision("auto") == kind
            assert mixed_precision("fp16") == "fp16"
        facts, _ = train(tuned(tiny_file, "finetune.mixed_precision=auto"), tmp_path)
        assert facts["mixed_precision"] == "bf16"

    def test_a_killed_run_goes_on_in_its_own(self, tiny_file, tmp_path, monkeypatch):
        """On a machine of which another type would be chosen, as on the one that it began on."""
        recipe = tuned(tiny_file, "finetune.mixed_precision=auto")
        able = {"amx_bf16": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
        facts, whole = train(recipe, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "a", tmp_path / "state", stop_after=5)
        able["amx_bf16"] = False
        assert train(recipe, tmp_path / "other")[0]["mixed_precision"] == "no"
        resumed, weights = train(recipe, tmp_path / "b", tmp_path / "state")
        assert resumed == facts
        assert_equal_weights(weights, whole)


def test_micro_batches_change_nothing_but_rounding(tiny_file, tmp_path, reference):
    facts, weights = train(tuned(tiny_file, "finetune.micro_batch_size=1"), tmp_path)
    assert facts["last_epoch_loss"] == pytest.approx(reference[0]["last_epoch_loss"], abs=1e-3)
    assert_equal_weights(weights, reference[1], tolerance=2e-3)


def test_gradient_checkpointing_changes_nothing_but_rounding(tiny_file, tmp_path, reference):
    _, weights = train(tuned(tiny_file, "finetune.gradient_checkpointing=true"), tmp_path)
    assert_equal_weights(weights, reference[1], tolerance=2e-3)


@pytest.mark.parametrize("checkpointing", ["true", "false"])
def test_lora_is_merged_into_a_plain_checkpoint(tiny_file, tmp_path, checkpointing):
    checkpointing = f"finetune.gradient_checkpointing={checkpointing}"
    lora = "finetune.lora={rank: 4, alpha: 8, dropout: 0.0, target_modules: [q_proj, v_proj]}"
    facts, weights = train(
        tuned(tiny_file, lora, checkpointing, "finetune.learning_rate=0.05"), tmp_path
    )
    assert facts["last_epoch_loss"] < facts["first_loss"]
    model, _ = causal_lm.load(tmp_path / "checkpoint", revision=None, dtype="float32")
    assert set(weights) == set(model.state_dict())


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_bfloat16(tiny_file, tmp_path, precision):
    overrides = [f"finetune.mixed_precision='{precision}'", "finetune.weights_dtype=bfloat16"]
    facts, _ = train(tuned(tiny_file, *overrides), tmp_path)
    assert math.isfinite(facts["last_epoch_loss"])


def test_a_loss_that_explodes_is_an_error(tiny_file, tmp_path):
    recipe = tuned(tiny_file, "finetune.learning_rate=1e30", "finetune.max_grad_norm=null")
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is nan; lower"):
        train(recipe, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_more_tokens_than_positions(tiny_file, tmp_path):
    with pytest.raises(TrainingError, match="positions for 512; lower it"):
        train(tuned(tiny_file, "finetune.max_tokens=513"), tmp_path)


@pytest.mark.slow
def test_four_processes_share_a_batch_of_two(tiny_file, tmp_path):
    """As on the paper's four GPUs; launched by accelerate as users do, over a whole build."""
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--cpu", "--num_processes", "4", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0"),
        *("-m", "augesc_builder", "build", "--recipe", str(tiny_file), "--set"),
        *("finetune.batch_size=2", "--set", "finetune.held_out=5"),
        *("--out", str(out), "--until", "finetune", "--debug"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = tuned(tiny_file, "finetune.batch_size=2", "finetune.held_out=5")
    facts, weights = train(alone, tmp_path / "alone")
    told = json.loads((out / "manifest.json").read_text())["stages"]["finetune"]
    assert told["sessions"] == facts["sessions"]
    for loss in ("first_loss", "last_epoch_loss"):
        assert told[loss] == pytest.approx(facts[loss], abs=1e-3)
    for loss in ("loss_before", "losses"):
        assert told["held_out"][loss] == pytest.approx(facts["held_out"][loss], abs=1e-3)
    shared = load_file(out / "checkpoint" / "model.safetensors")
    assert_equal_weights(shared, weights, tolerance=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_state_is_resumed_by_any_number_of_processes(tiny_file, tmp_path, kind):
    """One process is killed, four go on to the end; one goes on from what the four saved."""
    batch_of_two = tuned(tiny_file, "finetune.batch_size=2")
    _, whole = train(batch_of_two, tmp_path / "whole")
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train(batch_of_two, tmp_path / "a", state, stop_after=5)
    distributed.run(4, kind, tiny_file, state, tmp_path / "b")
    weights = load_file(tmp_path / "b" / "checkpoint" / "model.safetensors")
    assert_equal_weights(weights, whole, tolerance=1e-5)
    assert sorted(p.name for p in state.iterdir()) == ["step-0000010", "step-0000012"]
    shutil.rmtree(state / "step-0000012")
    _, weights = train(batch_of_two, tmp_path / "c", state)
    assert_equal_weights(weights, whole, tolerance=1e-5)


def test_the_papers_gpus_hold_a_shard_of_gpt_j():
    """Four of 32 GB (section 4.1), by the shipped config: sizes of tensors that have no memory."""
    config = yaml.safe_load((RECIPES / "accelerate" / "fsdp.yaml").read_text())
    assert config["num_processes"] == 4
    sizes = distributed.shard_sizes(4, config["fsdp_config"])
    assert sizes["parameters"] == 6_050_882_784  # GPT-J-6B
    on_each = 16 * sizes["on_the_first"]  # float32: weights, gradients, two moments
    gathered = 2 * 4 * sizes["largest_unit"]  # its weights and gradients, while it is at work
    logits = 3 * 1500 * 50_400 * 4  # of one session: themselves, in float32, their gradients
    assert 24e9 < on_each < 24.3e9
    assert on_each + gathered + logits < 28e9


class TestSpread:
    """Layers on several devices of one process: here, hooks around every block."""

    def test_nothing_changes_but_the_place(self, tiny_file, tmp_path, built, monkeypatch):
        backbone = (f"backbone.name={built / 'checkpoint'}", "backbone.from_scratch=null")
        spread = (*backbone, "finetune.device_map=auto")
        _, plain = train(tuned(tiny_file, *backbone), tmp_path / "a")
        _, alone = train(tuned(tiny_file, *spread), tmp_path / "b")
        assert_equal_weights(alone, plain)
        load = causal_lm.load

        def dispatched(*args, device_map, **options):
            assert device_map == "auto"
            model, tokenizer = load(*args, **options)
            here = torch.device("cpu")
            for block in model.transformer.h:
                add_hook_to_module(block, AlignDevicesHook(here, io_same_device=True))
            model.hf_device_map = {f"transformer.h.{i}": here for i in range(2)}
            return model, tokenizer

        monkeypatch.setattr(causal_lm, "load", dispatched)
        with pytest.raises(KeyboardInterrupt):
            train(tuned(tiny_file, *spread), tmp_path / "c", tmp_path / "state", stop_after=5)
        _, hooked = train(tuned(tiny_file, *spread), tmp_path / "d", tmp_path / "state")
        assert_equal_weights(hooked, plain)

    def test_layers_that_do_not_fit(self, tiny_file, tmp_path, built, monkeypatch):
        load = causal_lm.load

        def left(*args, **options):
            model, tokenizer = load(*args, **options)
            model.hf_device_map = {"transformer.h.0": 0, "transformer.h.1": "cpu"}
            return model, tokenizer

        monkeypatch.setattr(causal_lm, "load", left)
        overrides = (f"backbone.name={built / 'checkpoint'}", "backbone.from_scratch=null")
        with pytest.raises(TrainingError, match="some layers are left on cpu; use more GPUs"):
            train(tuned(tiny_file, *overrides, "finetune.device_map=auto"), tmp_path)

    def test_what_it_does_not_go_with(self, tiny_file):
        with pytest.raises(RecipeError, match=r"recipe: finetune\.device_map spreads"):
            tuned(tiny_file, "finetune.device_map=auto")
        lora = "finetune.lora={rank: 4, alpha: 8, dropout: 0.0, target_modules: [q_proj]}"
        spread = ("backbone.from_scratch=null", "backbone.name=x", "finetune.device_map=auto")
        for override, kind, n, said in (
            (spread, DistributedType.MULTI_GPU, 4, "from one process, and 4 were launched"),
            ((lora,), DistributedType.FSDP, 2, "finetune.lora does not go with FSDP"),
        ):
            launch = SimpleNamespace(num_processes=n, distributed_type=kind)
            with pytest.raises(TrainingError, match=said):
                _check_launch(launch, tuned(tiny_file, *override).finetune)


class TestCheckpoints:
    def test_a_folder_without_weights(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(CheckpointError, match="holds no weights"):
            causal_lm.load(tmp_path, revision=None, dtype="float32")

    def test_a_folder_without_a_config(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"holds no config\.json"):
            causal_lm.check_folder(tmp_path)

    def test_a_path_that_is_not_there(self, tmp_path):
        with pytest.raises(CheckpointError, match="no such folder"):
            causal_lm.check_folder(tmp_path / "nothing")

    def test_a_file(self, tmp_path):
        (tmp_path / "x").write_text("")
        with pytest.raises(CheckpointError, match="is a file"):
            causal_lm.check_folder(tmp_path / "x")

    def test_broken_weights(self, tmp_path, built):
        import shutil

        shutil.copytree(built / "checkpoint", tmp_path / "c")
        (tmp_path / "c" / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(CheckpointError, match="cannot be loaded as a causal LM"):
            causal_lm.load(tmp_path / "c", revision=None, dtype="float32")

    def test_a_tokenizer_larger_than_the_model(self, tmp_path, built):
        import shutil

        from transformers import AutoTokenizer

        shutil.copytree(built / "checkpoint", tmp_path / "c")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "c")
        tokenizer.add_tokens([f"<extra{i}>" for i in range(9)])
        tokenizer.save_pretrained(tmp_path / "c")
        with pytest.raises(CheckpointError, match="do not belong together"):
            causal_lm.load(tmp_path / "c", revision=None, dtype="float32")


def test_the_tokenizer_gives_back_any_text(built):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built / "checkpoint")
    for text in (
        "Human: hi\nAI:",
        "na\u00efve \U0001f642 \u4f60\u597d",
        "  two  blanks ",
        "\x00\x1f",
    ):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_training_a_tokenizer_twice_gives_the_same():
    texts = [render(s.messages) for s in read_sample_sessions()]
    first, second = (causal_lm.train_tokenizer(texts, 900).get_vocab() for _ in range(2))
    assert first == second
