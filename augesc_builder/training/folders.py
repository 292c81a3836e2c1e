"""What a training leaves on disk, and how its model is found again.

::

    OUT/
      config.yaml  manifest.json    the settings, and what the training found out
      curve.jsonl                   the loss of every step, and of every validation
      model-PHASE/                  the best checkpoint of a phase, with tokenizer and card
      checkpoints/step-0000100/     all that is needed to go on from there
      logs/                         TensorBoard's
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from augesc_builder.errors import CheckpointError, SettingsChangedError
from augesc_builder.recipe import differences
from augesc_builder.run_folder import read_manifest
from augesc_builder.stepping import FACTS, facts_of, saved_states
from augesc_builder.training.config import Config

CHECKPOINTS, LOGS, CURVE = "checkpoints", "logs", "curve.jsonl"
_TRAINED = "training.json"


def model_folder(phase: str) -> str:
    """Name the folder of a phase's best model."""
    return f"model-{phase}"


def write_facts(
    folder: Path, config: Config, phase: str, step: int, loss: float | None, **more: Any
) -> None:
    """Write into a model's folder how it was trained, for those who evaluate or talk to it."""
    facts = {
        "config": config.settings(),
        "phase": phase,
        "step": step,
        "validation_loss": loss,
        **more,
    }
    (folder / _TRAINED).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_facts(folder: str | Path) -> dict[str, Any] | None:
    """Read how a model was trained, where we trained it."""
    path = Path(folder) / _TRAINED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def find_model(name: str) -> str:
    """Give the model of a training's folder; other folders and names stand for themselves."""
    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return name
    if not (folder / "manifest.json").exists():
        return name
    trained = read_manifest(folder).get("stages", {}).get("train")
    if trained is None:
        models = sorted(path.name for path in folder.glob("model-*"))
        hint = f"; its best so far: {', '.join(models)}" if models else ""
        raise CheckpointError(f"{name}: that training is not done; run it again to go on{hint}")
    return str(folder / trained["model"])


def check_checkpoint(state: Path, config: Config) -> None:
    """Refuse what is no checkpoint, and a checkpoint of another config."""
    if not (state / FACTS).is_file():
        raise CheckpointError(
            f"{state} is no checkpoint to go on from; expected a folder such as "
            f"OUT/{CHECKPOINTS}/step-0000100"
        )
    if changed := differences(facts_of(state)["settings"], config.fixed()):
        lines = ", ".join(f"{k} ({old!r} there, {new!r} now)" for k, (old, new) in changed.items())
        raise SettingsChangedError(
            f"{state} is a checkpoint of another config: {lines}; give the settings it was begun "
            f"with"
        )


def put_state(state: Path, out: Path) -> Path:
    """Make ``state`` the newest checkpoint of ``out``, with the best models of its training.

    A best model that is of a later step comes out again: the same steps follow in the same order.
    """
    states = out / CHECKPOINTS
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
