"""How many processes generate, with how many slots and threads each.

Every GPU has a process of its own. On CPU processes with one thread each are used, not one with
several: beside any other load, threads wait for each other at every small operation
(``benchmarks/generation.py --processes`` compares).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.memory import (
    available_memory,
    bytes_of_weights,
    room_for_slots,
    slots_that_fit,
)
from augesc_builder.errors import CheckpointError, RecipeError
from augesc_builder.models.pretrained import empty_model, load_config
from augesc_builder.run.workers import cores

_SMALL = 1 << 30
"""Bytes of weights up to which one thread is used."""


_WORTH_IT = 1e13
"""Bytes of weights times tokens from which several processes are worth their start."""


def settings_of(recipe: Recipe) -> LocalSettings:
    """Return the section of the backend ``local``.

    Raises ``TypeError`` where the recipe chooses another backend.
    """
    settings = recipe.generate.backend
    if not isinstance(settings, LocalSettings):
        raise TypeError(f"the backend is {settings.type}, not local")
    return settings


def n_workers(recipe: Recipe, checkpoint: Path, n_tasks: int, n_shards: int) -> int:
    """Return how many processes generate."""
    settings = settings_of(recipe)
    if settings.tensor_parallel > 1:
        return settings.tensor_parallel
    if settings.workers is not None:
        return min(settings.workers, n_shards)
    if torch.cuda.is_available():
        return 1 if settings.device_map else min(torch.cuda.device_count(), n_shards)
    size = _bytes_of_weights(checkpoint)
    work = size * n_tasks * recipe.generate.max_tokens / 2
    if work < _WORTH_IT:
        return 1
    return max(1, min(cores(), n_shards, int(available_memory() / (3 * size))))


def n_slots(recipe: Recipe, checkpoint: Path, n_processes: int) -> int:
    """Return how many conversations a process decodes together.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a checkpoint without a config, and
    :class:`~augesc_builder.errors.RecipeError` for more slots than main memory can hold.
    """
    settings = settings_of(recipe)
    try:
        config = load_config(checkpoint)
        with torch.device("meta"):
            shapes = empty_model(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: its config cannot be read: {error}") from error
    dtype = getattr(torch, settings.dtype)
    room = room_for_slots(
        config,
        dtype,
        recipe.generate.max_tokens,
        weights=bytes_of_weights(shapes, dtype),
        n_processes=n_processes,
        spread=settings.device_map is not None,
        tensor_parallel=settings.tensor_parallel,
    )
    if settings.slots is None:
        return slots_that_fit(room)
    # A GPU says when it is full, and slots are halved; main memory ends the process instead.
    most = max(1, int(room))
    if settings.slots > most and not torch.cuda.is_available():
        raise RecipeError(
            f"generate.backend.slots: {settings.slots:,} conversations of up to "
            f"{recipe.generate.max_tokens:,} tokens in each of {n_processes} processes do not fit "
            f"in memory, {most:,} would; lower it, or set it to null"
        )
    return settings.slots


@contextlib.contextmanager
def threads_for(checkpoint: Path) -> Iterator[None]:
    """Use one thread on CPU for a small model, so that a row is the same whoever makes it."""
    before = torch.get_num_threads()
    if not torch.cuda.is_available() and _bytes_of_weights(checkpoint) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bytes_of_weights(checkpoint: Path) -> int:
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
