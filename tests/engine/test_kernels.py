"""The kernel of a step on CUDA: run by Triton's interpreter, and compiled for cards not at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.test_continuous import run
from tests.engine.test_static import model_of, prompts

pytest.importorskip("triton", reason="Triton has no build for this machine")

from augesc_builder.engine import Sampling, cache, continuous, kernels, llama
from augesc_builder.engine.cuda_graphs import CudaGraphDecoder
from tests.conftest import often


@settings(max_examples=often(25))
@given(data=st.data())
def test_the_kernel_attends_as_behind_a_mask(data):
    dtype, bound = data.draw(
        st.sampled_from([(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
    )
    n_slots, heads, share = (data.draw(st.integers(1, n)) for n in (3, 2, 4))
    size = data.draw(st.sampled_from([2, 8, 24, 256]))
    capacity = data.draw(st.integers(1, 70))
    positions = torch.tensor([data.draw(st.integers(0, capacity - 1)) for _ in range(n_slots)])
    torch.manual_seed(data.draw(st.integers(0, 99)))
    query = torch.randn(n_slots, heads * share, size).to(dtype)
    # As the models give them: cut out of one product, or with their heads first.
    key = torch.randn(n_slots, 3, heads, size).to(dtype)[:, 1]
    value = torch.randn(heads, n_slots, size).to(dtype).transpose(0, 1)
    keys, values = torch.randn(2, n_slots, heads, capacity, size).to(dtype)
    beyond = torch.arange(capacity)[None, :] > positions[:, None]
    for stored in (keys, values):
        stored.transpose(1, 2)[beyond] = torch.nan  # what is not the row's is not looked at
    both = [(keys.clone(), values.clone()), (keys.nan_to_num(), values.nan_to_num())]
    ours = kernels.attend(query, key, value, *both[0], positions, 0.3)
    theirs = cache.masked_attention(query, key, value, *both[1], positions, capacity, 0.3)
    assert ours.dtype == dtype
    largest = theirs.float().abs().max().clamp(min=1)  # their type rounds in steps of its size
    assert (ours.float() - theirs.float()).abs().max() < bound * largest
    for mine, expected in zip(*both, strict=True):
        assert torch.equal(mine.nan_to_num(), expected)


def test_a_rows_sums_do_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, 24)
    keys, values = torch.randn(2, 4, 2, 90, 24)
    positions = torch.tensor([70, 3, 88, 15])
    whole = kernels.attend(query, key, value, keys, values, positions, 0.2)
    for row in range(4):
        own = slice(row, row + 1)
        alone = [x[own].clone() for x in (query, key, value, keys, values, positions)]
        assert torch.equal(kernels.attend(*alone, 0.2), whole[own])


@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_the_engine_makes_the_same_rows_with_the_kernel(family, monkeypatch):
    model, some = model_of(family), prompts(5, 9, 3)
    short = Sampling(max_tokens=14, top_p=0.9, repetition_penalty=1.05)
    expected = run(model, some, short, 2)
    monkeypatch.setattr(llama.Llama, "takes", lambda _: False)  # it takes no other cache
    monkeypatch.setattr(cache, "kernel_on", lambda _: kernels.attend)
    monkeypatch.setattr(continuous, "cache_of", lambda _, *size: cache.SlotCache(*size))
    monkeypatch.setattr("augesc_builder.engine.cuda_graphs.kernel_on", lambda _: kernels.attend)
    calls = []

    def as_on_cuda(engine):
        made = unchanged(engine)
        made.decoder = CudaGraphDecoder(engine.network, made.cache, engine.device)
        calls.append(made)
        return made

    unchanged = continuous.ContinuousBatchingEngine._empty_slots
    monkeypatch.setattr(continuous.ContinuousBatchingEngine, "_empty_slots", as_on_cuda)
    assert run(model, some, short, 2) == expected
    assert calls


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles_for_cards_and_keeps_to_their_registers(capability):
    """In a process of its own: the interpreter has put itself in the compiler's place here."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run(
        [sys.executable, Path(__file__).with_name("compile_kernels.py"), str(capability)],
        env=environment,
        check=True,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_where_triton_does_not_work_attention_goes_behind_a_mask_and_says_so(monkeypatch):
    """A device that this build of PyTorch has no tensors on is as good as a broken Triton."""
    cache.kernel_on.cache_clear()
    with pytest.warns(RuntimeWarning, match="behind a mask, which is slower: Triton does not work"):
        assert cache.kernel_on("cuda") is None
    assert cache.kernel_on("cpu") is None
    real = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, **_: real(*size))
    cache.kernel_on.cache_clear()
    assert cache.kernel_on("cuda") is kernels.attend
    cache.kernel_on.cache_clear()
