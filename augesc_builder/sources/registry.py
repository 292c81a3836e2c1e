"""All sources by name: ours, a module each, and those that were registered."""

from __future__ import annotations

import importlib

from augesc_builder.config.plugins import load_plugins, note_module
from augesc_builder.sources.base import SourceInfo

_SHIPPED = {
    "sample": "sample",
    "empathetic_dialogues": "empathetic_dialogues",
    "reddit": "reddit",
    "esconv": "esconv",
    "augesc": "published",
}
"""The module of each: imported when it is asked for, as some take their time."""

_added: dict[str, SourceInfo] = {}


def register_source(info: SourceInfo) -> None:
    """Let recipes name a source from outside the package.

    Raises ``ValueError`` where the name is one of ours.
    """
    if info.name in _SHIPPED:
        raise ValueError(f"{info.name} is a source of augesc; choose another name")
    _added[info.name] = info
    for function in (info.read, info.read_raw, info.read_sessions):
        if function is not None:
            note_module(function.__module__)


def source_names() -> list[str]:
    """Return the names of all sources, ours first."""
    load_plugins()
    return [*_SHIPPED, *_added]


def find_source(name: str) -> SourceInfo | None:
    """Return the record of a source; ``None`` where nothing has that name."""
    load_plugins()
    if name in _SHIPPED:
        module = importlib.import_module(f"augesc_builder.sources.{_SHIPPED[name]}")
        info: SourceInfo = module.INFO
        return info
    return _added.get(name)


def query_sources() -> list[SourceInfo]:
    """Return the sources that can give queries."""
    infos = (find_source(name) for name in source_names())
    return [info for info in infos if info is not None and info.gives_posts]


def source_label(name: str) -> str:
    """Return how tables call a source: as the paper does, or by its name."""
    info = find_source(name)
    return name if info is None else info.label
