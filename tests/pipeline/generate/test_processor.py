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
    assert {"name", "features", "kernels"} == set(begun["processor"])
    assert processor.facts_for("auto", begun) == begun
    # A run of an older version noted none of it.
    assert processor.facts_for("float32", {"slots": 16}) == {**begun, "dtype": "float32"}
    other = {"name": "another", "features": []}
    monkeypatch.setattr(processor, "_processor", lambda: other)
    with pytest.warns(RuntimeWarning, match=r"name: .* then, another now.*differ by rounding"):
        assert processor.facts_for("auto", begun) == begun


def test_it_stands_in_the_manifest_and_the_rows_are_the_same_again(generate, tmp_path):
    first = generate("generate.backend.dtype=bfloat16", out="first")
    assert generate("generate.backend.dtype=bfloat16", out="second") == first
    (manifest,) = tmp_path.glob("**/first/manifest.json")
    noted = json.loads(manifest.read_text())["generate"]
    assert noted["dtype"] == "bfloat16"
    assert noted["processor"] == processor.facts_for("auto", {})["processor"]
    assert rows_of(manifest.parent) == first
