"""Prompts into the KV cache: a beginning that they have in common is computed once.

All prompts of a recipe begin with its instruction, and the samples of a query have one prompt. What
some slot holds of a prompt is copied to the slot that needs it, and only the rest is computed.

Keys and values of a position depend on the tokens up to it, and in the compiled loops of
``cpu_kernels.py`` on nothing else: there any common beginning is copied, and a call of the model
has the tokens that there are. Elsewhere products and attention round by their shapes. There a call
always has as many tokens, a prompt is cut into parts by a rule that looks at its length alone, and
whole parts are copied. Either way a copy has the bits that computing it again would give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from augesc_builder.engine.cache import Segment, SlotCache
from augesc_builder.engine.models import Network

CALL = 128
"""Prompt tokens in a call of the model, and in a part of a prompt."""

_WORTH = 16
"""Tokens that a prompt waits for until another has them: a call of fewer takes as long as these."""


class Prefill:
    """Stores the keys and values of prompts in the slots of a cache.

    ``filler`` is any token of the model; it fills up calls.
    """

    def __init__(self, network: Network, cache: SlotCache, filler: int) -> None:
        self._network = network
        self._cache = cache
        self._filler = filler
        self._any_shape = network.any_shape
        self._held: list[list[int]] = [[] for _ in range(cache.n_slots)]

    def store(self, prompts: Mapping[int, list[int]]) -> int:
        """Store all tokens that are given for some slots; return how many had to be computed."""
        n_computed = 0
        while prompts:
            now: dict[int, list[int]] = {}
            later: dict[int, list[int]] = {}
            for slot, tokens in prompts.items():
                source, n = self._longest(slot, tokens)
                coming = max((self._common(tokens, other) for other in now.values()), default=0)
                if coming > n and (coming == len(tokens) or coming >= n + _WORTH):
                    later[slot] = tokens
                    continue
                if source != slot:
                    self._cache.copy(source, slot, n)
                self._held[slot] = tokens[:n]
                now[slot] = tokens
            for call in self._calls(now):
                n_computed += self._compute(call)
            for slot, tokens in now.items():
                self._held[slot] = tokens
            prompts = later
        return n_computed

    def forget(self, slots: Iterable[int]) -> None:
        """Copy no more from these slots: what they held was overwritten."""
        for slot in slots:
            self._held[slot] = []

    def _longest(self, slot: int, tokens: list[int]) -> tuple[int, int]:
        """Return the slot that holds most of a prompt's beginning, and how much; itself if none."""
        shared = [self._common(tokens, held) for held in self._held]
        best = max(shared)
        return (slot if shared[slot] == best else shared.index(best)), best

    def _common(self, a: list[int], b: list[int]) -> int:
        """Return how many tokens from the first on may be copied from one prompt to the other."""
        if a == b:
            return len(a)
        n = min(len(a), len(b))
        same = next((i for i in range(n) if a[i] != b[i]), n)
        return same if self._any_shape else same // CALL * CALL

    def _calls(self, prompts: Mapping[int, list[int]]) -> Iterator[list[tuple[Segment, list[int]]]]:
        """Yield what the calls of the model bring: tokens behind those that are held."""
        call: list[tuple[Segment, list[int]]] = []
        room = CALL
        for slot, tokens in prompts.items():
            start = len(self._held[slot])
            while start < len(tokens):
                n = min(CALL, len(tokens) - start)
                if room < (1 if self._any_shape else n):
                    yield call
                    call, room = [], CALL
                segment = Segment(slot, CALL - room, start, min(n, room))
                call.append((segment, tokens[start : segment.end]))
                start, room = segment.end, room - segment.n
        if call:
            yield call

    def _compute(self, call: list[tuple[Segment, list[int]]]) -> int:
        n = sum(segment.n for segment, _ in call)
        flat = torch.full((n if self._any_shape else CALL,), self._filler)
        positions = torch.zeros_like(flat)
        for segment, tokens in call:
            own = slice(segment.at, segment.at + segment.n)
            flat[own] = torch.tensor(tokens)
            positions[own] = torch.arange(segment.start, segment.end)
        device = self._network.model.device
        self._cache.begin_prefill([segment for segment, _ in call])
        self._network.hidden(flat.to(device), positions.to(device), self._cache)
        return n
