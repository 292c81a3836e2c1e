from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import CheckpointError, TrainingError
from augesc_builder.models import causal_lm
from augesc_builder.models.training_step import IGNORED
from augesc_builder.pipeline.finetune.examples import collate, encode, sample_sessions
from augesc_builder.pipeline.finetune.train import _batches, finetune
from augesc_builder.run.progress import Progress
from augesc_builder.sources.base import Session
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import PromptTemplate, render
from tests.conftest import ROOT, shared

KIND = PromptTemplate("Be kind.")


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

    def test_more_than_there_are(self):
        with pytest.raises(TrainingError, match="only 3 sessions; lower it"):
            sample_sessions(sessions_of(a=3), 4, 1)


@pytest.fixture(scope="module")
def tokenizer():
    return causal_lm.train_tokenizer([render(s.messages) for s in read_sample_sessions()], 500)


class TestEncoding:
    def test_the_loss_leaves_out_the_instruction_and_nothing_else(self, tokenizer):
        session = read_sample_sessions()[0]
        example = encode(session, KIND, tokenizer, 10_000)
        learned = [t for t in example.labels if t != IGNORED]
        assert tokenizer.decode(learned[:-1]) == render(session.messages)
        assert learned[-1] == tokenizer.eos_token_id
        ignored = example.input_ids[: len(example.input_ids) - len(learned)]
        assert tokenizer.decode(ignored) == "Be kind.\n"

    def test_long_sessions_are_cut_at_the_end(self, tokenizer):
        session = read_sample_sessions()[0]
        whole = encode(session, KIND, tokenizer, 10_000)
        cut = encode(session, KIND, tokenizer, 100)
        assert cut.input_ids == whole.input_ids[:100]
        assert cut.labels == whole.labels[:100]

    def test_gpt2s_tokenizer_continues_a_prompt_as_in_training(self):
        from transformers import GPT2TokenizerFast

        folder = shared("tokenizers/gpt2")
        tokenizer = GPT2TokenizerFast.from_pretrained(folder)
        session = read_sample_sessions()[0]
        trained = encode(session, KIND, tokenizer, 10_000).input_ids
        prompt = tokenizer(KIND.for_query(session.messages[0]["content"]))["input_ids"]
        assert trained[: len(prompt)] == prompt

    def test_padding(self, tokenizer):
        sessions = read_sample_sessions()[:2]
        examples = [encode(s, KIND, tokenizer, n) for s, n in zip(sessions, (50, 80), strict=True)]
        batch = collate(examples, 0)
        assert batch["input_ids"].shape == (2, 80)
        assert batch["attention_mask"].sum(1).tolist() == [50, 80]
        assert (batch["labels"][0, 50:] == IGNORED).all()


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
    examples = [
        encode(s, PromptTemplate(instruction), tokenizer, tiny.finetune.max_tokens) for s in chosen
    ]
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


def test_two_processes_give_what_one_gives(tiny_file, tmp_path, reference):
    """Launched by accelerate as users do, over the command line of a whole build."""
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0"),
        *("-m", "augesc_builder", "build", "--recipe", str(tiny_file)),
        *("--out", str(out), "--until", "finetune", "--debug"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = load_file(out / "checkpoint" / "model.safetensors")
    assert_equal_weights(weights, reference[1], tolerance=2e-3)


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
