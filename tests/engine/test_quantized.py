"""8-bit weights: what they are, products with them, and where there are none."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import cpu_kernels
from augesc_builder.engine.cache import Segment
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.cpu_kernels import PackedLinear, quantized
from augesc_builder.engine.gptj import GPTJ
from augesc_builder.engine.llama import Llama
from augesc_builder.engine.models import network_of
from augesc_builder.engine.panel_cache import cache_of
from augesc_builder.errors import CheckpointError, RecipeError
from augesc_builder.pipeline.generate import processor
from augesc_builder.pipeline.generate.backends.local import LocalBackend
from tests.conftest import often
from tests.engine.test_continuous import PAPER, run
from tests.engine.test_static import EOS, model_of, prompts

compiled = pytest.mark.skipif(
    cpu_kernels.library() is None, reason="there is no C++ compiler on this machine"
)
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 200), st.integers(1, 70))


def rounded(weight):
    integers, scales = quantized(weight)
    return integers.double() * scales.double()[:, None]


# -- the weights -----------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 30),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e20]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_weight_is_off_by_more_than_half_a_step_of_its_row(rows, columns, size, dtype):
    torch.manual_seed(rows * columns)
    weight = (size * torch.randn(rows, columns)).to(dtype)
    weight[0] = 0
    integers, scales = quantized(weight)
    assert integers.abs().amax(1)[1:].eq(127).all()
    assert not integers[0].any()
    off = (rounded(weight) - weight.double()).abs()
    assert (off <= 0.50001 * scales.double()[:, None]).all()


def test_a_matrix_is_rounded_in_parts_as_in_one(monkeypatch):
    weight = torch.randn(50, 20)
    whole = quantized(weight)
    monkeypatch.setattr(cpu_kernels, "_ROWS_AT_ONCE", 7)
    for part, expected in zip(quantized(weight), whole, strict=True):
        assert torch.equal(part, expected)


# -- products --------------------------------------------------------------------------------------


def check_product(shape, *, has_bias, adds):
    torch.manual_seed(sum(shape))
    n_rows, n_in, n_out = shape
    x = torch.randn(n_rows, n_in) * torch.randn(n_rows, 1).exp()
    x[0, 0] *= 50
    weight, bias = torch.randn(n_out, n_in), torch.randn(n_out) if has_bias else None
    before, exact = torch.randn(n_rows, n_out), rounded(weight)
    expected = x.double() @ exact.T + (0 if bias is None else bias) + (before if adds else 0)
    layer = PackedLinear(weight, bias, dtype=torch.int8)
    found = layer(x, before.clone() if adds else None)
    assert found.dtype == torch.float32
    # On a matrix unit an input is a whole number of 23 bits times a power of two of its row's.
    steps = x.abs().amax(1, keepdim=True).double() * 2**-22 * exact.abs().sum(1)
    bound = steps + 3e-6 * (x.double().abs() @ exact.abs().T + 3)
    assert ((found - expected).abs() <= bound).all()


@compiled
@settings(max_examples=often(40))
@given(shape=SHAPES, has_bias=st.booleans(), adds=st.booleans())
def test_a_product_is_that_of_the_rounded_weights(shape, has_bias, adds):
    check_product(shape, has_bias=has_bias, adds=adds)


@compiled
@pytest.mark.slow
def test_so_it_is_where_there_is_no_matrix_unit(monkeypatch, tmp_path):
    """The loops as they are compiled for other processors."""
    made, source = tmp_path / "plain.so", Path(cpu_kernels.__file__).parent / "loops" / "loops.cpp"
    flags = [flag for flag in cpu_kernels._FLAGS if flag != "-march=native"]
    subprocess.run(["c++", *flags, source, "-o", made], check=True)
    loops = cpu_kernels._typed(ctypes.CDLL(str(made)))
    monkeypatch.setattr(cpu_kernels, "library", lambda: loops)
    for shape in [(1, 1, 1), (7, 64, 16), (16, 100, 33), (40, 130, 70)]:
        check_product(shape, has_bias=True, adds=False)
        check_product(shape, has_bias=False, adds=True)


@compiled
def test_a_row_that_is_not_finite_stays_alone():
    x = torch.randn(20, 64)
    layer = PackedLinear(torch.randn(40, 64), dtype=torch.int8)
    expected = layer(x)
    x[3, 5], x[9, 7], x[11] = torch.inf, torch.nan, 0
    found, others = layer(x), [i for i in range(20) if i not in (3, 9, 11)]
    assert not found[[3, 9]].isfinite().any()
    assert not found[11].any()
    assert torch.equal(found[others], expected[others])
    weight = torch.randn(40, 64)
    weight[6, 2] = torch.nan
    found = PackedLinear(weight, dtype=torch.int8)(expected.new_ones(2, 64))
    assert found.isfinite().all(0).tolist() == [i != 6 for i in range(40)]


@compiled
def test_numbers_of_any_size_keep_their_digits():
    torch.manual_seed(4)
    weight, x = torch.randn(16, 64), torch.randn(1, 64)
    layer, exact = PackedLinear(weight, dtype=torch.int8), rounded(weight)
    for size in (1e-30, 1e-20, 1.0, 1e20, 1e35):
        scaled = x * size
        found = layer(scaled).double() / (scaled.double().abs() @ exact.abs().T)
        expected = (scaled.double() @ exact.T) / (scaled.double().abs() @ exact.abs().T)
        assert (found - expected).abs().max() < 1e-5, size


# -- models ----------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize(("family", "kind"), [("gptj", GPTJ), ("llama", Llama), ("qwen2", Llama)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_those_of_the_model_with_rounded_weights(family, kind, dtype):
    model = model_of(family).to(dtype)
    network = network_of(model, 64, weights=torch.int8)
    assert isinstance(network, kind)
    ids = prompts(31)[0].token_ids
    cache = cache_of(model, 1, 64)
    cache.begin_prefill([Segment(0, 0, 0, 31)])
    with torch.inference_mode():
        ours = network.logits(torch.tensor(ids), torch.arange(31), cache)
    exact = model.double()
    for module in exact.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = rounded(module.weight.data.to(dtype))
    with torch.inference_mode():
        expected = exact(input_ids=torch.tensor([ids])).logits[0]
    span = float(expected.max() - expected.min())
    assert (ours - expected).abs().max() < (1e-5 if dtype == torch.float32 else 0.01) * span


@compiled
@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_rows_are_the_same_with_any_slots_and_other_than_those_of_whole_weights(family):
    model, some = model_of(family), prompts(5, 9, 3, 12, 7, 7, 20)
    rows = run(model, some, weights=torch.int8)
    for slots in (1, 33):
        assert run(model, some, slots=slots, weights=torch.int8) == rows
    assert run(model, some[::-1], weights=torch.int8)[::-1] == rows
    assert run(model, some) != rows
    assert run(model, some, weights=torch.int8, owns_model=True) == rows


# -- where there are none --------------------------------------------------------------------------


def test_models_without_compiled_loops_are_refused(monkeypatch):
    for model in (model_of("gpt_neox"), model_of("llama").to(torch.float16)):
        with pytest.raises(CheckpointError, match=r"weights is for gptj, llama, .* set it to null"):
            ContinuousBatchingEngine(model, EOS, PAPER, 2, weights=torch.int8)
    monkeypatch.setattr(cpu_kernels, "library", lambda: None)
    with pytest.raises(CheckpointError, match=r"GPTJForCausalLM.*C\+\+ compiler; set it to null"):
        ContinuousBatchingEngine(model_of("gptj"), EOS, PAPER, 2, weights=torch.int8)


@pytest.mark.parametrize(
    "other",
    [
        "engine=static",
        "device_map=auto",
        "tensor_parallel=2",
        "bfloat16_head=true",
        "dtype=float16",
    ],
)
def test_keys_that_it_does_not_go_with(other):
    with pytest.raises(RecipeError, match="weights: int8 goes with engine: continuous"):
        load_recipe("tiny", ["generate.backend.weights=int8", f"generate.backend.{other}"])


def test_what_cannot_be_is_refused_before_anything_is_trained(monkeypatch):
    asked = load_recipe("tiny", ["generate.backend.weights=int8"])
    monkeypatch.setattr(processor, "library", object)
    LocalBackend.check(asked)
    monkeypatch.setattr(processor, "library", lambda: None)
    with pytest.raises(CheckpointError, match=r"C\+\+ compiler.*none here; or set it to null"):
        LocalBackend.check(asked)
    monkeypatch.setattr(processor, "PACKED", {"llama"})
    with pytest.raises(CheckpointError, match=r"is of the type gptj, expected llama"):
        LocalBackend.check(asked)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(CheckpointError, match=r"has a GPU \(CUDA_VISIBLE_DEVICES= hides it\)"):
        LocalBackend.check(asked)
    LocalBackend.check(load_recipe("tiny"))


@compiled
def test_it_stands_in_the_manifest_and_changes_rows(generate, tmp_path):
    whole_weights = generate("generate.backend.dtype=float32", out="whole")
    first = generate("generate.backend.dtype=float32", "generate.backend.weights=int8", out="first")
    assert first != whole_weights
    (manifest,) = tmp_path.glob("**/first/manifest.json")
    noted = json.loads(manifest.read_text())["generate"]
    assert (noted["weights"], noted["dtype"]) == ("int8", "float32")
    (manifest,) = tmp_path.glob("**/whole/manifest.json")
    assert json.loads(manifest.read_text())["generate"]["weights"] == "float32"
