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
from functools import partial
from pathlib import Path

from augesc_builder.config.loader import differences
from augesc_builder.config.training import Config
from augesc_builder.errors import SettingsChangedError
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.states import SavedState, copy_state, drop_later, read_state
from augesc_builder.training.loop import TrainingState, place_of


def check_checkpoint(state: Path, config: Config) -> tuple[SavedState, TrainingState]:
    """Return a checkpoint and how far it is, after its files were checked.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it is none or a damaged one, and
    :class:`~augesc_builder.errors.SettingsChangedError`, with the settings that differ, where it is
    one of another config.
    """
    saved = read_state(state)
    settings = saved.facts.get("settings")
    if changed := differences(settings if isinstance(settings, dict) else {}, config.fixed()):
        lines = ", ".join(f"{k} ({old!r} there, {new!r} now)" for k, (old, new) in changed.items())
        raise SettingsChangedError(
            f"{state} is a checkpoint of another config: {lines}; give the settings it was begun "
            f"with"
        )
    return saved, place_of(saved, len(config.phases))


def adopt_checkpoint(saved: SavedState, step: int, run: RunFolder) -> None:
    """Make a checkpoint of so many steps the newest one of a folder; take its best models along.

    A best model that is of a later step comes out again: the same steps follow in the same order.
    """
    states = run.path / layout.CHECKPOINTS
    if saved.path.resolve() == layout.state_folder(states, step).resolve():
        drop_later(states, step)
        return
    if saved.path.resolve().parent != states.resolve():
        for model in saved.path.parent.parent.glob("model-*"):
            run.keep(model.name, partial(_copy, model))
    copy_state(saved, states, step)


def _copy(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder, dirs_exist_ok=True)
