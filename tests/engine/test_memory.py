"""Slots by the memory there is, one device or several."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import LlamaForCausalLM

from augesc_builder.engine import generate
from augesc_builder.engine.cache import Segment, SlotCache
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.cpu_kernels import library
from augesc_builder.engine.gptj import GPTJ
from augesc_builder.engine.memory import (
    available_memory,
    bytes_of_weights,
    bytes_per_slot,
    room_for_slots,
    slots_that_fit,
)
from augesc_builder.engine.models import Family, network_of
from augesc_builder.errors import CheckpointError
from tests.conftest import ROOT
from tests.engine.test_continuous import PAPER, QUIET, run
from tests.engine.test_static import EOS, FAMILIES, VOCABULARY, model_of, prompts


@pytest.fixture(scope="module")
def model():
    return model_of("gptj")


# -- how many fit ----------------------------------------------------------------------------------


def test_the_number_of_slots_follows_the_memory(model, monkeypatch):
    config, one = model.config, bytes_per_slot(model.config, torch.float32, 100)
    assert one == 2 * 2 * 32 * 100 * 4 + 24 * VOCABULARY
    free = {"bytes": 0}
    monkeypatch.setattr("augesc_builder.engine.memory.available_memory", lambda: free["bytes"])

    def slots(n, **how):
        free["bytes"] = n
        return slots_that_fit(room_for_slots(config, torch.float32, 100, **how))

    assert slots(6 * one, weights=0) == 3
    assert slots(8 * one, weights=2 * one) == 3
    assert slots(12 * one, weights=0, n_processes=2) == 3
    assert slots(10**12, weights=0) == 16
    assert slots(0, weights=10**9) == 1


def test_processes_share_gpus_and_a_spread_model_has_all_of_them(model, monkeypatch):
    """There is no GPU here: what a machine with two would answer stands for it."""
    one = bytes_per_slot(model.config, torch.float32, 100)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda gpu: ((10 + 20 * gpu) * one, 99 * one))

    def slots(**how):
        room = room_for_slots(model.config, torch.float32, 100, weights=0, **how)
        return slots_that_fit(room)

    assert slots() == int(0.85 * 10)
    assert slots(n_processes=2) == int(0.85 * 10)
    assert slots(n_processes=3) == slots(n_processes=4) == int(0.85 * 5)
    assert slots(spread=True) == int(0.85 * 40)


@pytest.mark.parametrize("tied", [True, False])
def test_on_cpu_a_layer_or_the_output_layer_counts_twice(tied, monkeypatch):
    with torch.device("meta"):
        config = model_of("llama").config
    for n_vocabulary, head_is_larger in ((10, False), (10_000, True)):
        config.tie_word_embeddings, config.vocab_size = tied, n_vocabulary
        with torch.device("meta"):
            shapes = LlamaForCausalLM(config)
        n = sum(weight.numel() for weight in shapes.parameters())
        head = shapes.lm_head.weight.numel()
        layer = sum(weight.numel() for weight in shapes.model.layers[0].parameters())
        assert (head > layer) == head_is_larger
        found = bytes_of_weights(shapes, torch.bfloat16) - 2 * n
        assert abs(found - 2 * max(layer, head)) < 2 * config.hidden_size  # a norm's weights
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.is_available", lambda: True)
            assert bytes_of_weights(shapes, torch.bfloat16) == 2 * n


LAID_OUT = """
import re, sys, torch
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from augesc_builder.engine import Sampling
from augesc_builder.engine.continuous import ContinuousBatchingEngine

