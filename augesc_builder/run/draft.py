"""A run that is begun by one of several equal workers, none of which owns it.

The owner of a run holds a lock, and writes the manifest as it goes. Workers take none: whoever is
first creates the manifest with all that makers of shards need to know, such as the commits of
models on the Hub. It is created and never replaced, so one of them does; the others read what it
says.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.disk import create_synced, disk_errors, sealed
from augesc_builder.run.folder import has_begun, join, new_manifest, read_manifest
from augesc_builder.run.shards import Shards
from augesc_builder.run.versions import fingerprint


class Noted(Protocol):
    """What is noted in a manifest: that of a folder that is owned, or one in memory."""

    manifest: dict[str, Any]

    def record(self, **facts: Any) -> None:
        """Put facts into the manifest."""

    def add(self, **groups: Mapping[str, Any]) -> None:
        """Add facts to groups of the manifest."""


class Draft:
    """A manifest in memory."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.manifest = dict(manifest)

    def record(self, **facts: Any) -> None:
        """Put facts into the manifest."""
        self.manifest |= facts

    def add(self, **groups: Mapping[str, Any]) -> None:
        """Add facts to groups of the manifest."""
        self.record(**{name: self.manifest.get(name, {}) | dict(g) for name, g in groups.items()})


def _nothing(_: Noted) -> None:
    pass


def join_or_begin(
    path: Path,
    settings: Mapping[str, Any],
    say: Callable[[str], object],
    note: Callable[[Noted], object] = _nothing,
) -> Shards:
    """Return the shards of a run that somebody began, maybe this worker just now.

    ``note`` notes in the manifest what is settled as a run begins.

    Raises :class:`~augesc_builder.errors.SettingsChangedError` for other settings,
    :class:`~augesc_builder.errors.ExecutorError` for other packages, and
    :class:`~augesc_builder.errors.RunFolderError` where something else is there.
    """
    place = place_of(path)
    place.begin(say)
    if not has_begun(path):
        draft = Draft(new_manifest(settings))
        note(draft)
        draft.record(made_with=fingerprint())
        begun = sealed(draft.manifest)
        with disk_errors(path):
            if not place.claim(begun):
                return join(path, settings, say)
            aside = path / layout.WORK / "files" / f"{layout.MANIFEST}.{uuid.uuid4().hex}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            create_synced(path / layout.MANIFEST, begun, aside)
    return join(path, settings, say)


def noted(path: Path) -> Draft:
    """Return what is noted in the manifest of a run, to be read; what is added stays here."""
    return Draft(read_manifest(path))
