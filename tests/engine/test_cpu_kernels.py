"""The compiled loops against torch, in any company, and where there is no compiler for them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu
from transformers import GPTJForCausalLM

from augesc_builder.engine import Sampling, cpu_kernels, sampling
from augesc_builder.engine.cache import Segment, masked_attention
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.llama import Llama
from augesc_builder.engine.models import Family, network_of
from augesc_builder.engine.panel_cache import PanelCache, cache_of
from tests.conftest import ROOT, often
from tests.engine.test_continuous import PAPER, run, theirs
from tests.engine.test_static import VOCABULARY, model_of, prompts

pytestmark = pytest.mark.skipif(
    cpu_kernels.library() is None, reason="there is no C++ compiler on this machine"
)
TYPES = [torch.float32, torch.bfloat16]


def without_compiler(patch):
    for module in (cpu_kernels, sampling):
        patch.setattr(module, "library", lambda: None)


# -- against torch ---------------------------------------------------------------------------------


@settings(max_examples=often(40))
@given(
    dtype=st.sampled_from(TYPES),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 100), st.integers(1, 70)),
    has_bias=st.booleans(),
    adds=st.booleans(),
)
def test_a_product_is_torchs(dtype, shape, has_bias, adds):
    torch.manual_seed(sum(shape))
    n_rows, n_in, n_out = shape
    x, weight = torch.randn(n_rows, n_in), torch.randn(n_out, n_in).to(dtype)
    bias = torch.randn(n_out).to(dtype) if has_bias else None
    before = torch.randn(n_rows, n_out)
    expected = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
    out = before.clone() if adds else None
    found = cpu_kernels.PackedLinear(weight, bias)(x, out)
    expected += before if adds else 0
    assert found.dtype == torch.float32
    # With a matrix unit an input is two numbers of bfloat16: 16 bits of it, and not 24.
    bound = (1e-6 if dtype == torch.float32 else 4e-5) * (n_in + 2) ** 0.5 * 4
    assert (found - expected).abs().max() < bound


@settings(max_examples=often(25))
@given(data=st.data())
def test_attention_is_that_behind_a_mask(data):
    dtype = data.draw(st.sampled_from(TYPES))
    n_slots, heads, share = (data.draw(st.integers(1, n)) for n in (4, 3, 9))
    size = data.draw(st.sampled_from([2, 7, 8, 16, 24, 64, 80]))
    limit = data.draw(st.integers(1, 90))
    ends = [data.draw(st.integers(1, limit)) for _ in range(n_slots)]
    torch.manual_seed(limit)
    cache = PanelCache(n_slots, limit, dtype)
    keys, values = torch.randn(2, n_slots, heads, limit, size).to(dtype).float()
    query = torch.randn(n_slots, heads * share, size)
    for slot in range(n_slots):  # a row whose numbers were none; the next must not see them
        cache.begin_prefill([Segment(slot, 0, 0, limit)])
        cache.attend(0, *torch.full((3, limit, heads, size), torch.nan), 1)
    last = torch.tensor([end - 1 for end in ends])
    for slot, end in enumerate(ends):  # all but the last token of each as a prompt
        if end > 1:
            cache.begin_prefill([Segment(slot, 0, 0, end - 1)])
            told = keys[slot, :, : end - 1].transpose(0, 1), values[slot, :, : end - 1]
            cache.attend(0, torch.randn(end - 1, heads, size), told[0], told[1].transpose(0, 1), 1)
    cache.begin_step([Segment(i, i, end - 1, 1) for i, end in enumerate(ends)], last.device)
    rows = torch.arange(n_slots)
    key, value = keys[rows, :, last], values[rows, :, last]
    ours = cache.attend(0, query, key, value, 0.3)
    expected = masked_attention(query, key, value, keys, values, last, limit, 0.3)
    assert (ours - expected).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_the_fast_path_is_taken_and_its_logits_are_the_models(family, dtype):
    model = model_of(family).to(dtype)
    network = network_of(model, 64)
    assert isinstance(network, Llama)
    ids = prompts(31)[0].token_ids
    cache = cache_of(model, 1, 64)
    cache.begin_prefill([Segment(0, 0, 0, 31)])
    with torch.inference_mode():
        ours = network.logits(torch.tensor(ids), torch.arange(31), cache)
        exact = model.float()(input_ids=torch.tensor([ids])).logits[0]
    bound = 1e-4 if dtype == torch.float32 else 0.01 * float(exact.max() - exact.min())
    assert (ours - exact).abs().max() < bound


def test_a_call_that_was_not_announced_is_refused():
    cache = PanelCache(2, 20, torch.float32)
    x = torch.randn(3, 2, 8)
    cache.begin_prefill([Segment(0, 0, 0, 4)])
    with pytest.raises(ValueError, match="3 tokens for a call announced with 4"):
        cache.attend(0, x, x, x, 1.0)
    cache.begin_prefill([Segment(0, 0, 30, 3)])
    with pytest.raises(ValueError, match="positions below 32"):
        cache.attend(0, x, x, x, 1.0)


# -- reproducible rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*TYPES, torch.int8])
def test_a_products_row_is_the_same_among_any_others(dtype):
    torch.manual_seed(2)
    x = torch.randn(70, 96)
    layer = cpu_kernels.PackedLinear(torch.randn(200, 96), dtype=dtype)
    whole = layer(x)
    for rows in (slice(3, 4), slice(0, 16), slice(5, 22), slice(10, 59)):
        assert torch.equal(layer(x[rows]), whole[rows])
    before = torch.get_num_threads()
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        assert torch.equal(layer(x), whole)
    torch.set_num_threads(before)


def test_a_row_of_gelu_is_torchs_and_the_same_among_any_others():
    """In torch's own a number at the end of a thread's share is rounded by another formula."""
    torch.manual_seed(2)
    x = 3 * torch.randn(5, 16390)
    whole = cpu_kernels.gelu_(x.clone())
    assert (whole - gelu(x.double(), approximate="tanh")).abs().max() < 1e-6
    assert torch.equal(cpu_kernels.gelu_(x[1:4].clone()), whole[1:4])
    before = torch.get_num_threads()
    for n in (1, 2, 3, 7):
        torch.set_num_threads(n)
        assert torch.equal(cpu_kernels.gelu_(x.clone()), whole)
    torch.set_num_threads(before)


def test_gptj_is_the_same_with_any_number_of_threads():
    config = model_of("gptj").config
    config.n_inner, config.n_layer = 16384, 1
    torch.manual_seed(1)
    network = network_of(GPTJForCausalLM(config).eval(), 64)
    ids, before = torch.tensor(prompts(5)[0].token_ids), torch.get_num_threads()
    found = []
    with torch.inference_mode():
        for n in (1, 3, 7):
            torch.set_num_threads(n)
            cache = cache_of(network.model, 1, 64)
            cache.begin_prefill([Segment(0, 0, 0, 5)])
            found.append(network.logits(ids, torch.arange(5), cache))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_logits_are_the_same_with_any_slots_threads_and_cuts_of_the_prompt(family, dtype):
    """To the last bit, and so are the rows: nothing but the row itself decides."""
    model = model_of(family).to(dtype)
    network = network_of(model, 64)
    ids = torch.tensor(prompts(40)[0].token_ids)

    def logits(n_slots, slot, cuts):
        cache = cache_of(model, n_slots, 64)
        for start, end in cuts:
            cache.begin_prefill([Segment(slot, 0, start, end - start)])
            network.hidden(ids[start:end], torch.arange(start, end), cache)
        cache.begin_step([Segment(slot, slot, 39, 1)], ids.device)
        tokens, at = torch.zeros(2, n_slots, dtype=torch.long)
        tokens[slot], at[slot] = ids[39], 39
        return network.logits(tokens, at, cache)[slot]

    with torch.inference_mode():
        expected = logits(1, 0, [(0, 39)])
        assert torch.equal(logits(16, 7, [(0, 39)]), expected)
        assert torch.equal(logits(20, 19, [(0, 11), (11, 12), (12, 39)]), expected)
        assert torch.equal(logits(2, 1, [(i, i + 1) for i in range(39)]), expected)
    some = prompts(5, 9, 3, 12, 7, 7, 20)
    rows = run(model, some)
    assert run(model, some, slots=1) == run(model, some, slots=33) == rows


# -- other models, and no compiler -----------------------------------------------------------------


def test_models_that_the_loops_are_not_for():
    half = model_of("llama").to(torch.float16)
    assert not cpu_kernels.runs_compiled(half)
    assert isinstance(network_of(half, 64), Family)
    changed = model_of("llama")
    changed.model.layers[0].mlp.up_proj = torch.nn.Sequential(changed.model.layers[0].mlp.up_proj)
    assert isinstance(network_of(changed, 64), Family)
    assert isinstance(network_of(model_of("gpt_neox"), 64), Family)


@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_without_a_compiler_the_engine_decodes_as_before(family, monkeypatch):
    without_compiler(monkeypatch)
    model, some = model_of(family), prompts(5, 9, 30)
    greedy = Sampling(max_tokens=40, greedy=True)
    engine = ContinuousBatchingEngine(model, 0, PAPER, 2)
    assert not isinstance(engine.network, Llama)
    assert not isinstance(cache_of(model, 2, 64), PanelCache)
    for prompt, result in zip(some, run(model, some, greedy), strict=True):
        assert list(result.token_ids) == theirs(model, prompt, 40)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gptj", "llama", "gpt_neox"])
def test_an_engine_that_owns_its_model_frees_what_it_does_not_need(family, tied):
    def weights(model):
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        return sum(layer.weight.untyped_storage().nbytes() for layer in layers)

    model, some = model_of(family), prompts(5, 9, 3)
    if tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    expected, before = run(model, some), weights(model)
    assert run(model, some, owns_model=True) == expected
    table = model.get_input_embeddings().weight.untyped_storage().nbytes()
    assert weights(model) == (before if family == "gpt_neox" else table if tied else 0)


def test_a_compiler_that_fails_is_told_of(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # what was compiled before is not there
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho no such processor >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.warns(RuntimeWarning, match=r"slower than it could be.*no such processor"):
        assert cpu_kernels.library.__wrapped__() is None
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert cpu_kernels.library.__wrapped__() is None


@pytest.mark.slow
def test_what_was_compiled_is_kept_where_it_can_be(monkeypatch, tmp_path):
    x, layer = torch.randn(3, 8), cpu_kernels.PackedLinear(torch.randn(5, 8))
    expected = layer(x)
    made = []
    for home in (tmp_path, tmp_path, tmp_path / "file" / "no folder"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        loops = cpu_kernels.library.__wrapped__()
        monkeypatch.setattr(cpu_kernels, "library", lambda loops=loops: loops)
        assert torch.equal(layer(x), expected)
        made.append([path.stat().st_mtime_ns for path in tmp_path.glob("augesc/*.so")])
        monkeypatch.undo()
    assert len(made[0]) == 1
    assert made[0] == made[1] == made[2]


def test_tokens_are_drawn_from_all_of_an_odd_vocabulary():
    logits = torch.zeros(1000, VOCABULARY)
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    seen = torch.zeros(1000, 1, dtype=torch.long)
    drawn = sampling.sample_tokens_fast(logits, seen, u, Sampling(9))
    assert drawn.unique().tolist() == list(range(VOCABULARY))


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_made_again(tmp_path):
    code = "from augesc_builder.engine.cpu_kernels import library; assert library() is not None"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]  # a new process: one that has loaded it looks no more
    subprocess.run(command, env=environment, check=True)
    (kept,) = tmp_path.glob("augesc/*.so")
    kept.write_bytes(b"no library")
    subprocess.run(command, env=environment, check=True)
    assert kept.read_bytes()[:4] == b"\x7fELF"
