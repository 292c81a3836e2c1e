"""Where a backbone's weights are: a folder, the Hub, or a GGUF file there or in a package."""

from __future__ import annotations

import functools
from pathlib import Path

from augesc_builder.config.backbone import Backbone
from augesc_builder.config.paths import GGUF, PACKAGE, is_packaged
from augesc_builder.errors import CheckpointError
from augesc_builder.readers.gguf import read_header
from augesc_builder.readers.hub import download_file
from augesc_builder.readers.packages import file_in_package
from augesc_builder.run.disk import sha256


def place_of(origin: Backbone) -> str | Path:
    """Return what the door (:mod:`augesc_builder.models.pretrained`) loads a backbone from.

    That is its name, or the GGUF file on this disk: downloaded if need be, and what it should be.
    Raises :class:`~augesc_builder.errors.CheckpointError`,
    :class:`~augesc_builder.errors.DownloadError` and
    :class:`~augesc_builder.errors.MissingExtraError` where there is none.
    """
    if origin.gguf_file is None:
        return str(origin.name)
    path = gguf_on_disk(origin)
    if path is None:
        hint = "check backbone.name, backbone.revision and backbone.gguf_file"
        path = download_file(str(origin.name), origin.gguf_file, origin.revision, hint)
    _check_gguf(path, origin)
    return path


def gguf_on_disk(origin: Backbone) -> Path | None:
    """Return the GGUF file of a backbone in a folder or package; ``None`` for one on the Hub."""
    if origin.name is None or origin.gguf_file is None:
        return None
    if is_packaged(origin.name):
        return file_in_package(origin.name.removeprefix(PACKAGE), origin.gguf_file)
    folder = Path(origin.name)
    if not folder.is_dir():
        return None
    path = folder / origin.gguf_file
    if path.parent != folder:  # a card names the file, and no folder
        raise CheckpointError(f"give {path.parent} as backbone.name, and {path.name} as gguf_file")
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.glob(f"*{GGUF}"))[:3])
        raise CheckpointError(
            f"{folder} holds no {origin.gguf_file}; "
            + (f"it has {found}: set backbone.gguf_file" if found else "give another folder")
        )
    return path


def check_backbone(origin: Backbone) -> None:
    """Find what is wrong with a backbone on this disk; what is on the Hub is not asked for.

    Raises what :func:`place_of` does.
    """
    if (path := gguf_on_disk(origin)) is not None:
        _check_gguf(path, origin)
    elif origin.name is not None and origin.gguf_file is None:
        from augesc_builder.models.causal_lm import check_folder

        check_folder(origin.name)


def sha256_of(path: Path) -> str:
    """Return the digest of a file's bytes; it is read again only where it has changed."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


def _check_gguf(path: Path, origin: Backbone) -> None:
    """Refuse a GGUF file that is not what the recipe names, or that cannot be whole."""
    read_header(path)
    if origin.sha256 is None:
        return
    found = sha256_of(path)
    if found != origin.sha256:
        raise CheckpointError(
            f"{origin.name}: the sha256 of {origin.gguf_file} is {found}, expected "
            f"{origin.sha256} (backbone.sha256); get the file again, or set that to the digest of "
            f"the one you mean"
        )


@functools.lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256(path)
