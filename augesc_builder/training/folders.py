"""What a training leaves on disk, and how its model is found again.

::

    OUT/
      config.yaml  manifest.json    the settings, and what the training found out
      curve.jsonl                   the loss of every step, and of every validation
      model-PHASE/                  the best checkpoint of a phase, with tokenizer and card
      checkpoints/step-0000100/     all that is needed to resume from there
      logs/                         TensorBoard's
"""

from __future__ import annotations

import shutil
from pathlib import Path

from augesc_builder.config.loader import differences
from augesc_builder.config.training import Config
from augesc_builder.errors import CheckpointError, SettingsChangedError
from augesc_builder.models.training_step import FACTS, facts_of, saved_states
from augesc_builder.run import layout


def check_checkpoint(state: Path, config: Config) -> None:
    """Refuse what is no checkpoint, and a checkpoint of another config.

    Raises :class:`~augesc_builder.errors.CheckpointError`, or
    :class:`~augesc_builder.errors.SettingsChangedError` with the settings that differ.
    """
    if not (state / FACTS).is_file():
        raise CheckpointError(
            f"{state} is no checkpoint to resume from; expected a folder such as "
            f"OUT/{layout.CHECKPOINTS}/step-0000100"
        )
    if changed := differences(facts_of(state)["settings"], config.fixed()):
        lines = ", ".join(f"{k} ({old!r} there, {new!r} now)" for k, (old, new) in changed.items())
        raise SettingsChangedError(
            f"{state} is a checkpoint of another config: {lines}; give the settings it was begun "
            f"with"
        )


def adopt_checkpoint(state: Path, out: Path) -> Path:
    """Make ``state`` the newest checkpoint of ``out``, with the best models of its training.

    Returns its folder there. A best model that is of a later step comes out again: the same steps
    follow in the same order.
    """
    states = out / layout.CHECKPOINTS
    if state.resolve().parent != states.resolve():
        for model in state.parent.parent.glob("model-*"):
            shutil.copytree(model, out / model.name, dirs_exist_ok=True)
        states.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(states / "copying", ignore_errors=True)
        shutil.copytree(state, states / "copying")
        shutil.rmtree(states / state.name, ignore_errors=True)
        (states / "copying").rename(states / state.name)
    for other in saved_states(states):
        if other.name > state.name:
            shutil.rmtree(other)
    return states / state.name
