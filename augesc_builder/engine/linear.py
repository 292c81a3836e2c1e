"""Products with weights, by what is fastest where they are: compiled loops, oneDNN, or torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from augesc_builder.engine.cpu_kernels import PackedLinear

Product = Callable[[Tensor], Tensor]


def product_of(layer: Any, *, packed: bool = False) -> Product:
    """Return what a linear layer computes, (N, in) to (N, out), as fast as this machine has it."""
    if type(layer) is not torch.nn.Linear:
        product: Product = layer
        return product
    return product_with(layer.weight.detach(), layer.bias, packed=packed)


def product_with(weight: Tensor, bias: Tensor | None = None, *, packed: bool = False) -> Product:
    """Return the product with a matrix (out, in): from (N, in) to (N, out).

    One that is ``packed`` goes through compiled loops, from float32 to float32.
    """
    bias = None if bias is None else bias.detach()
    if packed:
        return PackedLinear(weight, bias)
    # What the compiler of torch itself puts in a linear layer's place on CPU.
    pointwise = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and pointwise is not None:
        return lambda x: pointwise(x, weight, bias, "none", [], "")
    return lambda x: linear(x, weight, bias)


def rounded_product_of(layer: Any, *, packed: bool = False) -> Product:
    """Return what a linear layer computes with its matrix rounded to bfloat16: other logits."""
    weight = layer.weight.detach().bfloat16()
    if packed:
        return PackedLinear(weight, layer.bias)
    bias = 0.0 if layer.bias is None else layer.bias.detach().float()
    return lambda x: linear(x.bfloat16(), weight).float() + bias
