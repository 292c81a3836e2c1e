"""A run's folder: whose it is, with which settings it was begun, who is at work in it.

The marks are the truth about progress (:mod:`augesc_builder.run.marks`), the manifest is the truth
about settings, and :mod:`augesc_builder.run.storage` is how files get there whole or not at all. A
folder is known by what its manifest says it is, never by a file's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from augesc_builder.config.loader import differences
from augesc_builder.config.recipe import modernize
from augesc_builder.errors import (
    AugescError,
    RunFolderError,
    SettingsChangedError,
    ShardsLeftError,
)
from augesc_builder.run import layout
from augesc_builder.run.copies import folder_of, place_of
from augesc_builder.run.disk import (
    disk_error,
    disk_errors,
    load_sealed,
    sealed,
    sync,
    write_synced,
)
from augesc_builder.run.heartbeat import StatusFile, read_status
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import KEPT, Shards
from augesc_builder.run.storage import Storage
from augesc_builder.run.versions import check_same, fingerprint, versions

KIND = "augesc run"
"""What the manifest of every run says it is."""


class RunFolder(Storage):
    """A folder owned by one run at a time; a context manager that holds its lock.

    With a ``progress``, how far the run is stands in its status file, too.

    Raises
    ------
    :class:`~augesc_builder.errors.RunFolderError` where the path is a file or holds something that
    no run left, and :class:`~augesc_builder.errors.SettingsChangedError` where it was begun with
    other settings.

    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> None:
        super().__init__(folder_of(path), progress.say if progress is not None else lambda _: None)
        self._progress, self._status = progress, StatusFile(self.path)
        self.settings, self.manifest = dict(settings), dict[str, Any]()

    def __enter__(self) -> RunFolder:
        with disk_errors(self.path):
            self.place.begin(self._say)
            has_begun(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / layout.LOCK, timeout=0)
            try:
                self._lock.acquire()
            except Timeout:
                raise RunFolderError(
                    f"{self.path}: another run is at work there; wait for it or stop it"
                ) from None
        self._clock = time.monotonic()
        try:
            with disk_errors(self.path):
                self._open()
                self._count_unfinished()
        except BaseException:
            self._lock.release()
            raise
        self.begin(None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.end()
        on_disk = disk_error(self.path, error) if isinstance(error, Exception) else None
        try:
            if error is None:
                self.sweep()
                shutil.rmtree(self.path / layout.WORKERS, ignore_errors=True)
                self.place.end()
            self.place.keep_journals()
            may_undo = isinstance(on_disk or error, AugescError) and self.place.is_alone
            if may_undo and not isinstance(error, ShardsLeftError) and not self._has_finished():
                self._undo()
            else:
                self._status.end(on_disk or error)
        finally:
            self._lock.release()
        if on_disk is not None:
            raise on_disk from error

    # -- what was done ---------------------------------------------------------------------------

    def begin(self, stage: str | None) -> None:
        """Say that a stage is at work; ``None``: what is done is checked."""
        if self._progress is not None:
            self._progress.begin(stage, self._status.write)

    def complete(
        self,
        stage: str,
        *,
        tables: Mapping[str, int] | None = None,
        again: bool = False,
        **facts: Any,
    ) -> None:
        """Put what a stage wrote in its place, and mark the stage as done.

        The rows of the ``tables`` it wrote and other ``facts`` go into the manifest, and so do the
        seconds since the folder was opened or the stage before was done, and those of processes
        before. ``again``: it was done before, and is replaced.
        """
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        before = self.manifest.get("seconds", {}).get(stage, 0.0)
        self.add(
            stages={stage: facts},
            seconds={stage: round(before + seconds, 1)},
            tables=tables or {},
            stage_versions={stage: versions()},
        )
        self.place.keep_journals()
        self._commit(stage, facts, renew=again)
        self._inputs = {}

    def start_again(self, stage: str) -> None:
        """Forget all of a stage: its marks, what was written for them, the time it took."""
        for mark in self.marks.each(stage):
            self.forget(mark)
        seconds = self.manifest.get("seconds", {}).items()
        self.record(seconds={name: spent for name, spent in seconds if name != stage})

    def record(self, **facts: Any) -> None:
        """Put facts into the manifest."""
        self.manifest |= facts
        work = self.work("files") / layout.MANIFEST
        with disk_errors(self.path):
            write_synced(work, sealed(self.manifest))
            work.replace(self.path / layout.MANIFEST)
            sync(self.path)
        self.place.put(layout.MANIFEST)

    def add(self, **groups: Mapping[str, Any]) -> None:
        """Add facts to groups of the manifest, such as ``revisions``."""
        self.record(**{name: self.manifest.get(name, {}) | dict(g) for name, g in groups.items()})

    # -- inside ----------------------------------------------------------------------------------

    def _has_finished(self) -> bool:
        """Whether something is there that is not made again: marks, states, or paid answers."""
        marked = any(not name.startswith(KEPT) for name in self.marks.scan())
        said = any((self.path / name).exists() for name in layout.JOURNALS)
        return marked or layout.holds_states(self.path) or said

    def _undo(self) -> None:
        """Remove what this run wrote, when it failed before anything was finished."""
        shutil.rmtree(self.path / layout.WORK, ignore_errors=True)
        for name in (layout.STATUS, layout.STATUS_NEW):
            (self.path / name).unlink(missing_ok=True)
        for name in self.marks.names():
            self.forget(name)
        for folder in (layout.MARKS, layout.SET_ASIDE):
            with contextlib.suppress(OSError):  # not empty
                (self.path / folder).rmdir()
        ours = {layout.MANIFEST, layout.LOCK}
        if {entry.name for entry in self.path.iterdir()} <= ours:  # else the manifest says whose
            for name in ours:
                (self.path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _open(self) -> None:
        if not (self.path / layout.MANIFEST).exists():
            begun = self._new()
            if self.place.claim(sealed(begun)):
                self.record(**begun)
                return
        self.manifest = read_manifest(self.path)
        intent = self.path / layout.WORK / layout.COMMIT
        if intent.exists():
            self._carry_out(load_sealed(intent))
        self.settle()
        self.place.refresh()
        if "settings" in self.manifest:  # maybe those of an earlier version
            self.manifest["settings"] = modernize(self.manifest["settings"])
        if self.manifest.get("settings") != self.settings and not self._has_finished():
            # Nothing was finished with the other settings, so nothing is lost by starting again.
            shutil.rmtree(self.path / layout.WORK, ignore_errors=True)
            for name in self.marks.names():
                self.forget(name)
            self.record(**self._new())
            return
        _check_settings(self.path, self.manifest["settings"], self.settings)

    def _count_unfinished(self) -> None:
        """Add the time that a process before spent on a stage it did not finish.

        That is known by its last word, some seconds before a kill.
        """
        try:
            status = read_status(self.path)
        except RunFolderError:  # nothing but this depends on it
            return
        if status is None:
            return
        stage, seconds = status.work.stage, status.work.seconds
        if stage is not None and stage not in self.marks:
            before = self.manifest.get("seconds", {}).get(stage, 0.0)
            self.add(seconds={stage: round(before + seconds, 1)})
        (self.path / layout.STATUS).unlink(missing_ok=True)  # or it would be counted twice

    def _new(self) -> dict[str, Any]:
        """Return the manifest of a run that begins."""
        self.manifest = {}
        return new_manifest(self.settings)


def new_manifest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest of a new run says."""
    return {
        "kind": KIND,
        "run_id": uuid.uuid4().hex,
        "fingerprint": _fingerprint(settings),
        "settings": dict(settings),
    }


def has_begun(path: Path) -> bool:
    """Whether a run has begun in a folder, which may be there or not.

    Raises :class:`~augesc_builder.errors.RunFolderError` where something else is there.
    """
    manifest = path / layout.MANIFEST
    if path.exists() and not path.is_dir():
        raise RunFolderError(
            f"{path} is a file; give --out a folder that is new, or that a run began"
        )
    strange = path.is_dir() and not manifest.exists() and _holds_strangers(path)
    if strange and not manifest.exists():  # else another worker has begun just now
        raise RunFolderError(
            f"{path} holds files that no run left; give --out a new or empty folder"
        )
    if not manifest.exists():
        return False
    read_manifest(path)
    return True


def join(path: Path, settings: Mapping[str, Any], say: Callable[[str], object]) -> Shards:
    """Return the shards of a run that another process began, for one that helps to make them.

    Raises :class:`~augesc_builder.errors.SettingsChangedError` for other settings,
    :class:`~augesc_builder.errors.ExecutorError` for other packages, and
    :class:`~augesc_builder.errors.RunFolderError` where no run has begun.
    """
    place = place_of(path)
    place.check_manifest()
    place.refresh()
    manifest = read_manifest(path)
    _check_settings(path, modernize(manifest.get("settings", {})), settings)
    check_same(manifest.get("made_with", {}), fingerprint(), f"this worker, on {platform.node()},")
    return Shards(path, say)


def _check_settings(path: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse other settings than a run was begun with."""
    changed = {
        key: (old, new)
        for key, (old, new) in differences(begun, now).items()
        if old is not None or not key.startswith("inputs.")  # earlier versions knew fewer
    }
    if changed:
        lines = ", ".join(f"{k} ({old!r} there, {new!r} now)" for k, (old, new) in changed.items())
        raise SettingsChangedError(
            f"{path} was begun with other settings: {lines}; "
            f"give another --out, or the settings it was begun with"
        )


def _fingerprint(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def is_run(path: Path) -> bool:
    """Whether a folder has the manifest of a run, and not another file of that name."""
    try:
        found = json.loads((path / layout.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    before = "settings" in found and found.get("fingerprint") == _fingerprint(found["settings"])
    return found.get("kind") == KIND or before


def _holds_strangers(path: Path) -> bool:
    """Whether a folder without a manifest holds more than a run killed at its start leaves."""
    begun = {layout.LOCK, layout.WORK, f"{layout.WORK}/files", layout.ADDRESS}
    for entry in path.rglob("*"):
        name = entry.relative_to(path).as_posix()
        if name not in begun and not name.startswith(f"{layout.WORK}/files/{layout.MANIFEST}"):
            return True
    lock = path / layout.LOCK
    return lock.is_symlink() or (lock.is_file() and lock.stat().st_size > 0)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a run's folder.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there is none, or it is unreadable.
    """
    if not (path / layout.MANIFEST).exists():
        raise RunFolderError(f"{path}: no {layout.MANIFEST} there; give the folder of a run")
    manifest = load_sealed(path / layout.MANIFEST)
    if not is_run(path):
        raise RunFolderError(
            f"{path}: its {layout.MANIFEST} is not that of a run; give the folder of a run"
        )
    return manifest
