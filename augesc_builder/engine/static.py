"""Static batching: a batch of prompts is decoded until the last of them ends.

Works with any causal language model of ``transformers``. Rows that have ended leave the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from augesc_builder.engine import Continuation, FinishReason, OnStep, Prompt, Sampling
from augesc_builder.engine.sampling import sample_tokens, uniforms


class StaticBatchingEngine:
    """Decodes ``batch_size`` prompts at a time, by static batching."""

    def __init__(self, model: Any, eos_token_id: int, sampling: Sampling, batch_size: int) -> None:
        self.model = model.eval()
        self.eos_token_id = eos_token_id
        self.sampling = sampling
        self.batch_size = batch_size
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    def stream(
        self, prompts: Iterable[Prompt | None], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield ``(number of the prompt, continuation)`` as rows end.

        A batch ends before a ``None``: the next prompt depends on a row that has not been yielded.
        """
        for batch in self._batches(prompts):
            fits = []
            for number, prompt in batch:
                if len(prompt.token_ids) < self._limit(prompt):
                    fits.append((number, prompt))
                    continue
                on_step(1, 0)
                yield number, Continuation((), "prompt_too_long")
            if fits:
                for row, result in self._batch([prompt for _, prompt in fits], on_step):
                    yield fits[row][0], result

    def _batches(self, prompts: Iterable[Prompt | None]) -> Iterator[list[tuple[int, Prompt]]]:
        batch: list[tuple[int, Prompt]] = []
        for number, prompt in enumerate(prompts):
            if prompt is not None:
                batch.append((number, prompt))
            if batch and (prompt is None or len(batch) == self.batch_size):
                yield batch
                batch = []
        if batch:
            yield batch

    def _limit(self, prompt: Prompt) -> int:
        return min(self.sampling.max_tokens, prompt.limit or self.sampling.max_tokens)

    @torch.inference_mode()
    def _batch(
        self, prompts: Sequence[Prompt], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Decode one batch; yield ``(row, continuation)`` as rows end."""
        device, limits = self.model.device, [self._limit(prompt) for prompt in prompts]
        limit = max(limits)
        lengths = [len(prompt.token_ids) for prompt in prompts]
        width = max(lengths)
        tokens = torch.full((len(prompts), width), self.eos_token_id)  # (B, T)
        mask = torch.zeros_like(tokens)  # (B, T)
        for row, prompt in enumerate(prompts):
            ids = torch.tensor(prompt.token_ids)
            tokens[row, width - len(ids) :] = ids
            mask[row, width - len(ids) :] = 1
        draws = torch.stack([uniforms(p.stream, limit) for p in prompts])  # (B, max_tokens)
        tokens, mask, draws = (x.to(device) for x in (tokens, mask, draws))
        seen = None
        cache = DynamicCache(config=self.model.config)
        made: list[list[int]] = [[] for _ in prompts]
        live = list(range(len(prompts)))
        for step in range(limit - min(lengths)):
            logits = self._forward(tokens, mask, cache)
            if seen is None:
                seen = _seen(prompts, logits)  # (B, V)
            chosen = sample_tokens(logits, seen, draws[:, step], self.sampling)  # (B,)
            ended: dict[int, FinishReason] = {}
            for place, (row, token) in enumerate(zip(live, chosen.tolist(), strict=True)):
                if token == self.eos_token_id:
                    ended[place] = "eos"
                    continue
                made[row].append(token)
                if token in prompts[row].stops:
                    ended[place] = "eos"
                elif lengths[row] + len(made[row]) >= limits[row]:
                    ended[place] = "length"
            for place, reason in ended.items():
                yield live[place], Continuation(tuple(made[live[place]]), reason)
            on_step(len(ended), len(live))
            seen.scatter_(1, chosen[:, None], value=True)
            tokens, mask = chosen[:, None], torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            if ended:
                kept = [place for place in range(len(live)) if place not in ended]
                if not kept:
                    return
                index = torch.tensor(kept, device=device)
                live = [live[place] for place in kept]
                tokens, mask, seen, draws = (x[index] for x in (tokens, mask, seen, draws))
                cache.batch_select_indices(index)

    def _forward(self, tokens: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Run the new tokens (B, T); return the logits (B, V) behind the last of them."""
        inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
        if self._takes_positions:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -tokens.shape[1] :]
        logits = self.model(**inputs, past_key_values=cache, use_cache=True).logits  # (B, T, V)
        last: Tensor = logits[:, -1]
        return last


def _seen(prompts: Sequence[Prompt], logits: Tensor) -> Tensor:
    """Return which tokens stand in each prompt, (B, V)."""
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, torch.tensor(prompt.token_ids)] = True
    return seen.to(logits.device)
