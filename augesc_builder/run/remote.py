"""A run at an address: the store has its marks and files, this machine a working copy of them.

A file goes up under a key that carries its maker's token, then its mark is created, which only one
maker can do; then the store copies the file to where the mark says it is. Renaming is not atomic
there, so marks decide: who comes next puts in place what a killed maker left. In the working copy
lies what was made or used here: a mark is fetched again where the listing tells other bytes, and a
file where it is not the one that its mark tells of. Who fetches a file with other bytes leaves a
note at the address: an owner looks at that file's bytes there, though its size is right and the one
in its own working copy may be good.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from augesc_builder.errors import RunFolderError, StoreError
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors, sealed
from augesc_builder.run.marks import Files, Marks, shard_mark
from augesc_builder.run.place import Place, flat
from augesc_builder.run.remote_marks import RemoteMarks, mark_key, write_copy
from augesc_builder.run.store import Store

_BESIDE = frozenset({layout.WORK, layout.STATUS, layout.WORKERS})
"""What a run that was killed at its start may leave without a manifest."""

_EVERY = 10.0
"""Seconds between two words of a process at work."""

_SHARDS = f"{layout.WORK}/{layout.SHARDS}"
_DOUBTED = f"{layout.WORK}/{layout.DOUBTED}"

_OTHER_BYTES = "has other bytes than were written"

_remotes: dict[tuple[Path, str], Remote] = {}


def remote_of(path: Path, address: str) -> Remote:
    """Return the run at an address that a folder is a working copy of."""
    path = path.absolute()
    return _remotes.setdefault((path, address), Remote(path, address))


class Remote(Place):
    """A run at an address, and its working copy on this machine."""

    is_alone = False

    def __init__(self, path: Path, address: str) -> None:
        super().__init__(path)
        self.address: str = address
        self.store = Store(address)
        self.bad: dict[str, str] = {}
        """What is wrong with files at the address that could be found by their bytes only."""
        self._doubted: set[str] = set()
        """Files of which somebody said so."""
        self._told: dict[Path, float] = {}

    def marks(self) -> RemoteMarks:
        """Return the marks of the run."""
        return RemoteMarks(self.path, self.store, self.fetch, self.bad)

    # -- of an owner -----------------------------------------------------------------------------

    def begin(self, say: Callable[[str], object]) -> None:
        """Look whether a run can be there, and have here what it has come to."""
        if not self.store.exists(layout.MANIFEST) and not self.store.is_empty(_BESIDE):
            raise RunFolderError(
                f"{self.address} holds objects that no run left; give --out a new or empty place"
            )
        if not self.store.creates_once(f"{layout.WORK}/probe"):
            say(
                f"{self.address}: this store has no conditional put: two workers may write the "
                f"same shard, and the last one stays. Rows are the same where the backend "
                f"promises bytes; elsewhere let one process at a time work there"
            )
        say(f"{self.address}: its working copy here is {self.path}")
        self.open()
        self.look()
        self.bring_journals()

    def open(self) -> bool:
        """Have the manifest here, and no mark that is no longer so; whether there is a run."""
        text = self.store.read(layout.MANIFEST)
        here = self.path / layout.MANIFEST
        if here.exists() and (text is None or _run_id(text) != _run_id(here.read_bytes())):
            self._leave_behind()
        if text is not None:
            write_copy(here, text)
        self.refresh()
        notes = [each.key for each in self.store.list(_DOUBTED)]
        self._doubted = {
            name.decode(errors="replace") for name in self.store.read_several(notes).values()
        }
        return text is not None

    def claim(self, manifest: str) -> bool:
        """Put the manifest of a new run; whether nobody else has begun one meanwhile."""
        is_first = self.store.create(layout.MANIFEST, manifest.encode())
        if not is_first:
            self._pull(layout.MANIFEST)
        return is_first

    def refresh(self) -> None:
        """Remove the copies of marks that are not, or not so, at the address any more."""
        self.marks().refresh()

    def put(self, name: str) -> None:
        """Put a file that no mark lists in the place of what it was."""
        self.store.put(name, (self.path / name).read_bytes())

    def keep_journals(self) -> None:
        """Put what endpoints were asked, and have answered, for other machines to go on from."""
        for name in (layout.REQUESTS, layout.UTTERANCES):
            if (self.path / name).is_file():
                self.store.put(name, self.path / name)

    def bring_journals(self) -> None:
        """Have here what endpoints were asked by processes elsewhere, as far as they put it."""
        ours = map(self.store.info, (layout.REQUESTS, layout.UTTERANCES))
        for there in filter(None, (*ours, *self.store.list(layout.REQUESTS_OF))):
            here = self.path / there.key
            if not here.exists() or here.stat().st_size < there.bytes:
                self._pull(there.key)

    def withdraw(self, mark: str, files: Files) -> None:
        """Remove a mark, and those of its files that are as they were written."""
        self.store.delete(mark_key(mark))
        for name, facts in files.items():
            if name not in self.bad and self._is_as_written(name, facts):
                self.store.delete(name)

    def set_aside(self, name: str) -> None:
        """Copy an object that the run did not write to where its owner finds it."""
        self._trust(name)
        if not self.store.exists(name):
            return
        wanted = target = f"{layout.SET_ASIDE}/{name}"
        n = 1
        while self.store.exists(target):
            n += 1
            target = f"{wanted}.{n}"
        if self.store.copy(name, target):
            self.store.delete(name)

    def damage(self, files: Files) -> dict[str, str]:
        """Return what is wrong with files: with tables, as far as it shows from here.

        Those are large: whoever uses one fetches it, and looks at its bytes. So is done here with
        what somebody found to have other bytes.
        """
        tables = {name: facts for name, facts in files.items() if name.endswith(".parquet")}
        found = {}
        for name, facts in tables.items():
            there = self.store.info(name)
            if there is None:
                found[name] = "is gone"
            elif there.bytes != facts["bytes"]:
                found[name] = f"has {there.bytes:,} bytes, and {facts['bytes']:,} were written"
            elif name in self.bad:
                found[name] = self.bad[name]
        for name in sorted(self._doubted & files.keys() - found.keys()):
            if self._is_as_written(name, files[name]):
                self._trust(name)
            else:
                found[name] = _OTHER_BYTES
        others = {n: facts for n, facts in files.items() if n not in tables and n not in found}
        return found | self.marks().damage(others)

    def end(self) -> None:
        """Remove what only tells of work that is over now."""
        for each in self.store.list(layout.WORKERS):
            self.store.delete(each.key)

    # -- of everybody ----------------------------------------------------------------------------

    def bring(self, stage: str, number: int | None, wanted: Callable[[str], bool]) -> None:
        """Have here those files of a stage, or of one shard, that are ``wanted`` by their names."""
        marks = self.marks()
        for mark in marks.names(stage) if number is None else [shard_mark(stage, number)]:
            files = marks.read(mark).get("files", {})
            marks.damage({name: facts for name, facts in files.items() if wanted(name)})

    def offer(
        self, mark: str, body: dict[str, Any], staged: Mapping[str, Path], *, renew: bool = False
    ) -> dict[str, Any] | None:
        """Put files with their mark; ``None`` where others have made it: theirs stays."""
        token = uuid.uuid4().hex
        body = {**body, "maker": token}
        keys = {name: f"{_SHARDS}/{mark}.{token}/{flat(name)}" for name in staged}
        for name, path in staged.items():
            self.store.put(keys[name], path)
        text = sealed(body).encode()
        before: Files = {}
        if renew:
            before = self.marks().read(mark).get("files", {}) if mark in self.marks() else {}
            self.store.put(mark_key(mark), text)
        elif not self.store.create(mark_key(mark), text):
            for key in keys.values():
                self.store.delete(key)
            return None
        self._put_in_place(body["files"], keys, before)
        for name in before.keys() - body["files"].keys():
            if self._is_as_written(name, before[name]):
                self.store.delete(name)
        return body

    def settle(self) -> None:
        """Put files in their place whose makers stopped right behind their marks."""
        marks = self.marks()
        for each in self.store.list(_SHARDS, deep=True):
            folder, _, name = each.key.removeprefix(f"{_SHARDS}/").partition("/")
            mark, _, token = folder.rpartition(".")
            if mark not in marks:
                continue  # its maker may be at work
            try:
                body = marks.read(mark)
            except RunFolderError:  # whoever looks whether the stage is intact says so
                continue
            named = {flat(file): file for file in body.get("files", {})}
            if body.get("maker") == token and name in named:
                file = named[name]
                self._put_in_place({file: body["files"][file]}, {file: each.key}, {})
            self.store.delete(each.key)  # of who came second, too

    def check_manifest(self) -> None:
        """Have the manifest here as it is now."""
        self._pull(layout.MANIFEST)

    def look(self) -> None:
        """Have here what those at work say of themselves, and what would go on."""
        for name in (layout.STATUS, layout.RECIPE):
            self._pull(name)
        folder = self.path / layout.WORKERS
        there = [each.key for each in self.store.list(layout.WORKERS)]
        for key, text in self.store.read_several(there).items():
            write_copy(self.path / key, text)
        names = {PurePosixPath(key).name for key in there}
        for path in folder.glob("*.json") if folder.is_dir() else ():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def tell(self, path: Path, *, at_once: bool) -> None:
        """Let others read a file in which a process says what it is at; nothing depends on it."""
        now = time.monotonic()
        if not at_once and now - self._told.get(path, -_EVERY) < _EVERY:
            return
        self._told[path] = now
        with contextlib.suppress(OSError, StoreError):
            key = path.absolute().relative_to(self.path).as_posix()
            self.store.put(key, path.read_bytes(), tries=1)

    # -- of the working copy ---------------------------------------------------------------------

    def fetch(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Have a file here, if it is there as it was written."""
        target = self.path / name
        if not target.parent.resolve().is_relative_to(self.path.resolve()):
            raise RunFolderError(f"{target} lies outside of {self.path}, by a link; remove that")
        with self._fetched(name) as found:
            if found is None:
                return False
            if not Marks(self.path).is_as_written(found, facts):
                self.bad[name] = _OTHER_BYTES
                self._doubt(name)
                return False
            self.bad.pop(name, None)
            target.parent.mkdir(parents=True, exist_ok=True)
            found.replace(target)
        return True

    # -- inside ----------------------------------------------------------------------------------

    def _put_in_place(self, files: Files, keys: Mapping[str, str], before: Files) -> None:
        """Copy what waits to where the mark says it is; others may do the same meanwhile."""
        for name, key in keys.items():
            there = self.store.info(name)
            if there is not None and not self._is_as_written(name, files[name]):
                if name not in before or not self._is_as_written(name, before[name]):
                    self.set_aside(name)
                there = None
            if there is None:
                self.store.copy(key, name)  # or another has done it, and what waited is gone
            self._trust(name)
        for key in keys.values():
            self.store.delete(key)

    def _doubt(self, name: str) -> None:
        """Say where all see it that a file has other bytes than its mark tells of."""
        self._doubted.add(name)
        with contextlib.suppress(StoreError):  # who may only read
            self.store.put(f"{_DOUBTED}/{flat(name)}", name.encode())

    def _trust(self, name: str) -> None:
        """Take back what was said of a file that is gone now, or as it was written."""
        self.bad.pop(name, None)
        if name in self._doubted:
            self._doubted.discard(name)
            self.store.delete(f"{_DOUBTED}/{flat(name)}")

    def _is_as_written(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Whether an object is what a mark tells of, looked at where it is."""
        there = self.store.info(name)
        if there is None or there.bytes != facts["bytes"]:
            return False
        with self._fetched(name) as path:
            return path is not None and Marks(self.path).is_as_written(path, facts)

    @contextlib.contextmanager
    def _fetched(self, name: str) -> Iterator[Path | None]:
        """Yield a file with what an object holds, ``None`` where there is none."""
        path = self.path / layout.WORK / "fetched" / uuid.uuid4().hex
        with disk_errors(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield path if self.store.get(name, path) else None
            finally:
                path.unlink(missing_ok=True)

    def _pull(self, name: str) -> None:
        text = self.store.read(name)
        if text is None:
            (self.path / name).unlink(missing_ok=True)
        else:
            write_copy(self.path / name, text)

    def _leave_behind(self) -> None:
        """Begin a new working copy: this one is of a run that is no longer at the address."""
        marker = (self.path / layout.ADDRESS).read_bytes()
        self.path.rename(self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}"))
        write_copy(self.path / layout.ADDRESS, marker)


def _run_id(manifest: bytes) -> str | None:
    try:
        return str(json.loads(manifest)["run_id"])
    except (ValueError, KeyError, TypeError):
        return None
