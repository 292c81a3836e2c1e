"""What every room asks of the disk: files synced, known by their bytes, errors in one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from augesc_builder.errors import AugescError, DiskError, RunFolderError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""How a disk says that it has no hard links."""

_FULL_IN_TEXT = re.compile(
    rf"(?:code:|errno|os error) (?:{'|'.join(map(str, sorted(_FULL)))})\b", re.IGNORECASE
)
"""How safetensors and Arrow name the system's error."""

_BLOCK = 1 << 20

_NEARLY_FULL = 1 << 20
"""Free bytes below which any failure to write is put down to the disk: torch names no error."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a one-line error, whichever library met it.

    Raises :class:`~augesc_builder.errors.DiskError` for it; other errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if (found := disk_error(path, error)) is not None:
            raise found from error
        raise


def disk_error(path: Path, error: Exception) -> DiskError | None:
    """Return what an error means for the user, if it is about the disk."""
    if isinstance(error, AugescError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number in _DENIED:
        return DiskError(
            f"{path}: not writable ({os.strerror(number)}); give --out a folder that is"
        )
    if number in _FULL or _FULL_IN_TEXT.search(str(error)) or _is_nearly_full(path):
        return DiskError(
            f"{path}: no space left to write it; free some and run the same command again, "
            f"it resumes where it stopped"
        )
    if number in _NO_PLACE:
        return DiskError(f"{path}: {os.strerror(number)}; give another --out")
    return None


def _is_nearly_full(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    return usage.total > 0 and usage.free < _NEARLY_FULL


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, text: str) -> None:
    """Write a text that is there whole or not at all, whenever the machine stops."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def create_synced(path: Path, text: str, aside: Path) -> bool:
    """Write a text that is there whole or not at all, where there is none; whether it was first.

    Of any number of processes, also on several machines, one is. ``aside`` is a path of this one's
    alone on the same disk.
    """
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    try:
        os.link(aside, path)
    except FileExistsError:
        # A server may have made the link, and its answer be lost: then it is ours.
        is_first = path.exists() and path.samefile(aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        is_first = _create(path, text)
    else:
        is_first = True
    aside.unlink(missing_ok=True)
    if is_first:
        sync(path.parent)
    return is_first


def _create(path: Path, text: str) -> bool:
    """Do the same where the disk knows no links: a kill may leave it cut, as its checksum shows."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, for its owner alone; it is put in its place whole, or not at all.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there is something already, and
    :class:`~augesc_builder.errors.DiskError` where it cannot be written.
    """
    with disk_errors(path):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise RunFolderError(f"{path} is there already; give --out a new or empty folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
        try:
            yield work
            for file in sorted(work.rglob("*")):
                sync(file)
            os.rename(work, path)  # noqa: PTH104 - onto an empty folder too
            sync(path.parent)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def sha256(path: Path) -> str:
    """Return the digest of a file's bytes, in hexadecimal."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            running.update(block)
    return running.hexdigest()


class Written(BaseModel):
    """Size and digest of a file as it was written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: int
    sha256: str


def measured(path: Path) -> Written:
    """Return size and digest of a file as it is."""
    return Written(bytes=path.stat().st_size, sha256=sha256(path))


def sealed(value: dict[str, Any]) -> str:
    """Return JSON that carries a checksum of itself; NaN raises :class:`ValueError`."""
    return to_json({**value, "checksum": _checksum(value)})


def load_sealed(path: Path) -> dict[str, Any]:
    """Read what :func:`sealed` wrote, or JSON of before, which has no checksum.

    Raises :class:`~augesc_builder.errors.RunFolderError` where it is no JSON object, or not what
    was written.
    """
    if path.exists() and not path.is_file():
        raise RunFolderError(f"{path}: not a regular file; {MEND}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise RunFolderError(f"{path}: unreadable ({error}); {MEND}") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"{path}: expected a JSON object, found {str(found)[:60]}; {MEND}")
    claimed = found.pop("checksum", None)
    if claimed is not None and claimed != _checksum(found):
        raise RunFolderError(f"{path}: its checksum does not fit what it says; {MEND}")
    return found


MEND = "put the file back from a copy, or give another --out"


def to_json(value: Any) -> str:
    """Return JSON as people read it; NaN raises :class:`ValueError`, undefined is ``null``."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _checksum(value: dict[str, Any]) -> str:
    plain = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
