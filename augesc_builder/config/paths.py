"""Paths as people give them, refused in words where no file can be called so."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TypeVar

LONGEST_NAME = 255
"""Bytes of one name in a path, on every file system in use."""

LONGEST_PATH = 3500
"""Bytes of a whole path: systems take 4096, and what is written below a folder has names too."""

_IS_MISSING = {errno.ENOENT, errno.ENOTDIR}

Path_ = TypeVar("Path_", str, Path)


def check_path(path: Path_) -> Path_:
    """Return a path that a file could have, whether or not there is one.

    Raises ``ValueError`` where the name is not UTF-8, has a NUL character, or is too long, where
    links lead in a circle or to nothing, where the system lets nobody look, and where there is
    something else than a file or a folder.
    """
    text = str(path)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {text[:80]!r} is not UTF-8; rename it") from None
    if "\0" in text:
        raise ValueError(f"the path {text[:80]!r} has a NUL character; remove it")
    longest = max(map(len, raw.split(b"/")))
    if longest > LONGEST_NAME:
        raise ValueError(
            f"the path {text[:40]!r}... has a name of {longest:,} bytes; a file's has up to "
            f"{LONGEST_NAME}"
        )
    if len(raw) > LONGEST_PATH:
        raise ValueError(f"the path {text[:40]!r}... has {len(raw):,} bytes; give a shorter one")
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(
                f"{text} is a device, a pipe or a socket, which may have no end and cannot be read "
                f"twice; give a file or a folder"
            )
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"the links of {text} lead in a circle; mend them") from None
        if error.errno not in _IS_MISSING:
            why = os.strerror(error.errno or 0)
            raise ValueError(f"the path {text} cannot be looked up: {why}") from None
        if Path(path).is_symlink():
            raise ValueError(f"the link {text} leads to nothing; mend it") from None
    return path


PACKAGE = "package:"
"""What stands before the name of an installed package, where a model may have a name."""

GGUF = ".gguf"


def is_packaged(name: str) -> bool:
    """Whether a model's name is that of a package that holds it."""
    return name.startswith(PACKAGE)


def check_gguf_file(name: str) -> str:
    """Return the name of a GGUF file within a folder, a repo or a package.

    Raises ``ValueError`` where it is no such name, or leads out of there.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.suffix != GGUF:
        raise ValueError(
            f"expected the name of a file inside backbone.name that ends in {GGUF}, found "
            f"{name[:80]!r}"
        )
    return check_path(name)
