"""A decoding step on CUDA, one token for every slot, as a captured graph.

A step of a large model is some hundreds of small kernels; replayed as one graph they do not wait
for Python. Inputs stay at one place in memory, and so do the logits. One graph serves all lengths
where a kernel reads them from memory; behind a mask there is one for each bucket of lengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augesc_builder.engine.cache import SlotCache, kernel_on
from augesc_builder.engine.models import Network
from augesc_builder.engine.tensor_parallel import tensor_parallel_size

BUCKET = 128
"""Positions by which the buckets differ."""

_WARM_UP = 3


class CudaGraphDecoder:
    """Decodes a token a slot over a cache at its full size: graphs know its address for good.

    Nothing is captured where the layers are spread over several devices or sharded over processes.
    """

    def __init__(self, network: Network, cache: SlotCache, device: torch.device) -> None:
        self._network, self._cache = network, cache
        self._captures = device.type == "cuda" and not (
            _is_spread(network) or tensor_parallel_size(network.model) > 1
        )
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._tokens = torch.zeros(cache.n_slots, dtype=torch.long, device=device)
        self._positions = torch.zeros_like(self._tokens)
        cache.reserve(cache.limit)

    def __call__(self, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Run a token for every slot (S,); return the logits (S, V), valid until the next step."""
        self._tokens.copy_(tokens)
        self._positions.copy_(positions)
        width = self._cache.capacity
        if kernel_on(tokens.device.type) is None:
            width = min(-(-longest // BUCKET) * BUCKET, width)
        if not self._captures:
            return self._run(width)
        if width not in self._graphs:
            self._graphs[width] = self._capture(width)
        graph, logits = self._graphs[width]
        graph.replay()
        return logits

    def _run(self, width: int) -> Tensor:
        self._cache.begin_captured_step(self._positions, width)
        return self._network.logits(self._tokens, self._positions, self._cache)

    def _capture(self, width: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):  # writes the same keys to the same places each time
                self._run(width)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next(iter(self._graphs.values()))[0].pool() if self._graphs else None
        with torch.cuda.graph(graph, pool=pool):
            logits = self._run(width)
        return graph, logits


def _is_spread(network: Network) -> bool:
    """Whether the layers stand on several devices, which cannot be captured."""
    return len(set((getattr(network.model, "hf_device_map", None) or {}).values())) > 1
