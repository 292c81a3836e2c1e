"""Tensor parallelism: several processes that shard one model, on CPU."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import generate as engine_generate
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.tensor_parallel import process_group
from augesc_builder.errors import CheckpointError, RecipeError
from augesc_builder.pipeline.build import build
from augesc_builder.run.progress import Progress
from tests.engine.test_continuous import PAPER, QUIET
from tests.engine.test_static import EOS, HEADS, model_of, prompts

BACKEND = "generate.backend"


@pytest.fixture
def llama(built, tmp_path):
    """Return a checkpoint whose layers transformers can cut; two heads share keys."""
    tokenizer = AutoTokenizer.from_pretrained(built / "checkpoint")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        **{**HEADS, "max_position_embeddings": 512},
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.slow
def test_two_processes_with_half_a_model_each_give_the_rows_of_one(generate, llama):
    alone, shared = (
        generate(
            f"generate.backend.tensor_parallel={n}",
            "generate.backend.slots=4",
            checkpoint=llama,
            out=str(n),
        )
        for n in (1, 2)
    )
    assert shared == alone
    assert len({row["text"] for row in alone}) > 1


@pytest.mark.slow
def test_a_family_that_cannot_be_cut(generate):
    with pytest.raises(CheckpointError, match=r"no tensor parallelism for gptj.*device_map=auto"):
        generate("generate.backend.tensor_parallel=2")


def test_a_build_says_so_before_it_trains(tiny_file, tmp_path):
    recipe = load_recipe(tiny_file, ["generate.backend.tensor_parallel=2"])
    with pytest.raises(CheckpointError, match="no tensor parallelism for gptj"):
        build(recipe, tmp_path / "out", Progress(quiet=True))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_heads_that_cannot_be_cut(generate, llama):
    with pytest.raises(CheckpointError, match="its num_key_value_heads, 2, cannot be cut into 4 s"):
        generate("generate.backend.tensor_parallel=4", checkpoint=llama)


@pytest.mark.parametrize("other", ["device_map=auto", "workers=2", "engine=static"])
def test_one_way_to_share_at_a_time(tiny_file, other):
    with pytest.raises(RecipeError, match="tensor_parallel 2 goes with engine: continuous"):
        load_recipe(tiny_file, ["generate.backend.tensor_parallel=2", f"generate.backend.{other}"])


def test_more_parts_than_gpus(monkeypatch, tmp_path):
    """There is no GPU here: what a machine with two would answer stands for it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with (
        pytest.raises(CheckpointError, match="is 3, and this machine has 2 GPUs"),
        process_group(0, 3, tmp_path / "meeting"),
    ):
        pass


def test_out_of_memory_is_an_error_where_processes_share_the_model():
    engine = ContinuousBatchingEngine(model_of("gptj"), EOS, PAPER, 8)
    engine.is_tensor_parallel = True

    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine._logits = too_much
    with pytest.raises(CheckpointError, match=r"with 8 conversations.*lower.*backend.slots"):
        engine_generate(engine, prompts(5), *QUIET)
