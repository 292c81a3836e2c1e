"""Products with weights, by what is fastest where they are: compiled loops, oneDNN, or torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from augesc_builder.engine.cpu_kernels import PackedLinear

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Packing:
    """How linear layers are laid out for compiled loops: in the model's type, or in ``dtype``.

    A model that ``frees`` its matrices loses each as soon as it is packed, so that memory holds one
    layer twice and no more; it cannot run by itself then. Its table of embeddings, ``kept``, stays,
    though it may be the output layer's matrix as well.
    """

    dtype: torch.dtype | None = None
    frees: bool = False
    kept: Tensor | None = None

    def __call__(self, *layers: Any) -> PackedLinear:
        """Lay several linear layers of the same input in one."""
        weights = [layer.weight.detach() for layer in layers]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        del weights
        for layer in layers:
            if self.frees and layer.weight is not self.kept:
                layer.weight.data = layer.weight.data.new_empty(0)
        return PackedLinear(weight, torch.cat(biases) if biases else None, dtype=self.dtype)


def product_of(layer: Any) -> Product:
    """Return what a linear layer computes, (N, in) to (N, out), as fast as this machine has it."""
    if type(layer) is not torch.nn.Linear:
        product: Product = layer
        return product
    return product_with(layer.weight.detach(), layer.bias)


def product_with(weight: Tensor, bias: Tensor | None = None) -> Product:
    """Return the product with a matrix (out, in): from (N, in) to (N, out)."""
    bias = None if bias is None else bias.detach()
    # What the compiler of torch itself puts in a linear layer's place on CPU.
    pointwise = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and pointwise is not None:
        return lambda x: pointwise(x, weight, bias, "none", [], "")
    return lambda x: linear(x, weight, bias)


def rounded_product_of(layer: Any) -> Product:
    """Return what a linear layer computes with its matrix rounded to bfloat16: other logits."""
    weight = layer.weight.detach().bfloat16()
    bias = 0.0 if layer.bias is None else layer.bias.detach().float()
    return lambda x: linear(x.bfloat16(), weight).float() + bias