def kilobytes(what):
    return int(re.search(rf"{what}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

owns, weights = sys.argv[1] == "owned", torch.int8 if sys.argv[2] == "int8" else None
shape = dict(hidden_size=512, intermediate_size=1536, num_hidden_layers=16, vocab_size=3000)
model = LlamaForCausalLM(LlamaConfig(num_attention_heads=8, **shape))
n = sum(weight.nbytes for weight in model.parameters())
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
engine = ContinuousBatchingEngine(model, 0, Sampling(50), 1, weights=weights, owns_model=owns)
print(1024 * (kilobytes("VmHWM") - before) / n)
"""


@pytest.mark.slow
@pytest.mark.skipif(library() is None, reason="there is no C++ compiler on this machine")
@pytest.mark.parametrize("weights", ["same", "int8"])
def test_weights_are_freed_as_they_are_laid_out(weights):
    """The peak beside 220 MB of weights, against that of a model that is kept."""

    def growth(owned):
        command = [sys.executable, "-c", LAID_OUT, owned, weights]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[0])

    # A system short of memory takes pages away from whom it likes: one fair comparison is enough.
    assert any(growth("owned") < 0.6 * growth("kept") for _ in range(4))


# -- out of memory ---------------------------------------------------------------------------------


def test_out_of_memory_halves_the_slots_and_loses_no_token(model):
    some = prompts(5, 9, 3, 12, 7, 7, 20)
    engine = ContinuousBatchingEngine(model, EOS, PAPER, 8)
    logits_of, calls = engine._logits, iter(range(10**6))

    def too_much(slots, at, longest):
        if next(calls) == 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return logits_of(slots, at, longest)

    engine._logits = too_much
    assert generate(engine, some, *QUIET) == run(model, some)
    assert engine.n_slots == 4


def test_no_memory_for_one_row_is_an_error(model):
    engine = ContinuousBatchingEngine(model, EOS, PAPER, 2)

    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine._logits = too_much
    with pytest.raises(CheckpointError, match="out of memory with one conversation"):
        generate(engine, prompts(5), *QUIET)


# -- layers on several devices ---------------------------------------------------------------------


def spread(model):
    """Put the last layer, and what comes behind it, on another device, as accelerate would.

    PyTorch's ``meta`` stands for it: its tensors hold no numbers, but do not mix with others.
    """
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    behind = ("ln_f", "final_layer_norm", "model.norm")
    norm = next(
        module
        for name, module in model.named_modules()
        if name.endswith(behind) and "layers." not in name
    )
    head = model.get_output_embeddings()
    for module in [layers[-1], norm, head]:
        module.to("meta")
        add_hook_to_module(module, AlignDevicesHook("meta"))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_may_stand_on_several_devices(family):
    model = model_of(family)
    spread(model)
    network = GPTJ(model) if family == "gptj" else Family(model)
    cache, tokens = SlotCache(3, 64), torch.tensor([5, 6, 7, 8, 9])
    with torch.inference_mode():
        cache.begin_prefill([Segment(0, 0, 0, 3), Segment(1, 3, 0, 2)])
        network.hidden(tokens, torch.tensor([0, 1, 2, 0, 1]), cache)
        cache.begin_step([Segment(0, 0, 3, 1), Segment(1, 1, 2, 1)], tokens.device)
        assert network.logits(tokens[:3], torch.tensor([3, 2, 0]), cache).device.type == "meta"
        cache.begin_captured_step(torch.tensor([4, 3, 0]), 20)
        assert network.logits(tokens[:3], torch.tensor([4, 3, 0]), cache).shape == (3, VOCABULARY)
    devices = [keys.device.type for keys in cache._keys.values()]
    assert devices == ["cpu"] * (len(devices) - 1) + ["meta"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_never_waits_for_numbers(family):
    """No graph on CUDA holds what looks at a tensor's numbers; ``meta`` has none to look at."""
    model = model_of(family).to("meta")
    network = GPTJ(model) if family == "gptj" else Family(model)
    cache, tokens = SlotCache(3, 64), torch.zeros(3, dtype=torch.long, device="meta")
    with torch.inference_mode():
        cache.begin_captured_step(tokens, 20)
        assert network.logits(tokens, tokens, cache).shape == (3, VOCABULARY)


def test_layers_that_no_gpu_has_room_for_are_named():
    model = model_of("gptj")
    model.hf_device_map = {
        "transformer.wte": 0,
        "transformer.h.0": "cpu",
        "transformer.h.1": "disk",
    }
    with pytest.raises(
        CheckpointError, match=r"left on cpu and disk.*smaller generate.backend.dtype.*static"
    ):
        network_of(model, 64)
    model.hf_device_map = {"": "cpu"}
    network_of(model, 64)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux tells there")
def test_what_is_available_is_counted_in_bytes():
    text = Path("/proc/meminfo").read_text()
    total = 1024 * int(re.search(r"MemTotal: +(\d+) kB", text)[1])
    assert total / 1000 < available_memory() <= total
