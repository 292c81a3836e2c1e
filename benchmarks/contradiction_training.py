"""Train a classifier of pairs in the time there is, on one core of a processor.

``augesc train`` keeps weights in float32 and casts them for each part of a batch, which takes half
of the time here; so the model computes in bfloat16 throughout, beside float32 weights that take
the steps. Batches are of pairs of about one length, so that little is padded. The upper layers,
which choose words, may be cut off; the lower ones, and what embeds, stay as they are. The learning
rate falls to nothing over the minutes, or over the pairs, whatever ends first: what it trained on
depends on the machine, and is said.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augesc_builder.errors import CheckpointError
from augesc_builder.models.sequence_classifier import (
    encode,
    freeze_below,
    load_to_train,
    padded,
)
from benchmarks.contradiction_pairs import LABELS, Example

_WINDOW, _LOGGED = 24, 20
"""Batches among whose pairs those of a length are found, and steps between two lines."""


@dataclass(frozen=True)
class Plan:
    """How long, and how, to train."""

    minutes: float
    layers: int | None = None
    """Lower ones that are kept; ``None``: all."""
    trainable_layers: int = 12
    learning_rate: float = 1e-4
    warmup: float = 0.05
    batch_size: int = 64
    max_tokens: int = 96
    weight_decay: float = 0.01
    validations: int = 6
    seed: int = 13


@dataclass(frozen=True)
class Trained:
    """What came of it."""

    pairs: int
    minutes: float
    validation_loss: float


def train(
    start: Path, pairs: Sequence[Example], validation: Sequence[Example], out: Path, plan: Plan
) -> Trained:
    """Train on pairs in their order, write the model of the least validation loss to ``out``."""
    model, tokenizer = load_to_train(str(start), None, None, LABELS, plan.seed)
    if plan.layers is not None:
        _cut(model, plan.layers)
    freeze_below(model, plan.trainable_layers)
    tokenizer.model_max_length = plan.max_tokens
    model.config.use_cache = False
    model.to(torch.bfloat16).train()
    steps = _Steps(model, plan)
    told = [_encoded(tokenizer, pair, plan.max_tokens) for pair in validation]
    told.sort(key=lambda each: len(each[0]["input_ids"]))
    begun, done, best, since = time.monotonic(), 0, float("inf"), 0.0
    n_steps = -(-len(pairs) // plan.batch_size)
    for step, batch in enumerate(_batches(tokenizer, pairs, plan), 1):
        share = max((time.monotonic() - begun) / 60 / plan.minutes, (step - 1) / n_steps)
        if share < 1:
            loss = steps.take(_loss(model, tokenizer, batch), share)
            done += len(batch)
            if step % _LOGGED == 0:
                print(f"  {done:,} pairs, {share:.0%}: loss {loss:.3f}", flush=True)
        over = share >= 1 or step == n_steps
        if over or share - since >= 1 / plan.validations:
            since, loss = share, _mean_loss(model, tokenizer, told, plan.batch_size)
            print(f"  {done:,} pairs, {share:.0%}: validation loss {loss:.3f}", flush=True)
            if loss < best:
                best = loss
                _write(model, tokenizer, steps, out)
        if over:
            break
    return Trained(done, (time.monotonic() - begun) / 60, best)


def _cut(model: Any, n: int) -> None:
    """Leave the lower layers of a model."""
    body = model.base_model
    layers = getattr(body, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or not 0 < n <= len(layers):
        raise CheckpointError(f"{model.name_or_path}: has no {n} layers to keep")
    body.layers = layers[:n]
    model.config.num_hidden_layers = n
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:n]


_Told = tuple[dict[str, list[int]], int]


def _encoded(tokenizer: Any, pair: Example, longest: int) -> _Told:
    return encode(tokenizer, pair.first, pair.second, longest), LABELS.index(pair.label)


def _batches(tokenizer: Any, pairs: Sequence[Example], plan: Plan) -> Iterator[list[_Told]]:
    """Yield batches of pairs of about one length, in an order of their own."""
    rng = random.Random(plan.seed)
    size = _WINDOW * plan.batch_size
    for first in range(0, len(pairs), size):
        window = [_encoded(tokenizer, p, plan.max_tokens) for p in pairs[first : first + size]]
        window.sort(key=lambda each: len(each[0]["input_ids"]))
        starts = list(range(0, len(window), plan.batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield window[start : start + plan.batch_size]


def _loss(model: Any, tokenizer: Any, batch: Sequence[_Told]) -> torch.Tensor:
    inputs = padded(tokenizer, [features for features, _ in batch])
    logits = model(**inputs).logits.float()  # (B, labels)
    return torch.nn.functional.cross_entropy(logits, torch.tensor([label for _, label in batch]))


@torch.no_grad()
def _mean_loss(model: Any, tokenizer: Any, told: Sequence[_Told], size: int) -> float:
    model.eval()
    batches = [told[i : i + size] for i in range(0, len(told), size)]
    total = sum(len(b) * float(_loss(model, tokenizer, b)) for b in batches)
    model.train()
    return total / max(1, len(told))


class _Steps:
    """Steps of AdamW on float32 copies of what is trained: bfloat16 would round them away."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self._plan = plan
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.copies = {n: p.detach().float().clone() for n, p in self.trained.items()}
        self._optimizer = torch.optim.AdamW(
            self.copies.values(), lr=0.0, weight_decay=plan.weight_decay, fused=True
        )

    def take(self, loss: torch.Tensor, share: float) -> float:
        """Take one step where a share of the training is done; return the loss."""
        loss.backward()  # type: ignore[no-untyped-call]
        for name, weights in self.trained.items():
            self.copies[name].grad = weights.grad.float() if weights.grad is not None else None
            weights.grad = None
        torch.nn.utils.clip_grad_norm_(self.copies.values(), 1.0)
        rate = min(share / self._plan.warmup, (1 - share) / (1 - self._plan.warmup))
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate * max(rate, 0.01)
        self._optimizer.step()
        with torch.no_grad():
            for name, weights in self.trained.items():
                weights.copy_(self.copies[name])
        return float(loss.detach())


def _write(model: Any, tokenizer: Any, steps: _Steps, out: Path) -> None:
    weights = {name: value.float() for name, value in model.state_dict().items()}
    model.config.dtype = torch.float32
    model.save_pretrained(out, state_dict=weights | steps.copies)
    tokenizer.save_pretrained(out)
