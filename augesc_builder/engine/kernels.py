"""Attention of a decoding step on CUDA: a new token of every slot, in one Triton kernel.

A mask over slots of different lengths reads all keys up to the longest, and decoding takes as long
as reading takes. Here each slot and head is a program of its own that reads its own keys and no
others, so that neither cost nor rounding depends on the neighbours. Triton comes with the CUDA
builds of PyTorch; without it the cache attends behind a mask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 8192
"""Numbers of a tile of keys. Not tuned on the machine at hand: tuning by time would change the
order of sums, and with it rows, from one run to the next."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    scale: float,
) -> Tensor:
    """Store each slot's new key and value (S, Hkv, D) at its position (S,), and attend to all.

    ``query`` is (S, H, D), ``keys`` and ``values`` are (S, Hkv, capacity, D). Returns (S, H, D).
    """
    n_slots, n_heads, size = query.shape
    out = torch.empty((n_slots, n_heads, size), dtype=query.dtype, device=query.device)
    query, key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (query, key, value))
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        _attend[(n_slots, n_heads)](
            query,
            key,
            value,
            keys,
            values,
            positions,
            out,
            scale,
            keys.stride(1),
            *query.stride()[:2],
            *key.stride()[:2],
            *value.stride()[:2],
            HEADS=keys.shape[1],
            SHARE=n_heads // keys.shape[1],
            SIZE=size,
            **tile(size),
            enable_fp_fusion=True,
        )
    return out


def tile(size: int) -> dict[str, int]:
    """Return how wide and how long the tile of keys is, for heads of a size."""
    padded = triton.next_power_of_2(size)
    return {"PADDED": padded, "BLOCK": max(16, _TILE // padded)}


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    positions: tl.tensor,
    out: tl.tensor,
    scale: tl.tensor,
    room: tl.tensor,  # numbers of a slot and head in the cache
    query_slot: tl.tensor,
    query_head: tl.tensor,
    key_slot: tl.tensor,
    key_head: tl.tensor,
    value_slot: tl.tensor,
    value_head: tl.tensor,
    HEADS: tl.constexpr,
    SHARE: tl.constexpr,  # query heads to a head of keys
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Softmax over blocks of keys as they come: largest score, sum and mean are carried along."""
    slot, head = tl.program_id(0), tl.program_id(1)
    of = head // SHARE
    position = tl.load(positions + slot)
    d = tl.arange(0, PADDED)
    real = d < SIZE
    q = tl.load(query + slot * query_slot + head * query_head + d, mask=real, other=0.0)
    q = q.to(tl.float32) * scale
    new_key = tl.load(key + slot * key_slot + of * key_head + d, mask=real, other=0.0)
    new_value = tl.load(value + slot * value_slot + of * value_head + d, mask=real, other=0.0)
    stored = (slot * HEADS + of).to(tl.int64) * room
    if head % SHARE == 0:
        tl.store(keys + stored + position * SIZE + d, new_key, mask=real)
        tl.store(values + stored + position * SIZE + d, new_value, mask=real)
    # The new token attends to itself first, so that no softmax is ever empty.
    largest = tl.sum(q * new_key.to(tl.float32), 0)
    total = 1.0
    mean = new_value.to(tl.float32)
    for start in range(0, position, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = (at < position)[:, None] & real[None, :]
        where = stored + at[:, None] * SIZE + d[None, :]
        k = tl.load(keys + where, mask=inside, other=0.0)  # (BLOCK, PADDED)
        v = tl.load(values + where, mask=inside, other=0.0)
        scores = tl.sum(k.to(tl.float32) * q[None, :], 1)
        scores = tl.where(at < position, scores, -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        fade = tl.exp(largest - larger)
        shares = tl.exp(scores - larger)
        total = total * fade + tl.sum(shares, 0)
        mean = mean * fade + tl.sum(shares[:, None] * v.to(tl.float32), 0)
        largest = larger
    result = (mean / total).to(out.dtype.element_ty)
    tl.store(out + (slot * HEADS * SHARE + head) * SIZE + d, result, mask=real)
