"""Llama, Mistral and Qwen2 in compiled loops on CPU.

The same arithmetic in one call: one product for query, key and value, one for both halves of the
gated layer, tables of rotations that are made once. All of it is float32 but for weights, keys and
values, which are the model's own type.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, cast

import torch
from torch import Tensor

from augesc_builder.engine.cache import SlotCache
from augesc_builder.engine.cpu_kernels import Linear, call, rms_norm, runs_compiled
from augesc_builder.engine.linear import Packing
from augesc_builder.engine.panel_cache import PanelCache
from augesc_builder.engine.tensor_parallel import tensor_parallel_size

_NAMES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}


class _Layer(ctypes.Structure):
    """A layer as the loop over layers knows it, with its keys and values."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "mlp_norm")),
        *((name, Linear) for name in ("qkv", "out", "mlp_in", "mlp_out")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


class _Model(ctypes.Structure):
    """All of a model but its embeddings and output."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("layers", "cosines", "sines")),
        *((name, ctypes.c_long) for name in ("n_layers", "width", "n_heads", "n_kv_heads")),
        *((name, ctypes.c_long) for name in ("size", "capacity")),
        ("eps", ctypes.c_float),
    )


class Llama:
    """A model of this family over a :class:`SlotCache`; its weights are packed, which copies them.

    ``max_tokens`` is how many positions the tables of rotations have, ``packing`` how it is done.
    """

    any_shape = True

    def __init__(self, model: Any, max_tokens: int, packing: Packing | None = None) -> None:
        self.model = model
        packed = packing or Packing()
        core, config = model.model, model.config
        self._size = core.layers[0].self_attn.head_dim
        self._n_heads = config.num_attention_heads
        self._n_kv_heads = config.num_key_value_heads
        self._eps = config.rms_norm_eps
        cos, sin = core.rotary_emb(torch.zeros(1), torch.arange(max(max_tokens, 8))[None])
        half = self._size // 2  # both halves are alike
        self._cos, self._sin = (x[0, :, :half].contiguous() for x in (cos, sin))
        self._parts = [
            (
                layer.input_layernorm.weight.detach().float(),
                layer.post_attention_layernorm.weight.detach().float(),
                packed(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                packed(layer.self_attn.o_proj),
                packed(layer.mlp.gate_proj, layer.mlp.up_proj),
                packed(layer.mlp.down_proj),
            )
            for layer in core.layers
        ]
        self._layers = (_Layer * len(self._parts))(
            *(
                _Layer(norm.data_ptr(), mlp_norm.data_ptr(), *(x.structure() for x in linear))
                for norm, mlp_norm, *linear in self._parts
            )
        )
        self._structure = _Model(
            *(ctypes.addressof(self._layers), self._cos.data_ptr(), self._sin.data_ptr()),
            *(len(self._layers), config.hidden_size, self._n_heads, self._n_kv_heads, self._size),
            eps=self._eps,
        )
        self._cache: weakref.ref[PanelCache] | None = None
        self._norm = core.norm.weight.detach().float()
        self._head = packed(model.lm_head)

    @staticmethod
    def takes(model: Any) -> bool:
        """Whether a model is of this family, whole, and runs in compiled loops."""
        return (
            type(model).__name__ in _NAMES
            and tensor_parallel_size(model) == 1
            and model.config.hidden_act == "silu"
            and all(
                type(module) is torch.nn.Linear
                for name, module in model.named_modules()
                if name.endswith("_proj")
            )
            and runs_compiled(model)
        )

    def hidden(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the last layer's output (N, E)."""
        cache = cast(PanelCache, cache)  # such a model is given no other
        if int(positions.max()) >= len(self._cos):  # the loops look at no bounds
            raise ValueError(f"a position of {len(self._cos)} or more, where the tables end")
        slots, at = cache.announced(len(tokens))
        if self._cache is None or self._cache() is not cache:
            self._use(cache)
        x = self.model.model.embed_tokens(tokens).float()  # (N, E)
        model = ctypes.addressof(self._structure)
        call("run_llama", self.model.dtype, model, x, positions, slots, at, len(x), len(slots))
        cache.calls += len(self._layers)
        return rms_norm(x, self._norm, self._eps)

    def _use(self, cache: PanelCache) -> None:
        for number, layer in enumerate(self._layers):
            keys, values = cache.layer(number, self._n_kv_heads, self._size)
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        self._structure.capacity = cache.capacity
        self._cache = weakref.ref(cache)

    def logits(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the logits (N, V) behind each."""
        return self._head(self.hidden(tokens, positions, cache))
