"""How many slots of the KV cache fit in memory, and which errors mean out of memory.

A slot takes keys and values of ``max_tokens`` positions in every layer, and some rows of the
vocabulary while a token is chosen::

    bytes = 2 * layers * key_value_heads * head_size * max_tokens * bytes_of(dtype)
          + 24 * vocabulary
    slots = share * (free memory of a process - weights) / bytes

with a share of 0.85 on CUDA and of 0.5 on CPU; at most 128 and 16 slots, and at least one. On CPU
weights are laid out anew, and freed one layer after another: for a moment a layer, or the output
layer, is there twice, and is counted so. 8-bit weights are made of those in ``dtype``, which have
to be loaded first.
Processes share the main memory, or the GPU that they have in common; a model whose layers are
spread over several GPUs has the memory of all of them. Under tensor parallelism each process has
its shard of weights, keys and values.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import torch

MOST = {"cuda": 128, "cpu": 16}
"""Slots beyond which more were not found to pay (``benchmarks/generation.py``)."""

_SHARE = {"cuda": 0.85, "cpu": 0.5}
_BYTES_A_LOGIT = 24
"""Logits and probabilities in float32, what is copied of them, and float64 where all are sorted."""


def bytes_per_slot(
    config: Any, dtype: torch.dtype, max_tokens: int, tensor_parallel: int = 1
) -> int:
    """Return the bytes that a slot takes in each of ``tensor_parallel`` processes."""
    config = config.get_text_config()
    n_heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    keys_and_values = 2 * config.num_hidden_layers * kv_heads * size * max_tokens
    kv_bytes = keys_and_values * dtype.itemsize / tensor_parallel
    return int(kv_bytes + _BYTES_A_LOGIT * config.vocab_size)  # logits are whole in each process


def bytes_of_weights(shapes: Any, dtype: torch.dtype) -> int:
    """Return the most bytes that a model's weights take while it is loaded, or later.

    ``shapes`` is the model without its numbers, on the device ``meta``.
    """
    n: int = sum(weight.numel() for weight in shapes.parameters())
    if not torch.cuda.is_available():
        head = shapes.get_output_embeddings().weight
        table = shapes.get_input_embeddings().weight
        apart = {id(weight): weight.numel() for weight in (head, table)}
        layer = (n - sum(apart.values())) // shapes.config.get_text_config().num_hidden_layers
        n += max(layer, head.numel())
    return n * dtype.itemsize


def room_for_slots(
    config: Any,
    dtype: torch.dtype,
    max_tokens: int,
    *,
    weights: int,
    n_processes: int = 1,
    spread: bool = False,
    tensor_parallel: int = 1,
) -> float:
    """Return how many slots would take all memory that is free now, before the model is loaded.

    ``weights`` are the model's :func:`bytes_of_weights`; each of ``n_processes`` loads a model of
    its own, which stands on one GPU or is ``spread`` over all; with ``tensor_parallel`` above 1
    they shard one.
    """
    left = _free(n_processes, spread=spread) - weights / tensor_parallel
    return left / bytes_per_slot(config, dtype, max_tokens, tensor_parallel)


def slots_that_fit(room: float) -> int:
    """Return the number of slots to use where there is :func:`room_for_slots` for so many."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return max(1, min(int(_SHARE[kind] * room), MOST[kind]))


def _free(n_processes: int, *, spread: bool) -> float:
    """Return the bytes that a process may take."""
    if not torch.cuda.is_available():
        return available_memory() / n_processes
    free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
    if spread:
        return sum(free) / n_processes
    return min(free) / math.ceil(n_processes / len(free))


def available_memory() -> int:
    """Return the bytes of main memory that a program may still take, about."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return 1024 * int(re.search(r"MemAvailable:\s+(\d+)", text).group(1))  # type: ignore[union-attr]
    except (OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
