"""The KV cache of compiled loops: room for all positions at once, in the order it is read in.

A token attends to the keys of its slot up to its own, whether it came with a prompt or alone, so a
call of the model is a list of tokens with a slot and a position each. Memory that nothing was
written to costs nothing: slots take their whole room at once, and nothing is copied as they grow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from augesc_builder.engine.cache import Segment, SlotCache
from augesc_builder.engine.cpu_kernels import LANES, call, large_pages, runs_compiled


def cache_of(model: Any, n_slots: int, limit: int) -> SlotCache:
    """Return the cache that fits where a model runs."""
    if runs_compiled(model):
        return PanelCache(n_slots, limit, model.dtype)
    return SlotCache(n_slots, limit)


class PanelCache(SlotCache):
    """A KV cache of ``n_slots`` slots with ``limit`` positions each, in ``dtype``."""

    def __init__(self, n_slots: int, limit: int, dtype: torch.dtype) -> None:
        super().__init__(n_slots, limit)
        self.capacity = -(-limit // LANES) * LANES
        self._dtype = dtype
        self._slots = self._positions = torch.zeros(0, dtype=torch.long)

    def begin_prefill(self, segments: list[Segment]) -> None:
        """Announce a call of the model that brings runs of prompt tokens."""
        self.calls = 0
        n = max(segment.at + segment.n for segment in segments)
        self._slots, self._positions = torch.full((n,), -1), torch.zeros(n, dtype=torch.long)
        for segment in segments:
            own = slice(segment.at, segment.at + segment.n)
            self._slots[own] = segment.slot
            self._positions[own] = torch.arange(segment.start, segment.end)

    def begin_step(self, segments: list[Segment], device: torch.device) -> None:
        """Announce a call of the model that brings one token for each segment."""
        self.begin_prefill(segments)

    def begin_captured_step(self, positions: Tensor, width: int) -> None:
        """Announce a call that brings one token for every slot, at ``positions`` (S,)."""
        self.calls = 0
        self._slots, self._positions = torch.arange(self.n_slots), positions

    def copy(self, source: int, slot: int, n: int) -> None:
        """Copy the keys and values of a slot's first ``n`` positions to another slot."""
        for stored in (self._keys, self._values):
            for tensor in stored.values():
                # The last panel or pair whole: what is too much there is never looked at.
                parts = -(-n * tensor.shape[2] // self.capacity)
                tensor[slot, :, :parts] = tensor[source, :, :parts]

    def clear(self, slot: int) -> None:
        """Do nothing: a slot's next row reads no number that it has not written."""

    def announced(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the slots (M,) and positions (M,) of a call's first tokens, of ``n`` in all.

        Raises ``ValueError`` for a call that was not announced so: the loops look at no bounds.
        """
        if n < len(self._slots) or int(self._positions.max()) >= self.capacity:
            raise ValueError(
                f"{n} tokens for a call announced with {len(self._slots)}, of positions below "
                f"{self.capacity}"
            )
        return self._slots, self._positions

    def layer(self, number: int, heads: int, size: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a layer, made when they are first asked for."""
        if number not in self._keys:
            n, room, pair = self.n_slots, self.capacity, 2 if self._dtype == torch.bfloat16 else 1
            keys = (n, heads, room // LANES, size // pair, LANES, pair)
            values = (n, heads, room // pair, size, pair)
            self._keys[number] = large_pages(torch.empty(keys, dtype=self._dtype))
            self._values[number] = large_pages(torch.empty(values, dtype=self._dtype))
        return self._keys[number], self._values[number]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store new keys and values (N, Hkv, D); return what ``query`` (N, H, D) attends to."""
        self.calls += 1
        size = key.shape[2]
        if size % 2 and self._dtype == torch.bfloat16:  # its numbers stand in pairs
            query, key, value = (pad(x, (0, 1)) for x in (query, key, value))
            return self._attend(layer, query, key, value, scale)[..., :size]
        return self._attend(layer, query, key, value, scale)

    def _attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        heads, size = key.shape[1:]
        slots, positions = self.announced(len(query))
        keys, values = self.layer(layer, heads, size)
        q, k, v = (_rows_of_heads(x) for x in (query, key, value))
        # Zeros: nobody fills the rows of tokens in no segment (free slots, padding of a prefill).
        out = q.new_zeros(query.shape)
        call(
            *("attend", self._dtype, q, k, v, keys, values, slots, positions, out),
            *(len(slots), query.shape[1], heads, size),
            *(self.capacity, q.stride(0), k.stride(0), v.stride(0), scale),
        )
        return out.to(query.dtype)


def _rows_of_heads(x: Tensor) -> Tensor:
    """Return float32 (N, H, D) with the heads of a row side by side; rows may be apart."""
    x = x.float()
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
