"""Completion marks: what is finished in a run's folder, file by file.

A mark lies in ``.complete``: ``STAGE.json`` for a stage, ``STAGE-00003.json`` for a shard of one.
It names every file that was written for it, with size and SHA-256, so it tells what belongs to the
run and whether it is still as it was written. Stages read the files of the marks, and no others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from augesc_builder.errors import InputError, RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import MEND, Written, load_sealed, sha256

Files = dict[str, dict[str, Any]]
"""Paths below the run's folder, with ``bytes`` and ``sha256`` of each file."""

_FILES = TypeAdapter(dict[str, Written])
_SHARD = re.compile(r"-\d{5}\Z")


class Marks:
    """The marks of the run in a folder, as they are on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where the mark of that name lies."""
        return self.root / layout.MARKS / f"{name}.json"

    def names(self, stage: str | None = None) -> list[str]:
        """Return the names of all marks, or of those of a stage and its shards."""
        found = sorted(path.stem for path in (self.root / layout.MARKS).glob("*.json"))
        return [name for name in found if stage in {None, name, _SHARD.sub("", name)}]

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()

    def pending(self) -> str | None:
        """Name the mark of a commit that a kill interrupted: the next command carries it out."""
        intent = self.root / layout.WORK / layout.COMMIT
        return str(load_sealed(intent)["mark"]) if intent.exists() else None

    def read(self, name: str) -> dict[str, Any]:
        """Read a mark.

        Raises :class:`~augesc_builder.errors.RunFolderError` where it is not what was written.
        """
        mark = load_sealed(self.path(name))
        try:
            _FILES.validate_python(mark.get("files", {}))
        except ValidationError as error:
            raise RunFolderError(
                f"{self.path(name)}: its files are not as a run lists them: "
                f"{error.errors()[0]['msg']}; {MEND}"
            ) from None
        for file in mark.get("files", {}):
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise RunFolderError(f"{self.path(name)}: names {file!r}, outside of its folder")
        return mark

    def files(self, names: Iterable[str] | None = None) -> Files:
        """Return the files of marks, of all where none are named."""
        found: Files = {}
        for name in self.names() if names is None else names:
            found |= self.read(name).get("files", {})
        return dict(sorted(found.items()))

    def digest(self, stage: str) -> str:
        """Return one digest of everything that a stage wrote."""
        parts = {file: facts["sha256"] for file, facts in self.files(self.names(stage)).items()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def damage(self, files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what is wrong with files: gone, of another size, of other bytes."""
        found = {}
        for name, facts in files.items():
            path = self.root / name
            if not path.is_file():
                found[name] = "is gone"
            elif (size := path.stat().st_size) != facts["bytes"]:
                found[name] = f"has {size:,} bytes, and {facts['bytes']:,} were written"
            elif sha256(path) != facts["sha256"]:
                found[name] = "has other bytes than were written"
        return found

    def table(self, folder: Path, stage: str | None = None) -> list[Path]:
        """Return the Parquet files that marks list right in ``folder``, each as it was written.

        Raises :class:`~augesc_builder.errors.InputError` where one is not, or another lies there.
        """
        if not any("files" in self.read(name) for name in self.names(stage)):
            return layout.parquet_files(folder)  # marked by an earlier version
        place = folder.resolve().relative_to(self.root.resolve()).as_posix()
        listed = {
            name: facts
            for name, facts in self.files(self.names(stage)).items()
            if PurePosixPath(name).parent.as_posix() == place and name.endswith(".parquet")
        }
        for name, what in self.damage(listed).items():
            raise InputError(f"{what}; {_AGAIN}", self.root / name)
        every = self.files()
        for path in layout.parquet_files(folder):
            name = path.resolve().relative_to(self.root.resolve()).as_posix()
            if name not in every:
                raise InputError(f"is no file of the run in {self.root}; move it elsewhere", path)
        return [folder / PurePosixPath(name).name for name in listed]


def marks_above(folder: Path) -> Marks | None:
    """Return the marks of the run that ``folder`` is part of, where they tell its files."""
    folder = folder.resolve()
    for root in (folder, *folder.parents[:2]):
        if (root / layout.MANIFEST).is_file() and (root / layout.MARKS).is_dir():
            marks = Marks(root)
            return marks if any("files" in marks.read(name) for name in marks.names()) else None
    return None


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files right in a folder: of a run, those of its marks, checked.

    Raises :class:`~augesc_builder.errors.InputError` where a run's are not as it wrote them.
    """
    marks = marks_above(folder)
    return layout.parquet_files(folder) if marks is None else marks.table(folder)


def table_files(path: Path, name: str) -> list[Path]:
    """Return the Parquet files of a table: a file, or those in a folder; of a run as it wrote them.

    Raises :class:`~augesc_builder.errors.InputError` where there is none, or a run's is damaged.
    """
    if not path.is_dir():
        return [checked(path)]
    found = parquet_files(path)
    files = named(found, name)
    if not files and marks_above(path) is None:  # somebody else's: the table may have any name
        files = [file for file in found if file.name != layout.REJECTED_POSTS]
    if not files:
        raise InputError(f"no Parquet files of {name} there", path)
    return files


def named(files: Iterable[Path], name: str) -> list[Path]:
    """Return the shards of the table of that name."""
    return [file for file in files if file.name.startswith(f"{name}-")]


def checked(path: Path) -> Path:
    """Return a file; one that a run wrote is as it was written.

    Raises :class:`~augesc_builder.errors.InputError` where it is not.
    """
    marks = marks_above(path.parent) if path.is_file() else None
    if marks is not None:
        name = path.resolve().relative_to(marks.root).as_posix()
        if name in (known := marks.files()):
            for what in marks.damage({name: known[name]}).values():
                raise InputError(f"{what}; {_AGAIN}", path)
    return path


_AGAIN = "run the command that wrote it again: it makes what is damaged"
