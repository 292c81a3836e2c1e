"""TODO."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoConfig

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.memory import available_memory, slots_that_fit
from augesc_builder.errors import CheckpointError
from augesc_builder.run.workers import cores

_SMALL = 1 << 30
"""Bytes of weights up to which one thread is used."""


_WORTH_IT = 1e13
"""Bytes of weights times tokens from which several processes are worth their start."""


def n_workers(recipe: Recipe, checkpoint: Path, n_tasks: int, n_shards: int) -> int:
    """Say how many processes generate."""
    if recipe.generate.tensor_parallel > 1:
        return recipe.generate.tensor_parallel
    if recipe.generate.workers is not None:
        return min(recipe.generate.workers, n_shards)
    if torch.cuda.is_available():
        return 1 if recipe.generate.device_map else min(torch.cuda.device_count(), n_shards)
    size = _weights(checkpoint)
    work = size * n_tasks * recipe.generate.max_tokens / 2
    if work < _WORTH_IT:
        return 1
    return max(1, min(cores(), n_shards, int(available_memory() / (3 * size))))


def n_slots(recipe: Recipe, checkpoint: Path, n_processes: int) -> int:
    """Say how many conversations a process decodes together."""
    settings = recipe.generate
    if settings.slots is not None:
        return settings.slots
    weights = _weights(checkpoint)
    try:
        config = AutoConfig.from_pretrained(str(checkpoint))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: its config cannot be read: {error}") from error
    dtype = getattr(torch, settings.dtype)
    return slots_that_fit(
        config,
        dtype,
        settings.max_tokens,
        weights=weights,
        n_processes=n_processes,
        spread=settings.device_map is not None,
        tensor_parallel=settings.tensor_parallel,
    )


@contextlib.contextmanager
def _threads(checkpoint: Path) -> Iterator[None]:
    before = torch.get_num_threads()
    if not torch.cuda.is_available() and _weights(checkpoint) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _weights(checkpoint: Path) -> int:
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
