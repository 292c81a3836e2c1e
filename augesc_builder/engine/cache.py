"""Keys and values of many conversations at once, each with a length of its own.

A slot is a place for one conversation. A step brings new tokens for some slots as one flat list,
cut into segments: so many tokens of this slot, from that position on. No padding is inside it.

On CPU every slot attends to its own keys and to no others, so that neither its cost nor its
rounding depends on its neighbours. On CUDA a kernel does the same for all slots at once
(``kernels.py``); without Triton they attend up to the longest, behind a mask.
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
"""Positions that the cache grows by."""


@dataclass(frozen=True)
class Segment:
    """``n`` tokens of a slot, from position ``start`` on; in the flat list they begin ``at``."""

    slot: int
    at: int
    start: int
    n: int

    @property
    def end(self) -> int:
        """Give the slot's length with these tokens."""
        return self.start + self.n


class SlotCache:
    """Keys and values of ``n_slots`` conversations; it grows in steps up to ``limit`` positions."""

    def __init__(self, n_slots: int, limit: int) -> None:
        self.n_slots = n_slots
        self.limit = limit
        self.capacity = 0
        self.calls = 0
        self._keys: dict[int, Tensor] = {}  # layer: (S, H, capacity, D)
        self._values: dict[int, Tensor] = {}
        self._segments: list[Segment] = []
        self._at: tuple[Tensor, ...] | None = None
        self._together: tuple[Tensor, int] | None = None

    def reserve(self, length: int) -> None:
        """Make room for ``length`` positions in every slot."""
        if length <= self.capacity:
            return
        self.capacity = min(-(-length // GROWTH) * GROWTH, -(-self.limit // 8) * 8)
        for stored in (self._keys, self._values):
            for layer, old in stored.items():
                new = self._empty(old)
                new[:, :, : old.shape[2]] = old
                stored[layer] = new

    def begin_prefill(self, segments: list[Segment]) -> None:
        """Say what the next call of the model brings: runs of tokens."""
        self._begin(segments)

    def begin_step(self, segments: list[Segment], device: torch.device) -> None:
        """Say what the next call of the model brings: one token for each segment."""
        self._begin(segments)
        columns = [[segment.slot, segment.at, segment.start] for segment in segments]
        self._at = torch.tensor(columns, device=device).unbind(1)

    def begin_captured_step(self, positions: Tensor, width: int) -> None:
        """Say that the next call brings one token for every slot, at ``positions`` (S,).

        Where there is no kernel for it, the first ``width`` keys of all slots are looked at.
        """
        self.reserve(width)
        self._together, self.calls = (positions, width), 0

    def clear(self, slot: int) -> None:
        """Overwrite a slot's keys and values: a mask does not hide what is no number."""
        for stored in (self._keys, self._values):
            for tensor in stored.values():
                tensor[slot] = 0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store keys and values of the new tokens (N, Hkv, D); attend with ``query`` (N, H, D)."""
        self.calls += 1
        if layer not in self._keys:
            self._keys[layer], self._values[layer] = self._empty(key), self._empty(value)
        keys, values = self._keys[layer], self._values[layer]
        if self._together is not None:
            positions, width = self._together
            positions = positions.to(query.device)
            if (kernel := kernel_on(query.device.type)) is not None:
                return kernel(query, key, value, keys, values, positions, scale)
            return masked_attention(query, key, value, keys, values, positions, width, scale)
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
        """Attend from one new token of each slot at hand to all that the slot has."""
        slots, at, positions = (x.to(keys.device) for x in self._at)  # type: ignore[union-attr]
        keys[slots, :, positions] = key[at]
        values[slots, :, positions] = value[at]
        grouped = _by_head(query, key.shape[1])
        whole = _by_head(out, key.shape[1])
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
        """Attend from several new tokens of a slot to what it had and to those before them."""
        repeats = query.shape[1] // key.shape[1]
        for segment in self._segments:
            own = slice(segment.at, segment.at + segment.n)
            k, v = keys[segment.slot, :, : segment.end], values[segment.slot, :, : segment.end]
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
        self._segments, self._together, self._at, self.calls = segments, None, None, 0

    def _empty(self, like: Tensor) -> Tensor:
        """Make room; zeros, because what is masked must be a number."""
        heads, size = like.shape[1], like.shape[-1]
        return like.new_zeros(self.n_slots, heads, self.capacity, size)


@cache
def kernel_on(device: str) -> Callable[..., Tensor] | None:
    """Give the kernel for a step of all slots, where there is one for this kind of device.

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
            f"attention goes behind a mask, which is slower: Triton does not work here ({error})",
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
    """Do what the kernel does for the first ``width`` positions of all slots."""
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
    """Put heads that share keys together: (N, H, D) becomes (N, Hkv, H / Hkv, D)."""
    return x.view(x.shape[0], kv_heads, -1, x.shape[-1])


def _causal(segment: Segment, keys: Tensor) -> dict[str, Any]:
    if segment.start == 0:
        return {"is_causal": True}
    mask = torch.ones(segment.n, segment.end, dtype=torch.bool, device=keys.device)
    return {"attn_mask": mask.tril(segment.start)}
