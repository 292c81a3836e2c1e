"""The type of weights that a run chooses, and what a process finds that resumes it elsewhere."""

from __future__ import annotations

import json

import pytest
import torch

from augesc_builder.pipeline.generate import processor
from tests.conftest import rows_of


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([], "float32"),
        (["avx2", "avx512f"], "float32"),
        (["avx512_bf16"], "bfloat16"),
        (["amx_bf16"], "bfloat16"),
        (["bf16"], "bfloat16"),
    ],
)
def test_bfloat16_where_the_processor_has_it(features, expected, monkeypatch):
    monkeypatch.setattr(processor, "_processor", lambda: {"name": "x", "features": features})
    assert processor.dtype_for("auto") == expected
    assert processor.dtype_for("float16") == "float16"


def test_a_run_keeps_its_type_and_says_so_where_it_computes_otherwise(monkeypatch):
    begun = processor.facts_for("auto", {})
    assert begun["dtype"] == processor.dtype_for("auto")
    assert {"name", "features", "kernels", "build"} == set(begun["processor"])
    assert processor.facts_for("auto", begun) == begun
    # A run of an older version noted none of it, or less.
    assert processor.facts_for("float32", {"slots": 16}) == {**begun, "dtype": "float32"}
    less = {key: begun["processor"][key] for key in ("name", "features", "kernels")}
    assert processor.facts_for("auto", {**begun, "processor": less}) == begun
    other = {"name": "another", "features": []}
    monkeypatch.setattr(processor, "_processor", lambda: other)
    with pytest.warns(RuntimeWarning, match=r"name: .* then, another now.*differ by rounding"):
        assert processor.facts_for("auto", begun) == begun


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize(
    ("dtype", "then", "now", "said", "not_said"),
    [
        (
            "bfloat16",
            {"features": ["amx_bf16", "avx2"]},
            {"features": ["avx2"]},
            ["features: amx_bf16, avx2 then, avx2 now", "does not compute in: it takes longer"],
            ["compiled"],
        ),
        (
            "float32",
            {"features": ["amx_bf16"]},
            {"features": []},
            ["features: amx_bf16 then, none now", "differ by rounding"],
            ["does not compute in"],
        ),
        (
            "float32",
            {"kernels": "compiled", "build": "cpu_kernels-1"},
            {"kernels": "torch", "build": "torch 2"},
            ["kernels: compiled then, torch now", "C++ compiler", "twice as long"],
            ["does not compute in"],
        ),
        (
            "float32",
            {"kernels": "torch", "build": "torch 2"},
            {"kernels": "compiled", "build": "cpu_kernels-1"},
            ["kernels: torch then, compiled now", "differ by rounding"],
            ["twice as long"],
        ),
        (
            "bfloat16",
            {"kernels": "compiled", "build": "cpu_kernels-1", "features": ["bf16"]},
            {"kernels": "compiled", "build": "cpu_kernels-2", "features": ["bf16"]},
            ["build: cpu_kernels-1 then, cpu_kernels-2 now", "differ by rounding"],
            ["does not compute in", "twice as long"],
        ),
        (
            "bfloat16",
            {"name": "GPU A", "kernels": "cuda"},
            {"name": "GPU B", "kernels": "cuda"},
            ["name: GPU A then, GPU B now", "differ by rounding"],
            ["takes longer", "twice as long"],
        ),
    ],
)
def test_what_another_machine_changes(dtype, then, now, said, not_said, monkeypatch):
    same = {"name": "x", "features": [], "kernels": "compiled", "build": "cpu_kernels-1"}
    here = {**same, **now}
    monkeypatch.setattr(
        processor, "_processor", lambda: {key: here[key] for key in ("name", "features")}
    )
    monkeypatch.setattr(
        processor, "_kernels", lambda: {key: here[key] for key in ("kernels", "build")}
    )
    known = {"dtype": dtype, "processor": {**same, **then}}
    with pytest.warns(RuntimeWarning, match="begun with something else") as warned:
        assert processor.facts_for("auto", known) == known
    (message,) = (str(one.message) for one in warned)
    assert all(part in message for part in said)
    assert not any(part in message for part in not_said)


def test_a_machine_without_a_compiler_says_which_kernels_it_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(processor, "library", lambda: None)
    assert processor._kernels() == {"kernels": "torch", "build": f"torch {torch.__version__}"}


def test_it_stands_in_the_manifest_and_the_rows_are_the_same_again(generate, tmp_path):
    first = generate("generate.backend.dtype=bfloat16", out="first")
    assert generate("generate.backend.dtype=bfloat16", out="second") == first
    (manifest,) = tmp_path.glob("**/first/manifest.json")
    noted = json.loads(manifest.read_text())["generate"]
    assert noted["dtype"] == "bfloat16"
    assert noted["processor"] == processor.facts_for("auto", {})["processor"]
    assert rows_of(manifest.parent) == first
