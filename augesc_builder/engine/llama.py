"""Llama, Mistral and Qwen2 in compiled loops on CPU.

The same arithmetic in few operations: one product for query, key and value, one for both halves of
the gated layer, tables of rotations that are made once. All of it is float32 but for weights, keys
and values, which are the model's own type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augesc_builder.engine.cache import SlotCache
from augesc_builder.engine.cpu_kernels import gate, rms_norm, rotate_, runs_compiled
from augesc_builder.engine.linear import Packing
from augesc_builder.engine.tensor_parallel import tensor_parallel_size

_NAMES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}


class Llama:
    """A model of this family over a :class:`SlotCache`; its weights are packed, which copies them.

    ``max_tokens`` is how many positions the tables of rotations have, ``packing`` how it is done.
    """

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
        self._layers = [
            (
                layer.input_layernorm.weight.detach().float(),
                packed(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                packed(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight.detach().float(),
                packed(layer.mlp.gate_proj, layer.mlp.up_proj),
                packed(layer.mlp.down_proj),
            )
            for layer in core.layers
        ]
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
        if int(positions.max()) >= len(self._cos):  # the loop that rotates looks at no bounds
            raise ValueError(f"a position of {len(self._cos)} or more, where the tables end")
        x = self.model.model.embed_tokens(tokens).float()  # (N, E)
        n_turned = self._n_heads + self._n_kv_heads
        for number, (norm, qkv, out, mlp_norm, mlp_in, mlp_out) in enumerate(self._layers):
            states = qkv(rms_norm(x, norm, self._eps)).view(len(x), -1, self._size)  # (N, H', D)
            rotate_(states[:, :n_turned], self._cos, self._sin, positions)
            query, key, value = (
                states[:, : self._n_heads],
                states[:, self._n_heads : n_turned],
                states[:, n_turned:],
            )
            attended = cache.attend(number, query, key, value, self._size**-0.5)
            out(attended.flatten(1), x)
            mlp_out(gate(mlp_in(rms_norm(x, mlp_norm, self._eps))), x)
        return rms_norm(x, self._norm, self._eps)

    def logits(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the logits (N, V) behind each."""
        return self._head(self.hidden(tokens, positions, cache))
