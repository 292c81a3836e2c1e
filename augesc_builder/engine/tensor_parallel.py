"""Tensor parallelism, as ``transformers`` has it: several processes shard one model.

Each has a shard of every layer, on a GPU of its own in one machine. All run the same engine on the
same prompts and add up their partial results of a layer; the tokens that the first samples count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from augesc_builder.errors import CheckpointError


@contextlib.contextmanager
def process_group(number: int, n: int, meeting: Path) -> Iterator[None]:
    """Be process ``number`` of ``n``, which find each other by a file that is not there yet.

    Raises :class:`~augesc_builder.errors.CheckpointError` where there are too few GPUs.
    """
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        if n > torch.cuda.device_count():
            raise CheckpointError(
                f"generate.backend.tensor_parallel is {n}, and this machine has "
                f"{torch.cuda.device_count()} GPUs; lower it"
            )
    # transformers reads these, also where the processes have met already.
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(n)}
    dist.init_process_group(backend, init_method=meeting.as_uri(), rank=number, world_size=n)
    yield
    dist.destroy_process_group()  # not behind an error: it would wait for the others


def tensor_parallel_options(n: int) -> dict[str, Any]:
    """Return what ``from_pretrained`` wants for a model that ``n`` processes shard.

    Raises :class:`~augesc_builder.errors.CheckpointError` where ``transformers`` is too old.
    """
    from transformers.distributed import DistributedConfig

    if "tp_size" not in {field.name for field in dataclasses.fields(DistributedConfig)}:
        raise CheckpointError(
            "generate.backend.tensor_parallel needs a newer transformers; "
            "run pip install --upgrade transformers"
        )
    return {"distributed_config": DistributedConfig(tp_size=n)}


def tensor_parallel_size(model: Any) -> int:
    """Return into how many shards the model's layers are cut; 1 where they are whole."""
    return getattr(model, "tp_size", None) or 1


def broadcast_tokens(tokens: Tensor) -> Tensor:
    """Return the tokens (B,) of the first process in all: rounding must not part their ways."""
    dist.broadcast(tokens, 0)
    return tokens
