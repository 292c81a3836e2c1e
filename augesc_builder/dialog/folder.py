"""The folder of a trained dialog model: its name, and the facts of its training beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augesc_builder.config.training import Config, Examples
from augesc_builder.errors import CheckpointError
from augesc_builder.run import layout
from augesc_builder.run.folder import read_manifest


def model_folder(phase: str) -> str:
    """Return the name of the folder of a phase's best model."""
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
    (folder / layout.TRAINED).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_facts(folder: str | Path) -> dict[str, Any] | None:
    """Read how a model was trained, where it was trained here.

    Raises :class:`~augesc_builder.errors.CheckpointError` where that file is damaged.
    """
    path = Path(folder) / layout.TRAINED
    if not path.is_file():
        return None
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        _check_facts(facts)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: damaged ({type(error).__name__}: {reason}); put it back as the training left "
            f"it, or move it away: the model is then taken for one that was trained elsewhere"
        ) from None
    return facts


def _check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts without what is read of them, with whichever error Python has for it."""
    config = facts["config"]
    Examples.model_validate(config["examples"])
    for value in (config["model"]["chat_template"], *config["data"]["leave_out"]):
        if not isinstance(value, str | None):
            raise TypeError(f"expected a text, found {value!r}")


def find_model(name: str) -> str:
    """Return the model of a training's folder; other folders and names stand for themselves.

    Raises :class:`~augesc_builder.errors.CheckpointError` where the training is not done.
    """
    folder = Path(name)
    if not folder.is_dir() or (folder / "config.json").exists():
        return name
    if not (folder / layout.MANIFEST).exists():
        return name
    trained = read_manifest(folder).get("stages", {}).get("train")
    if trained is None:
        models = sorted(path.name for path in folder.glob("model-*"))
        hint = f"; its best so far: {', '.join(models)}" if models else ""
        raise CheckpointError(f"{name}: that training is not done; run it again to resume{hint}")
    return str(folder / trained["model"])
