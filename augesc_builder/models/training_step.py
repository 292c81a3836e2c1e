"""What every training loop on ``accelerate`` needs: micro-batches, and states to resume from."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

T = TypeVar("T")

FACTS = "facts.pt"
"""The file of a saved state for what ``accelerate`` does not keep: how far the training is."""


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


def save_state(
    accelerator: Accelerator, states: Path, step: int, facts: Any, keep: int | None = 1
) -> None:
    """Save all that a killed run needs to resume; remove all but the newest ``keep`` states."""
    folder, temporary = states / f"step-{step:07d}", states / "saving"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        with _calm():
            accelerator.save_state(str(temporary))
        if accelerator.is_main_process:
            torch.save(facts, temporary / FACTS)
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)  # as when the disk is full
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        for old in saved_states(states)[: -keep if keep else 0]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Silence the note that tied weights are written once."""
    logger = logging.getLogger("accelerate.utils.other")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def saved_states(states: Path) -> list[Path]:
    """Return the saved states, the newest last."""
    return sorted(states.glob("step-*"))


def facts_of(state: Path) -> Any:
    """Return what was saved beside a state."""
    return torch.load(state / FACTS)


IGNORED = -100
"""The label of tokens that the loss leaves out."""
