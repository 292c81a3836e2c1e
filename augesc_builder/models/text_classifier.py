"""Text classifiers of ``transformers``, checked for the labels that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from augesc_builder.errors import CheckpointError
from augesc_builder.models.pretrained import load_text_classifier
from augesc_builder.readers.hub import resolve_model


def load_classifier(
    name: str, revision: str | None, expected: set[str], key: str
) -> tuple[Any, str | None]:
    """Load a text classifier; return it with its commit, ``None`` for a local folder.

    ``key`` is the setting that names it. Raises :class:`~augesc_builder.errors.DownloadError` where
    the Hub does not have it, and :class:`~augesc_builder.errors.CheckpointError` where it cannot be
    loaded, or lacks one of the ``expected`` labels (in lowercase).
    """
    commit = None if Path(name).is_dir() else resolve_model(name, revision, key)
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_text_classifier(name, commit or revision, device)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{name}: cannot be loaded as a classifier: {reason}") from error
    labels = labels_of(model)
    if missing := sorted(expected - labels):
        raise CheckpointError(
            f"{name}: lacks the labels {', '.join(missing)} that the recipe names; it has "
            f"{', '.join(sorted(labels))}"
        )
    return model, commit


def labels_of(model: Any) -> set[str]:
    """Return the labels of a classifier in lowercase."""
    return {str(label).lower() for label in model.model.config.id2label.values()}
