"""Which models the engine takes, and how it runs them.

A model of ``transformers`` whose attention takes a cache object and goes through the library's
attention interface is given one over the :class:`SlotCache`; GPT-J has a path of its own. Before
the first prompt both are compared with the model's own forward pass.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache

from augesc_builder.engine.cache import Segment, SlotCache
from augesc_builder.engine.cpu_kernels import runs_compiled
from augesc_builder.engine.gptj import GPTJ
from augesc_builder.engine.linear import Packing
from augesc_builder.engine.llama import Llama
from augesc_builder.engine.memory import is_out_of_memory
from augesc_builder.engine.panel_cache import cache_of
from augesc_builder.errors import CheckpointError

_HINT = "; use static batching: --set generate.backend.engine=static"
_NAMES = itertools.count()
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1, torch.int8: 0.1}
"""Largest difference of logits, as a share of their range."""


PACKED = {"gptj", "llama", "mistral", "qwen2"}
"""Types of models, as their configs name them, that run in compiled loops on CPU."""

_N_CHECKED = 7
"""Tokens in each of two texts that are compared."""


class Network(Protocol):
    """A causal language model over a :class:`SlotCache`; tokens come as one flat list.

    With ``any_shape`` a token's numbers do not depend on how many others the call brings.
    """

    model: Any
    any_shape: bool

    def hidden(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Store keys and values of new tokens (N,); what is returned (N, E) is not used."""

    def logits(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the logits (N, V) behind each."""


class Family:
    """Any family whose attention goes through ``transformers``' attention interface."""

    any_shape = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self._cache: SlotCache | None = None
        name = f"augesc_slots_{next(_NAMES)}"
        AttentionInterface.register(name, self._attend)
        self._name = name

    def hidden(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the last layer's output (N, E)."""
        return self._run(self.model.base_model, tokens, positions, cache)[0][0]  # type: ignore[no-any-return]

    def logits(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Run new tokens (N,) at their positions; return the logits (N, V) behind each."""
        return self._run(self.model, tokens, positions, cache).logits[0]  # type: ignore[no-any-return]

    def _run(self, part: Any, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Any:
        before = self.model.config._attn_implementation
        self._cache = cache
        self.model.set_attn_implementation(self._name)
        try:
            return part(
                input_ids=tokens[None],
                position_ids=positions[None],
                past_key_values=_PassThrough(),
                use_cache=True,
            )
        finally:
            self.model.set_attn_implementation(before)

    def _attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, _: Any, **given: Any
    ) -> tuple[Tensor, None]:
        """Attend with (1, H, N, D); the interface wants (1, N, H, D) back."""
        if given.get("softcap") is not None or given.get("s_aux") is not None:
            raise CheckpointError(
                f"{_name(self.model)}: its attention has a soft cap or sinks, which this engine "
                f"lacks{_HINT}"
            )
        scale = given.get("scaling") or query.shape[-1] ** -0.5
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return self._cache.attend(module.layer_idx, q, k, v, scale)[None], None  # type: ignore[union-attr]


class _PassThrough(Cache):  # type: ignore[misc]
    """A cache that returns keys and values as they are: the attention stores them itself."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(self, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key, value

    def get_seq_length(self, *_: Any) -> int:
        return 0


def network_of(
    model: Any,
    max_tokens: int,
    *,
    bfloat16_head: bool = False,
    weights: torch.dtype | None = None,
    owns_model: bool = False,
) -> Network:
    """Return the form of a model that runs over a :class:`SlotCache`.

    Products are of ``weights`` where that is given, ``torch.int8`` and no other. A network that
    ``owns_model`` frees what it does not need of it, as it goes.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it has none, where its logits are
    not the model's own, or where there are no compiled loops for 8-bit weights.
    """
    config = model.config.get_text_config()
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    if left := sorted({"cpu", "disk"} & places) if len(places) > 1 else []:
        raise CheckpointError(
            f"{_name(model)}: it does not fit on the GPUs, and some layers are left on "
            f"{' and '.join(left)}; use more GPUs or a smaller generate.backend.dtype{_HINT}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) and window and window < max_tokens:
        raise CheckpointError(
            f"{_name(model)}: attends to {window} tokens at most, and generate.max_tokens is "
            f"{max_tokens}; lower it, or use static batching: --set generate.backend.engine=static"
        )
    if str(rope.get("rope_type")) in {"dynamic", "longrope"}:
        raise CheckpointError(
            f"{_name(model)}: its positions depend on the longest text of a batch{_HINT}"
        )
    is_gptj = type(model).__name__ == "GPTJForCausalLM"
    if weights is not None and not (runs_compiled(model) and (is_gptj or Llama.takes(model))):
        raise CheckpointError(
            f"{_name(model)}, {model.dtype} on {model.device.type}: generate.backend.weights is "
            f"for {', '.join(sorted(PACKED))} on CPU, in float32 or bfloat16, on machines with a "
            f"C++ compiler; set it to null"
        )
    try:
        theirs = _logits_of(model, config)
        packing = Packing(weights, owns_model, model.get_input_embeddings().weight)
        network: Network
        if is_gptj:
            network = GPTJ(model, packing, bfloat16_head=bfloat16_head)
        elif bfloat16_head:
            raise CheckpointError(
                f"{_name(model)}: generate.backend.bfloat16_head is for GPT-J only; set it to false"
            )
        elif Llama.takes(model):
            network = Llama(model, max_tokens, packing)
        else:
            network = Family(model)
        _check(
            network, config, theirs, weights or (torch.bfloat16 if bfloat16_head else model.dtype)
        )
    except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{_name(model)}: not a model for this engine ({type(error).__name__}){_HINT}"
        ) from error
    return network


def _checked_tokens(model: Any, config: Any) -> Tensor:
    """Return two texts, one behind the other."""
    tokens: Tensor = torch.arange(2 * _N_CHECKED, device=model.device) * 37 % config.vocab_size
    return tokens


@torch.inference_mode()
def _logits_of(model: Any, config: Any) -> Tensor:
    """Return what the model itself says behind two texts (2, V), while it has all its weights."""
    texts = _checked_tokens(model, config).view(2, -1)
    return torch.stack([model(input_ids=text[None]).logits[0, -1] for text in texts]).float()


@torch.inference_mode()
def _check(network: Network, config: Any, theirs: Tensor, dtype: torch.dtype) -> None:
    """Compare with the model's own forward pass, for two texts: prefill, then a decoding step."""
    model, n = network.model, _N_CHECKED
    device, tokens = model.device, _checked_tokens(model, config)
    cache = cache_of(model, 2, n)
    before = torch.tensor([*range(n - 1), *range(n - 1)], device=device)
    rest = torch.tensor([n - 1, 2 * n - 1], device=device)
    cache.begin_prefill([Segment(0, 0, 0, n - 1), Segment(1, n - 1, 0, n - 1)])
    heads = torch.cat([tokens[: n - 1], tokens[n : 2 * n - 1]])
    network.hidden(heads, before, cache)
    if cache.calls != config.num_hidden_layers:
        raise CheckpointError(
            f"{_name(model)}: its attention does not go through the library's interface{_HINT}"
        )
    last = torch.full_like(rest, n - 1)
    if device.type == "cuda":
        cache.begin_captured_step(last, n)
    else:
        cache.begin_step([Segment(0, 0, n - 1, 1), Segment(1, 1, n - 1, 1)], device)
    ours = network.logits(tokens[rest], last, cache).to(theirs.device)
    if not bool(theirs.isfinite().all()):
        return  # rows with non-finite logits will be stopped and named as they come
    span = (theirs.amax() - theirs.amin()).clamp(min=1e-3)
    off = float((ours.float() - theirs).abs().amax() / span)
    if not off <= _TOLERANCE.get(dtype, 1e-3):
        raise CheckpointError(
            f"{_name(model)}: this engine's logits differ from the model's own by "
            f"{off:.1%} of their range{_HINT}"
        )


def _name(model: Any) -> str:
    return type(model).__name__
