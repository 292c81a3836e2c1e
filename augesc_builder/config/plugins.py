"""What stands outside the package and is part of it: sources, requirements and backends.

An installed package is found by its entry points in the group ``augesc.plugins``; each names a
module that calls :func:`augesc.register`. A recipe cannot name code to be run.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Iterable
from importlib.metadata import entry_points

GROUP = "augesc.plugins"

_modules: list[str] = []


def note_module(name: str) -> None:
    """Remember a module that registered something, for worker processes to import."""
    if not name.startswith("augesc_builder") and name not in {"__main__", *_modules}:
        _modules.append(name)


def plugin_modules() -> tuple[str, ...]:
    """Return the modules that registered something."""
    return tuple(_modules)


def import_modules(names: Iterable[str]) -> None:
    """Import modules that registered something in another process."""
    for name in names:
        importlib.import_module(name)


@functools.cache
def load_plugins() -> None:
    """Import every installed plugin, once; one that fails is named in a warning and left out."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            entry.load()
        except Exception as error:  # a plugin is somebody else's code
            logging.getLogger("augesc").warning(
                "augesc: the plugin %r (%s) cannot be imported (%s: %s); it is left out",
                *(entry.name, entry.value, type(error).__name__, error),
            )
