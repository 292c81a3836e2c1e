"""What both training loops on ``accelerate`` do in a step: micro-batches over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from augesc_builder.errors import TrainingError

T = TypeVar("T")


_WAIT = timedelta(days=2)
"""How long processes wait for the first one, which may be reading a whole dump before it trains."""

_UNKNOWN = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
"""What ``accelerate launch`` sets for the kinds that shape the loop after themselves."""


def make_accelerator(**options: Any) -> Accelerator:
    """Make an accelerator; an earlier one of this process may have had other settings.

    Raises :class:`~augesc_builder.errors.TrainingError` for kinds of launches that the loops here
    are not made for.
    """
    asked = [name for name in _UNKNOWN if os.environ.get(name, "").lower() == "true"]
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    old = ["FSDP 1"] if sharded and os.environ.get("FSDP_VERSION", "1") != "2" else []
    if found := [_UNKNOWN[name] for name in asked] + old:
        raise TrainingError(
            f"launched with {found[0]}; expected an accelerate config of one or several GPUs or "
            f"CPUs, or of FSDP with fsdp_version: 2"
        )
    AcceleratorState._reset_state()
    waits = InitProcessGroupKwargs(timeout=_WAIT)
    return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[waits], **options)


def mixed_precision(asked: str) -> str:
    """Return the type of the arithmetic; ``auto`` is ``bf16`` where the processor computes in it.

    Where it does not, bfloat16 is emulated, slower than float32.
    """
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        find = getattr(torch.cpu, "get_capabilities", None)  # not in all versions
        known = {} if find is None else find()
        able = any(known.get(key) for key in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bf16" if able else "no"


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
    loss of a micro-batch, summed over its tokens. A process without an example (the last batch of
    an epoch, or more processes than examples) computes an ``idle`` one, whose labels are all to be
    ignored, to keep collectives paired. Returns this process's part of the loss, a scalar.
    """
    turns = _turns(accelerator, batch, micro_batch_size)
    total = torch.zeros((), device=accelerator.device)
    for turn, micro in enumerate(turns, 1):
        with nullcontext() if turn == len(turns) else accelerator.no_sync(model):
            loss = summed_loss(model, micro or batch[:1], not micro) / max(n_tokens, 1)
            # Gradients are averaged over processes; the sum is what a mean over all tokens needs.
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    return total


def loss_on(
    accelerator: Accelerator,
    model: Any,
    examples: Sequence[T],
    micro_batch_size: int,
    n_tokens: int,
    summed_loss: Callable[[Any, Sequence[T], bool], torch.Tensor],
) -> float:
    """Return the mean loss over all ``n_tokens`` of examples that are not learned from.

    Processes share them as :func:`gradients` has it; the model is left as it trains.
    """
    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    model.eval()
    with torch.no_grad():
        for micro in _turns(accelerator, examples, micro_batch_size):
            total += summed_loss(model, micro or examples[:1], not micro)
    model.train()
    return float(accelerator.reduce(total, "sum")) / max(n_tokens, 1)


def _turns(accelerator: Accelerator, batch: Sequence[T], micro_batch_size: int) -> list[list[T]]:
    """Return this process's micro-batches; there are as many in each, so some may be empty."""
    share = list(batch[accelerator.process_index :: accelerator.num_processes])
    largest = -(-len(batch) // accelerator.num_processes)
    starts = range(0, largest, micro_batch_size)
    return [share[start : start + micro_batch_size] for start in starts]


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
