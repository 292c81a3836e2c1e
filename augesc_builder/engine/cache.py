"""The KV cache of continuous batching: a slot for each conversation, with a length of its own.

A call of the model brings new tokens for some slots as one flat list, cut into segments without
padding: so many tokens of this slot, from that position on.

On CPU every slot attends to its own keys and to no others, so that neither its cost nor its
rounding depends on its neighbours. On CUDA a kernel does the same for all slots at once
(``kernels.py``); without Triton they attend behind a mask, up to the longest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

GROWTH = 256
"""Positions that the cache grows by: growing copies all of it, so it is done rarely."""


@dataclass(frozen=True)
class Segment:
    """``n`` tokens of a slot, from position ``start`` on; in the flat list they begin ``at``."""

    slot: int
    at: int
    start: int
    n: int

    @property
    def end(self) -> int:
        """Return the slot's length with these tokens."""
        return self.start + self.n


class SlotCache:
    """A KV cache of ``n_slots`` slots; it grows in steps up to ``limit`` positions.

    Before each call of the model one of the ``begin`` methods says what the call brings; the model
    then calls :meth:`attend` once a layer. ``calls`` counts those, so that a model which bypasses
    the cache is found out.
    """

    def __init__(self, n_slots: int, limit: int) -> None:
        self.n_slots = n_slots
        self.limit = limit
        self.capacity = 0
        self.calls = 0
        self._keys: dict[int, Tensor] = {}  # layer: (S, Hkv, capacity, D)
        self._values: dict[int, Tensor] = {}
        self._segments: list[Segment] = []
        self._at: tuple[Tensor, ...] | None = None
        self._captured: tuple[Tensor, int] | None = None

    def reserve(self, length: int) -> None:
        """Make room for ``length`` positions in every slot."""
        if length <= self.capacity:
            return
        # Hardly beyond the limit: ``memory.py`` counts on so many positions a slot.
        self.capacity = min(-(-length // GROWTH) * GROWTH, -(-self.limit // 8) * 8)
        for stored in (self._keys, self._values):
            for layer, old in stored.items():
                new = self._empty(old)
                new[:, :, : old.shape[2]] = old
                stored[layer] = new

    def begin_prefill(self, segments: list[Segment]) -> None:
        """Announce a call of the model that brings runs of prompt tokens."""
        self._begin(segments)

    def begin_step(self, segments: list[Segment], device: torch.device) -> None:
        """Announce a call of the model that brings one token for each segment."""
        self._begin(segments)
        # Here and not in ``attend``: one copy to the device serves all layers.
        columns = [[segment.slot, segment.at, segment.start] for segment in segments]
        self._at = torch.tensor(columns, device=device).unbind(1)

    def begin_captured_step(self, positions: Tensor, width: int) -> None:
        """Announce a call that brings one token for every slot, at ``positions`` (S,).

        Where there is no kernel for it, the first ``width`` keys of all slots are attended to.
        """
        self.reserve(width)
        self._captured, self.calls = (positions, width), 0

    def copy(self, source: int, slot: int, n: int) -> None:
        """Copy the keys and values of a slot's first ``n`` positions to another slot."""
        for stored in (self._keys, self._values):
            for tensor in stored.values():
                tensor[slot, :, :n] = tensor[source, :, :n]

    def clear(self, slot: int) -> None:
        """Overwrite a slot's keys and values with zeros: a mask hides no non-finite numbers."""
        for stored in (self._keys, self._values):
            for tensor in stored.values():
                tensor[slot] = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store new keys and values (N, Hkv, D); return what ``query`` (N, H, D) attends to."""
        self.calls += 1
        if layer not in self._keys:
            self._keys[layer], self._values[layer] = self._empty(key), self._empty(value)
        keys, values = self._keys[layer], self._values[layer]
        if self._captured is not None:
            positions, width = self._captured
            positions = positions.to(query.device)
            if (kernel := kernel_on(query.device.type)) is not None:
                return kernel(query, key, value, keys, values, positions, scale)
            return masked_attention(query, key, value, keys, values, positions, width, scale)
        # Zeros: nobody fills the rows of tokens in no segment (free slots, padding of a prefill).
        out = query.new_zeros(*query.shape[:2], value.shape[-1])  # (N, H, D)
        attend = self.decode_attention if self._at is not None else self.prefill_attention
        attend(out, query, key, value, keys, values, scale)
        return out

    def decode_attention(
        self,
        out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
    ) -> None:
        """Fill ``out`` for segments of one token each: a token attends to all of its slot."""
        slots, at, positions = (x.to(keys.device) for x in self._at)  # type: ignore[union-attr]
        keys[slots, :, positions] = key[at]
        values[slots, :, positions] = value[at]
        # Heads that share keys take the axis of queries, one long here: no key is repeated.
        grouped = _by_head(query, key.shape[1])
        whole = _by_head(out, key.shape[1])
        # One call for all would read up to the longest slot, and round by the batch's shape.
        for segment in self._segments:
            slot, own = slice(segment.slot, segment.slot + 1), slice(segment.at, segment.at + 1)
            whole[own] = scaled_dot_product_attention(
                grouped[own],
                keys[slot, :, : segment.end],
                values[slot, :, : segment.end],
                scale=scale,
            )

    def prefill_attention(
        self,
        out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        scale: float,
    ) -> None:
        """Fill ``out`` for segments of many tokens: each attends to those before it in its slot."""
        repeats = query.shape[1] // key.shape[1]
        for segment in self._segments:
            own = slice(segment.at, segment.at + segment.n)
            k, v = keys[segment.slot, :, : segment.end], values[segment.slot, :, : segment.end]
            # Both are views, so this stores in the cache; copies for shared heads come after it.
            k[:, segment.start :] = key[own].transpose(0, 1)
            v[:, segment.start :] = value[own].transpose(0, 1)
            if repeats > 1:
                k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
            attended = scaled_dot_product_attention(
                query[own].transpose(0, 1)[None],
                k[None],
                v[None],
                scale=scale,
                **_causal(segment, k),
            )
            out[own] = attended[0].transpose(0, 1)

    def _begin(self, segments: list[Segment]) -> None:
        self.reserve(max(segment.end for segment in segments))
        self._segments, self._captured, self._at, self.calls = segments, None, None, 0

    def _empty(self, like: Tensor) -> Tensor:
        """Make room; zeros, because what is masked must be finite."""
        heads, size = like.shape[1], like.shape[-1]
        return like.new_zeros(self.n_slots, heads, self.capacity, size)


@cache
def kernel_on(device: str) -> Callable[..., Tensor] | None:
    """Return the kernel for a step of all slots, or ``None`` where this kind of device has none.

    It is tried first: to build a kernel Triton wants a C compiler, which not every machine has.
    """
    if device != "cuda":
        return None
    try:
        from augesc_builder.engine import kernels

        some = torch.zeros(1, 1, 16, device=device)
        room = torch.zeros(1, 1, 16, 16, device=device)
        kernels.attend(some, some, some, room, room, some[0, 0, :1].long(), 1.0)
    except Exception as error:
        warnings.warn(
            f"decoding attends behind a mask, which is slower: Triton does not work here ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels.attend


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    width: int,
    scale: float,
) -> Tensor:
    """Return what the kernel does, (S, H, D), from the first ``width`` positions of all slots."""
    slots = torch.arange(len(positions), device=query.device)
    keys[slots, :, positions] = key
    values[slots, :, positions] = value
    mask = torch.arange(width, device=query.device) <= positions[:, None]  # (S, width)
    out = scaled_dot_product_attention(
        _by_head(query, key.shape[1]),
        keys[:, :, :width],
        values[:, :, :width],
        attn_mask=mask[:, None, None],
        scale=scale,
    )
    return out.flatten(1, 2)


def _by_head(x: Tensor, kv_heads: int) -> Tensor:
    """Return heads that share keys side by side: (N, H, D) becomes (N, Hkv, H / Hkv, D)."""
    return x.view(x.shape[0], kv_heads, -1, x.shape[-1])


def _causal(segment: Segment, keys: Tensor) -> dict[str, Any]:
    # ``is_causal`` counts queries from the first key: right only where none stood there before.
    if segment.start == 0:
        return {"is_causal": True}
    mask = torch.ones(segment.n, segment.end, dtype=torch.bool, device=keys.device)
    return {"attn_mask": mask.tril(segment.start)}
