"""How many processes may generate, and how many slots fit in each.

Every GPU has a process of its own. On CPU, which of the ways that fit is the fastest is measured
(:mod:`.ways`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.engine.memory import bytes_of_weights, room_for_slots, slots_that_fit
from augesc_builder.errors import CheckpointError, RecipeError
from augesc_builder.models.pretrained import empty_model, load_config
from augesc_builder.run.workers import cores

_OWN = 1 << 28
"""Bytes that each of several processes takes besides: the interpreter and its libraries."""


def settings_of(recipe: Recipe) -> LocalSettings:
    """Return the section of the backend ``local``.

    Raises ``TypeError`` where the recipe chooses another backend.
    """
    settings = recipe.generate.backend
    if not isinstance(settings, LocalSettings):
        raise TypeError(f"the backend is {settings.type}, not local")
    return settings


def most_processes(recipe: Recipe, checkpoint: Path) -> int:
    """Return how many processes may generate; on CPU one for each core, while memory lasts.

    None has fewer slots then than one alone would have. On GPUs, under tensor parallelism, and
    where the recipe says so, it is how many do generate. Raises as :func:`n_slots`.
    """
    settings = settings_of(recipe)
    if settings.tensor_parallel > 1:
        return settings.tensor_parallel
    if settings.workers is not None:
        return settings.workers
    if torch.cuda.is_available():
        return 1 if settings.device_map else torch.cuda.device_count()
    room = _rooms(recipe, checkpoint)
    n, slots = cores(), n_slots(recipe, checkpoint, 1)
    while n > 1 and min(_fitting(recipe, room(n)), room(n)) < slots:
        n -= 1
    return n


def n_slots(recipe: Recipe, checkpoint: Path, n_processes: int) -> int:
    """Return how many conversations a process decodes together.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a checkpoint without a config, and
    :class:`~augesc_builder.errors.RecipeError` for more slots than main memory can hold.
    """
    asked = settings_of(recipe).slots
    fitting = _fitting(recipe, _rooms(recipe, checkpoint)(n_processes))
    # A GPU says when it is full, and slots are halved; main memory ends the process instead.
    if asked is not None and asked > fitting and not torch.cuda.is_available():
        raise RecipeError(
            f"generate.backend.slots: {asked:,} conversations of up to "
            f"{recipe.generate.max_tokens:,} tokens in each of {n_processes} processes do not fit "
            f"in memory, {fitting:,} would; lower it, or set it to null"
        )
    return asked or fitting


def _fitting(recipe: Recipe, room: float) -> int:
    """Return how many slots to use, or may be asked for, where there is room for so many."""
    return slots_that_fit(room) if settings_of(recipe).slots is None else max(1, int(room))


def _rooms(recipe: Recipe, checkpoint: Path) -> Callable[[int], float]:
    """Return what gives, for a number of processes, the slots that would fill each's memory."""
    settings = settings_of(recipe)
    try:
        config = load_config(checkpoint)
        with torch.device("meta"):
            shapes = empty_model(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: its config cannot be read: {error}") from error
    dtype = getattr(torch, settings.dtype)
    weights = bytes_of_weights(shapes, dtype)

    def room(n_processes: int) -> float:
        return room_for_slots(
            config,
            dtype,
            recipe.generate.max_tokens,
            weights=weights + (_OWN if n_processes > 1 else 0),
            n_processes=n_processes,
            spread=settings.device_map is not None,
            tensor_parallel=settings.tensor_parallel,
        )

    return room
