"""Completion marks: what is finished in a run's folder, file by file.

A mark lies in ``.complete``: ``STAGE.json`` for a stage, ``STAGE-00003.json`` for a shard of one.
It names every file that was written for it, with size and SHA-256, so it tells what belongs to the
run and whether it is still as it was written. Stages read the files of the marks, and no others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from augesc_builder.errors import DamagedError, InputError, RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import MEND, Written, load_sealed, sha256
from augesc_builder.run.sorting import sorted_pairs

Files = dict[str, dict[str, Any]]
"""Paths below the run's folder, with ``bytes`` and ``sha256`` of each file."""

_FILES = TypeAdapter(dict[str, Written])
_SHARD = re.compile(r"-[0-9]{5,15}\Z")
_MOST_SHARDS = 1 << 26
"""Shards of a stage for which a byte each is held; a hundred million rows are a million shards."""


def _is_of(name: str, stage: str | None) -> bool:
    """Whether a mark is that of a stage or of one of its shards; ``None``: any is."""
    return stage in {None, name} or (
        stage is not None and name.startswith(stage) and _SHARD.sub("", name) == stage
    )


def shard_mark(stage: str, number: int) -> str:
    """Return the name of the mark of a shard."""
    return f"{stage}-{number:05d}"


class Marks:
    """The marks of the run in a folder, as they are on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where the mark of that name lies."""
        return self.root / layout.MARKS / f"{name}.json"

    def names(self, stage: str | None = None) -> list[str]:
        """Return the names of all marks, or of those of a stage and its shards."""
        return sorted(self.scan(stage))

    def scan(self, stage: str | None = None) -> Iterator[str]:
        """Yield the same in no order, as they are found; no list of them is made."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / layout.MARKS) as found:
            for entry in found:
                name = entry.name.removesuffix(".json")
                if entry.name.endswith(".json") and _is_of(name, stage):
                    yield name

    def has_any(self, stage: str) -> bool:
        """Whether a stage or one of its shards has its mark."""
        return next(self.scan(stage), None) is not None

    def each(self, stage: str) -> Iterator[str]:
        """Yield the names of the marks of a stage and its shards, shards by their numbers.

        A byte a shard is held meanwhile; marks may come and go.
        """
        seen, others = bytearray(), list[str]()
        for name in self.scan(stage):
            number = -1 if name == stage else int(name[len(stage) + 1 :])
            if not 0 <= number < _MOST_SHARDS or name != shard_mark(stage, number):
                others.append(name)
            else:
                seen.extend(bytes(max(0, number + 1 - len(seen))))
                seen[number] = 1
        yield from sorted(others)  # that of the stage, and none else that we wrote
        number = seen.find(1)
        while number >= 0:
            yield shard_mark(stage, number)
            number = seen.find(1, number + 1)

    def counts(self) -> Counter[str]:
        """Return how many shards of each stage have their mark, all by one look."""
        return Counter(_SHARD.sub("", name) for name in self.scan() if _SHARD.search(name))

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

    def each_file(self, stage: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the files of the marks of a stage and its shards, or of all marks, one by one."""
        for name in self.scan() if stage is None else self.each(stage):
            yield from self.read(name).get("files", {}).items()

    def find(self, files: Iterable[str]) -> Files:
        """Return those of the files that a mark lists; only as many marks are read as need be."""
        wanted, found = {*files}, Files()
        marks = self.each_file() if wanted else iter(())
        while len(found) < len(wanted) and (entry := next(marks, None)) is not None:
            if entry[0] in wanted:
                found[entry[0]] = entry[1]
        return found

    def digest(self, stage: str) -> str:
        """Return one digest of everything that a stage wrote."""
        running = hashlib.sha256(b"{")  # as the JSON of one mapping of names to digests
        pairs = ((file, str(facts["sha256"])) for file, facts in self.each_file(stage))
        for number, (file, digest) in enumerate(sorted_pairs(pairs)):
            between = ", " if number else ""
            running.update(f"{between}{json.dumps(file)}: {json.dumps(digest)}".encode())
        running.update(b"}")
        return running.hexdigest()[:16]

    def is_as_written(self, path: Path, facts: Mapping[str, Any]) -> bool:
        """Whether a file, wherever it lies, is the one that a mark tells of."""
        try:
            size, digest = int(facts["bytes"]), str(facts["sha256"])
            return path.stat().st_size == size and sha256(path) == digest
        except FileNotFoundError:  # moved by another meanwhile
            return False

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

        Raises :class:`~augesc_builder.errors.DamagedError` where one is not, and
        :class:`~augesc_builder.errors.InputError` where another lies there.
        """
        names = self.scan() if stage is None else self.each(stage)
        if not any("files" in self.read(name) for name in names):
            return layout.parquet_files(folder)  # marked by an earlier version
        place = folder.resolve().relative_to(self.root.resolve()).as_posix()
        listed: set[str] = set()
        for name, facts in self.each_file(stage):
            if PurePosixPath(name).parent.as_posix() == place and name.endswith(".parquet"):
                for what in self.damage({name: facts}).values():
                    raise DamagedError(f"{what}; {_AGAIN}", self.root / name)
                listed.add(PurePosixPath(name).name)
        found = [path for path in folder.glob("*.parquet") if path.name not in listed]
        root = self.root.resolve()
        strangers = {path.resolve().relative_to(root).as_posix(): path for path in found}
        for name in sorted(strangers.keys() - self.find(strangers)):
            raise InputError(
                f"is no file of the run in {self.root}; move it elsewhere", strangers[name]
            )
        return [folder / name for name in sorted(listed)]


def marks_above(folder: Path) -> Marks | None:
    """Return the marks of the run that ``folder`` is part of, where they tell its files."""
    folder = folder.resolve()
    for root in (folder, *folder.parents[:2]):
        if (root / layout.MANIFEST).is_file() and (root / layout.MARKS).is_dir():
            marks = Marks(root)
            return marks if any("files" in marks.read(name) for name in marks.scan()) else None
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
        if known := marks.find([name]):
            for what in marks.damage(known).values():
                raise InputError(f"{what}; {_AGAIN}", path)
    return path


_AGAIN = "run the command that wrote it again: it makes what is damaged"
