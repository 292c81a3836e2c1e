"""What learns: model, optimizer and schedule, prepared by ``accelerate``, and a step of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import get_linear_schedule_with_warmup

from augesc_builder.config.recipe import Finetune
from augesc_builder.models.chunked_loss import SummedLoss
from augesc_builder.models.training_state import load_state, save_state
from augesc_builder.models.training_step import IGNORED, gradients, loss_on, update
from augesc_builder.pipeline.finetune.examples import Example, collate
from augesc_builder.run.states import SavedState


class Learner:
    """A causal language model in training; a loss is a mean a token, in nats.

    ``n_steps`` is when the learning rate reaches zero; ``pad`` is the token of padding.
    """

    def __init__(
        self, accelerator: Accelerator, model: Any, settings: Finetune, n_steps: int, pad: int
    ) -> None:
        self._accelerator, self._settings, self._pad = accelerator, settings, pad
        self._loss = SummedLoss(model)
        optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # reads weights, gradients and moments once, not six times
        )
        self.schedule = get_linear_schedule_with_warmup(optimizer, settings.warmup_steps, n_steps)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.model.train()

    def save(self, states: Path, step: int, facts: Mapping[str, Any]) -> None:
        """Save the state of a step, with facts beside the type of the arithmetic."""
        trained = (self.model, self.optimizer, self.schedule)
        facts = {**facts, "mixed_precision": self._accelerator.mixed_precision}
        save_state(self._accelerator, states, step, trained, facts)

    def load(self, saved: SavedState) -> None:
        """Go on from a saved state."""
        load_state(self._accelerator, saved, (self.model, self.optimizer, self.schedule))

    def step(self, batch: Sequence[Example]) -> float:
        """Take one optimizer step; return the loss over all conversation tokens of the batch."""
        size, total = self._settings.micro_batch_size, _n_learned(batch)
        loss = gradients(
            self._accelerator, self.model, _by_length(batch), size, total, self._summed
        )
        clip = self._settings.max_grad_norm
        found = update(self._accelerator, self.model, self.optimizer, loss, clip)
        self.schedule.step()
        return found

    def loss_on(self, examples: Sequence[Example]) -> float:
        """Return the loss over all conversation tokens of examples, without learning from them."""
        size, total = self._settings.micro_batch_size, _n_learned(examples)
        return loss_on(
            self._accelerator, self.model, _by_length(examples), size, total, self._summed
        )

    def _summed(self, model: Any, micro: Sequence[Example], idle: bool) -> torch.Tensor:
        device = self._accelerator.device
        batch = {key: value.to(device) for key, value in collate(micro, self._pad).items()}
        if idle:
            batch["labels"].fill_(IGNORED)
        return self._loss(model, batch["input_ids"], batch["labels"])


def _by_length(examples: Sequence[Example]) -> list[Example]:
    """Put those of like length together, the longest first: micro-batches with little padding."""
    return sorted(examples, key=lambda example: -len(example.input_ids))


def _n_learned(examples: Sequence[Example]) -> int:
    return sum(example.n_learned for example in examples)
