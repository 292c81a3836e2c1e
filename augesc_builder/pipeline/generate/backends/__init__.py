"""Ways to make texts of tasks, one file each; which one, ``generate.backend`` of a recipe says."""

from __future__ import annotations

import importlib
from typing import get_args

from augesc_builder.config.generate import add_backend
from augesc_builder.config.plugins import load_plugins, note_module
from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.backends.base import Backend

_SHIPPED = {"local": "LocalBackend", "openai_api": "OpenAIBackend"}
"""The class of each, in the module of its name; what is slow to import waits until it works."""

_added: dict[str, type[Backend]] = {}


def register_backend(backend: type[Backend]) -> None:
    """Let recipes choose a backend by the name that its settings give as ``type``."""
    kind = backend.Settings.model_fields["type"]
    (name,) = get_args(kind.annotation)
    _added[name] = backend
    add_backend(name, backend.Settings)
    note_module(backend.__module__)


def backend_names() -> list[str]:
    """Return the names of all backends, ours first."""
    load_plugins()
    return [*_SHIPPED, *_added]


def backend_class(name: str) -> type[Backend]:
    """Return a backend by its name."""
    if name in _added:
        return _added[name]
    found: type[Backend] = getattr(importlib.import_module(f"{__name__}.{name}"), _SHIPPED[name])
    return found


def backend_of(recipe: Recipe) -> type[Backend]:
    """Return the backend that a recipe chooses."""
    return backend_class(recipe.generate.backend.type)
