"""The marks of a run at an address: those that were read lie in its working copy, as files."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.marks import Marks, shard_mark
from augesc_builder.run.store import Object, Store

_AHEAD = 256
"""Marks that are fetched at once where they are read in order; at first one, then twice as many."""


class RemoteMarks(Marks):
    """The marks at an address; those that were read lie in the working copy."""

    def __init__(
        self,
        path: Path,
        store: Store,
        fetch: Callable[[str, Mapping[str, Any]], bool],
        bad: Mapping[str, str],
    ) -> None:
        super().__init__(path)
        self._store, self._fetch, self._bad = store, fetch, bad
        self._next, self._ahead = "", 1

    def scan(self, stage: str | None = None) -> Iterator[str]:
        """Yield the names of all marks, or of those of a stage and its shards, as they come."""
        for each in self._listed():
            name = PurePosixPath(each.key).stem
            if stage in {None, name, _stage_of(name)}:
                yield name

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists() or self._store.exists(mark_key(name))

    def read(self, name: str) -> dict[str, Any]:
        """Read a mark; those behind it are fetched along."""
        if self.path(name).exists():
            with contextlib.suppress(RunFolderError):
                return super().read(name)
        self.path(name).unlink(missing_ok=True)  # a copy that is no good
        self._ahead = min(_AHEAD, 2 * self._ahead) if name == self._next else 1
        *several, self._next = _following(name, self._ahead)
        self._fetch_marks(several)
        return super().read(name)

    def damage(self, files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return what is wrong with files, after all are fetched that are not here."""
        lacking = super().damage(files)
        for name in lacking:
            self._fetch(name, files[name])
        found = super().damage({name: files[name] for name in lacking})
        return {name: self._bad.get(name, what) for name, what in found.items()}

    def refresh(self) -> None:
        """Remove the copies of marks that are not, or not so, in the store any more."""
        folder = self.root / layout.MARKS
        if not folder.is_dir():
            return
        there = {PurePosixPath(each.key).name: each for each in self._listed()}
        for path in folder.glob("*.json"):
            if (known := there.get(path.name)) is None or not _is_copy(path, known):
                path.unlink(missing_ok=True)

    def _listed(self) -> Iterator[Object]:
        return (each for each in self._store.list(layout.MARKS) if each.key.endswith(".json"))

    def _fetch_marks(self, names: Iterable[str]) -> None:
        keys = [mark_key(name) for name in names if not self.path(name).exists()]
        for key, text in self._store.read_several(keys).items():
            write_copy(self.root / key, text)


def write_copy(path: Path, text: bytes) -> None:
    """Write a copy that is there whole or not at all; it can be fetched again."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")
        aside.write_bytes(text)
        aside.replace(path)


def _is_copy(path: Path, known: Object) -> bool:
    """Whether a copy surely has the bytes of an object; not all stores tell."""
    if path.stat().st_size != known.bytes or known.md5 is None:
        return False
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == known.md5


def mark_key(name: str) -> str:
    """Return the key of a mark."""
    return f"{layout.MARKS}/{name}.json"


def _stage_of(mark: str) -> str:
    stage, _, number = mark.rpartition("-")
    return stage if number.isdecimal() and len(number) >= 5 else mark  # noqa: PLR2004


def _following(mark: str, n: int) -> list[str]:
    """Name a mark and those that are read next where somebody reads them in order."""
    stage = _stage_of(mark)
    if stage == mark:
        return [mark, ""]
    number = int(mark.removeprefix(f"{stage}-"))
    return [shard_mark(stage, i) for i in range(number, number + n + 1)]
