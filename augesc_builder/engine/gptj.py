"""GPT-J without what is slow in the library's.

The same arithmetic in fewer and larger operations: one product for query, key and value, a rotary
table that is looked up instead of copied, no float32 copy of all keys, no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from augesc_builder.engine.cache import SlotCache
from augesc_builder.engine.cpu_kernels import gelu_, runs_compiled
from augesc_builder.engine.linear import (
    Packing,
    Product,
    product_of,
    product_with,
    rounded_product_of,
)


class GPTJ:
    """A ``GPTJForCausalLM`` over a :class:`SlotCache`.

    It shares the model's weights, or has them packed, where it runs in compiled loops.
    """

    def __init__(
        self, model: Any, packing: Packing | None = None, *, bfloat16_head: bool = False
    ) -> None:
        self.model = model
        config = model.config
        self._is_packed = self.any_shape = runs_compiled(model)
        self._dtype = torch.float32 if self._is_packed else model.dtype  # of all that is no weight
        # torch's rounds by a number's place in its thread's share of all rows.
        self._gelu = gelu_ if self._is_packed else partial(gelu, approximate="tanh")
        self._heads = config.n_head
        self._size = config.n_embd // config.n_head
        self._scale = self._size**-0.5
        self._rotary = config.rotary_dim or self._size
        device = model.transformer.wte.weight.device
        turns = 10000.0 ** (-torch.arange(0, self._rotary, 2, device=device) / self._rotary)
        angles = torch.arange(config.n_positions, device=device)[:, None] * turns  # (T, R / 2)
        self._cos, self._sin = (
            x.repeat_interleave(2, 1)[:, None, None].to(self._dtype)
            for x in (angles.cos(), angles.sin())
        )  # (T, 1, 1, R)
        packing = packing or Packing()
        product: Callable[[Any], Product] = packing if self._is_packed else product_of
        self._blocks = [
            (
                block.ln_1,
                self._product_of_inputs(block.attn, packing),
                product(block.attn.out_proj),
                product(block.mlp.fc_in),
                product(block.mlp.fc_out),
            )
            for block in model.transformer.h
        ]
        if bfloat16_head:
            rounded = replace(packing, dtype=torch.bfloat16)
            product = rounded if self._is_packed else rounded_product_of
        self._head = product(model.lm_head)

    def _product_of_inputs(self, attention: Any, packing: Packing) -> Product:
        """Return one product for query, key and value."""
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        return packing(*parts) if self._is_packed else product_with(_fuse(parts))

    def hidden(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the last layer's output (N, E)."""
        core = self.model.transformer
        x = core.wte(tokens).to(self._dtype)  # (N, E)
        cos, sin = self._cos[positions], self._sin[positions]  # (N, 1, 1, R)
        for number, (norm, qkv, out, mlp_in, mlp_out) in enumerate(self._blocks):
            device = norm.weight.device  # the layers may stand on several
            x, cos, sin = (t.to(device) for t in (x, cos, sin))
            h = _normed(x, norm)
            states = qkv(h).view(-1, 3, self._heads, self._size)  # (N, 3, H, D)
            turned = states[:, :2, :, : self._rotary]  # of query and key
            turned.copy_(turned * cos + _quarter(turned) * sin)
            query, key, value = states.unbind(1)
            attended = cache.attend(number, query, key, value, self._scale).flatten(1)
            x = x + out(attended) + mlp_out(self._gelu(mlp_in(h)))
        return _normed(x.to(core.ln_f.weight.device), core.ln_f)

    def logits(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the logits (N, V) behind each."""
        hidden = self.hidden(tokens, positions, cache)
        return self._head(hidden.to(self.model.lm_head.weight.device))


def _normed(x: Tensor, norm: Any) -> Tensor:
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    return layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def _quarter(x: Tensor) -> Tensor:
    """Return pairs of neighbours turned by a quarter: ``(a, b)`` becomes ``(-b, a)``."""
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


def _fuse(parts: Sequence[Any]) -> Tensor:
    """Lay query, key and value weights in one matrix (3 E, E); the model's become views of it."""
    fused = torch.cat([part.weight.data for part in parts])
    for part, weight in zip(parts, fused.chunk(3), strict=True):
        part.weight.data = weight
    return fused
