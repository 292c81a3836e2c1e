"""How long phases are: for epochs, or exactly as long as something else.

A model that was trained for longer may be better for that alone. So the model that is further tuned
on AugESC is set beside one that is further tuned on ESConv for the same number of steps, which is
read from the training that it is the control of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from augesc_builder.config.base import NotNegative
from augesc_builder.config.training import Config
from augesc_builder.errors import RunFolderError, TrainingError
from augesc_builder.run.folder import read_manifest


@dataclass(frozen=True)
class Length:
    """The optimizer steps of a phase, and those over which its learning rate falls to 0.

    A phase that early stopping ended took fewer than were planned. Its fields are names on disk.
    """

    steps: NotNegative
    planned: NotNegative


@dataclass(frozen=True)
class LengthAs(Length):
    """The length that a phase had in another training: ``config`` is its name, ``run_id`` its own.

    Its fields are names on disk.
    """

    config: str
    run_id: str


def given_lengths(config: Config) -> dict[str, Length]:
    """Return the lengths of the phases that are exactly so long, by their names.

    Raises what :func:`lengths_as` raises.
    """
    found: dict[str, Length] = {**lengths_as(config)}
    for name, phase in config.phases.items():
        if phase.steps is not None:
            found[name] = Length(phase.steps, phase.steps)
    return found


def lengths_as(config: Config) -> dict[str, LengthAs]:
    """Return the lengths of the phases that are as long as in another training, by their names.

    Raises :class:`~augesc_builder.errors.TrainingError` where that is not done, has no such phase,
    or takes other batches: then its steps are others.
    """
    return {
        name: _read(config, name, phase.steps_as)
        for name, phase in config.phases.items()
        if phase.steps_as is not None
    }


def _read(config: Config, phase: str, folder: str) -> LengthAs:
    key = f"phases.{phase}.steps_as"
    try:
        manifest = read_manifest(Path(folder))
    except RunFolderError as error:
        raise TrainingError(f"{key}: {error}") from None
    if "train" not in manifest.get("stages", {}):
        raise TrainingError(
            f"{key}: {folder} holds no training that is done; give one, or wait for it"
        )
    phases = manifest["stages"]["train"].get("phases") or {}
    if phase not in phases:
        raise TrainingError(
            f"{key}: {folder} does not say how many steps a phase {phase} took (its phases: "
            f"{', '.join(phases) or 'unknown'}); give phases.{phase}.steps instead"
        )
    theirs = _batch_size(manifest)
    if theirs != config.train.batch_size:
        raise TrainingError(
            f"{key}: {folder} took steps of {theirs} examples, and train.batch_size is "
            f"{config.train.batch_size}: set it to the same"
        )
    try:
        return TypeAdapter(LengthAs).validate_python(
            {**phases[phase], "config": str(manifest["name"]), "run_id": manifest["run_id"]}
        )
    except (ValidationError, TypeError, KeyError):
        raise TrainingError(
            f"{key}: {folder}: its manifest does not tell the steps of {phase} as a training "
            f"writes them; give phases.{phase}.steps instead"
        ) from None


def _batch_size(manifest: dict[str, Any]) -> Any:
    settings = manifest.get("settings", {}).get("train", {})
    return settings.get("batch_size") if isinstance(settings, dict) else None
