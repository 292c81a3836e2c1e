"""Working copies of runs at addresses: folders on this machine, found by the address.

They lie below the user's cache, or below the folder that ``AUGESC_WORK`` names. What is in one can
be fetched again, but for what a killed process had not put there yet.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePosixPath

from augesc_builder.errors import RunFolderError, StoreError
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors, load_sealed, sealed, write_synced
from augesc_builder.run.place import Place
from augesc_builder.run.remote import Remote, remote_of
from augesc_builder.run.store import check_address, is_address

WORK = "AUGESC_WORK"
"""Environment variable with the folder below which working copies lie."""

_ODD = re.compile(r"[^A-Za-z0-9._-]")

_ABOVE = 2
"""Folders that a table or a corpus may lie below the run."""


def place_of(path: Path) -> Place:
    """Return the place of a run's folder, which a file in it tells where it is a working copy."""
    known = path / layout.ADDRESS
    if not known.is_file():
        return Place(path)
    return remote_of(path, str(load_sealed(known)["address"]))


def folder_of(place: str | Path) -> Path:
    """Return the folder to work in: that of a path, or the working copy of an address.

    Raises :class:`~augesc_builder.errors.StoreError` for what is no address.
    """
    if isinstance(place, Path) or not is_address(place):
        return Path(str(place).removeprefix("file://"))
    return _copy(_checked(place)).path


def opened(address: str) -> Path:
    """Return the working copy of a run that is there, its manifest and marks as they are now.

    Raises :class:`~augesc_builder.errors.RunFolderError` where no run is at the address.
    """
    remote = _copy(_checked(address))
    if not remote.open():
        raise RunFolderError(
            f"{remote.address}: no {layout.MANIFEST} there; give the address of a run"
        )
    return remote.path


def fetched(address: str) -> Path:
    """Return a folder with all that a run, or a folder of a run, has at an address.

    Raises :class:`~augesc_builder.errors.RunFolderError` where no run is there or above.
    """
    address = _checked(address)
    root, below = address, PurePosixPath()
    for _ in range(_ABOVE + 1):
        remote = _copy(root)
        if remote.open():
            remote.settle()
            return _brought(remote, below)
        root, _, name = root.rpartition("/")
        below = name / below
        if root.endswith("/") or root.count("/") < 3:  # noqa: PLR2004 - that of a bucket is none
            break
    raise RunFolderError(f"{address}: no {layout.MANIFEST} there; give the address of a run")


def _brought(remote: Remote, below: PurePosixPath) -> Path:
    marks = remote.marks()
    for mark in marks.names():
        files = marks.read(mark).get("files", {})
        wanted = {n: f for n, f in files.items() if PurePosixPath(n).is_relative_to(below)}
        for name, what in marks.damage(wanted).items():
            raise RunFolderError(
                f"{remote.address}/{name} {what}; run the command that wrote it again: it makes "
                f"what is damaged"
            )
    remote.look()
    return remote.path / below


def _checked(address: str) -> str:
    try:
        return check_address(address)
    except ValueError as error:
        raise StoreError(str(error)) from None


def _copy(address: str) -> Remote:
    path = _copies() / _name(address)
    marker = path / layout.ADDRESS
    with disk_errors(path):
        if not marker.exists():
            path.mkdir(parents=True, exist_ok=True)
            write_synced(marker, sealed({"address": address}))
    return remote_of(path, address)


def _copies() -> Path:
    if chosen := os.environ.get(WORK):
        return Path(chosen).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "augesc" / "runs"


def _name(address: str) -> str:
    """Name the working copy of an address so that people know it and no two are the same."""
    last = _ODD.sub("-", address.rpartition("/")[2])[:40].lstrip(".")
    return f"{last}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"
