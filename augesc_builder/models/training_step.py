"""What both training loops on ``accelerate`` do in a step: micro-batches over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

T = TypeVar("T")


def make_accelerator(**options: Any) -> Accelerator:
    """Make an accelerator; an earlier one of this process may have had other settings."""
    AcceleratorState._reset_state()
    return Accelerator(cpu=not torch.cuda.is_available(), **options)


def checkpoint_activations(model: Any) -> None:
    """Let a model compute activations twice rather than keep them."""
    new_name = "activation_checkpointing_enable"  # since transformers 5.2x
    enable = getattr(model, new_name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def gradients(
    accelerator: Accelerator,
    model: Any,
    batch: Sequence[T],
    micro_batch_size: int,
    n_tokens: int,
    summed_loss: Callable[[Any, Sequence[T], bool], torch.Tensor],
) -> torch.Tensor:
    """Fill the gradients of the mean loss over all ``n_tokens`` of a batch.

    Each process takes its share of the batch in micro-batches, so that neither their size nor the
    number of processes changes anything but rounding. ``summed_loss(model, micro, idle)`` is the
    loss of a micro-batch, summed over its tokens; a process without an example left (the last batch
    of an epoch) computes an ``idle`` one, whose labels are all to be ignored, to keep collectives
    paired. Returns this process's part of the loss, a scalar.
    """
    share = list(batch[accelerator.process_index :: accelerator.num_processes])
    largest = -(-len(batch) // accelerator.num_processes)
    n_turns = -(-largest // micro_batch_size)
    total = torch.zeros((), device=accelerator.device)
    for turn in range(n_turns):
        micro = share[turn * micro_batch_size : (turn + 1) * micro_batch_size]
        with nullcontext() if turn == n_turns - 1 else accelerator.no_sync(model):
            loss = summed_loss(model, micro or batch[:1], not micro) / max(n_tokens, 1)
            # Gradients are averaged over processes; the sum is what a mean over all tokens needs.
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    return total


def update(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    loss: torch.Tensor,
    max_grad_norm: float | None,
) -> float:
    """Take an optimizer step by the gradients there are; return the loss over all processes."""
    if max_grad_norm is not None:
        accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(accelerator.reduce(loss, "sum"))


IGNORED = -100
"""The label of tokens that the loss leaves out."""
