from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

from augesc_builder.models.causal_lm import train_tokenizer
from augesc_builder.pipeline.generate.vllm.process import PYTHON
from augesc_builder.pipeline.inputs import run_settings
from augesc_builder.run.folder import RunFolder
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import render
from tests.conftest import ROOT

PEER = ROOT / "benchmarks" / ".peers" / "vllm"


def find_vllm() -> str:
    """Give the interpreter of an environment with vLLM, or skip the test."""
    given = os.environ.get(PYTHON) or str(PEER / "bin" / "python")
    if not (os.environ.get(PYTHON) or (PEER / "installed").exists()):
        pytest.skip(f"no vLLM: make vllm installs it, or {PYTHON} says where it is")
    return given


@pytest.fixture
def vllm_python(monkeypatch) -> str:
    """That interpreter, where the backend finds it."""
    given = find_vllm()
    monkeypatch.setenv(PYTHON, given)
    monkeypatch.delenv("TRITON_INTERPRET")  # of our own kernels
    return given


def save_small_model(family: str, folder: Path) -> Path:
    """Save a checkpoint with random weights, in a shape that vLLM computes on CPU too."""
    texts = [render(session.messages) for session in read_sample_sessions()]
    tokenizer = train_tokenizer(texts, 400)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    # Far from 0, so that rounding alone seldom makes another token the likeliest.
    shape = {"vocab_size": len(tokenizer), "initializer_range": 0.2, **ids}
    with torch.random.fork_rng():
        torch.manual_seed(13)
        model = {
            "gptj": lambda: GPTJForCausalLM(
                GPTJConfig(n_embd=64, n_layer=2, n_head=2, rotary_dim=16, n_positions=512, **shape)
            ),
            "llama": lambda: LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=64,
                    intermediate_size=128,
                    num_hidden_layers=2,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    max_position_embeddings=512,
                    **shape,
                )
            ),
        }[family]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory) -> Path:
    return save_small_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def small_gptj(tmp_path_factory) -> Path:
    return save_small_model("gptj", tmp_path_factory.mktemp("gptj"))


@pytest.fixture
def trained(built, tiny, tmp_path):
    """Give a copy of the tiny build as it was before anything was generated."""
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    with RunFolder(folder, run_settings(tiny)) as run:
        for stage in ("card", "statistics", "quality", "filter", "generate"):
            for mark in run.marks.names(stage):
                run.forget(mark)
        run.record(generate={})
    return folder
