"""What a run leaves on disk, and how it gets there whole or not at all.

Everything is written below ``.work``, synced and renamed into place; the mark comes last. So the
marks are the truth about progress, and the manifest is the truth about settings. A run that was
killed resumes from both. The names on disk are in ``layout.py``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from augesc_builder.config.loader import differences
from augesc_builder.config.recipe import modernize
from augesc_builder.errors import AugescError, DiskError, RunFolderError, SettingsChangedError
from augesc_builder.run import layout

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class RunFolder:
    """A folder owned by one run at a time; a context manager that holds its lock.

    Raises :class:`~augesc_builder.errors.RunFolderError` where the path is a file or holds
    something that no run left, and :class:`~augesc_builder.errors.SettingsChangedError` where it
    was begun with other settings.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = dict(settings)
        self.manifest: dict[str, Any] = {}
        self._written: list[Path] = []

    def __enter__(self) -> RunFolder:
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(
                f"{self.path} is a file; give --out a folder that is new, or that a run began"
            )
        if self.path.is_dir() and not self._manifest_path.exists() and self._holds_strangers():
            raise RunFolderError(
                f"{self.path} holds files that no run left; give --out a new or empty folder"
            )
        with disk_errors(self.path):
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
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        disk_error = _disk_error(self.path, error) if isinstance(error, Exception) else None
        if error is None:
            shutil.rmtree(self.path / layout.WORK, ignore_errors=True)
        elif isinstance(disk_error or error, AugescError) and not self._has_marks():
            self._undo()
        self._lock.release()
        if disk_error is not None:
            raise disk_error from error

    # -- what was done ---------------------------------------------------------------------------

    def is_complete(self, stage: str) -> bool:
        """Whether a stage has its completion mark."""
        return self._mark(stage).exists()

    def complete(
        self, stage: str, *, tables: Mapping[str, int] | None = None, **facts: Any
    ) -> None:
        """Mark a stage as done.

        The rows of the ``tables`` it wrote and other ``facts`` go into the manifest, and so do the
        seconds since the folder was opened or the stage before was done.
        """
        now = time.monotonic()
        seconds, self._clock = round(now - self._clock, 1), now
        self.add(stages={stage: facts}, seconds={stage: seconds}, tables=tables or {})
        self.write_json(self._mark(stage).relative_to(self.path), facts)

    def facts(self, stage: str) -> dict[str, Any]:
        """Return the facts that a complete stage was marked with."""
        return dict(_load_json(self._mark(stage)))

    def record(self, **facts: Any) -> None:
        """Put facts into the manifest."""
        self.manifest |= facts
        self.write_json(layout.MANIFEST, self.manifest)

    def add(self, **groups: Mapping[str, Any]) -> None:
        """Add facts to groups of the manifest, such as ``revisions``."""
        self.record(**{name: self.manifest.get(name, {}) | dict(g) for name, g in groups.items()})

    # -- tables in shards ------------------------------------------------------------------------

    def shards(self, stage: str, n_shards: int) -> Iterator[int]:
        """Return the numbers of a stage's shards that are not written yet."""
        return (i for i in range(n_shards) if not self._mark(stage, i).exists())

    def write_shard(
        self, stage: str, number: int, n_shards: int, tables: Mapping[str, pa.Table], **facts: Any
    ) -> None:
        """Write shard ``number`` of each table (a path below the folder), then its mark."""
        for name, table in tables.items():
            self.write_table(layout.shard_path(name, number, n_shards), table)
        rows = {name: table.num_rows for name, table in tables.items()}
        self.write_json(self._mark(stage, number).relative_to(self.path), {"rows": rows, **facts})

    def shard_facts(self, stage: str, n_shards: int) -> list[dict[str, Any]]:
        """Return what the marks of a stage's shards say, in order."""
        return [_load_json(self._mark(stage, i)) for i in range(n_shards)]

    # -- single things ---------------------------------------------------------------------------

    def write_table(self, name: str | Path, table: pa.Table) -> None:
        """Write a table as Parquet."""
        with self.table_writer(name, table.schema) as write:
            write(table)

    @contextlib.contextmanager
    def table_writer(
        self, name: str | Path, schema: pa.Schema
    ) -> Iterator[Callable[[pa.Table], None]]:
        """Yield a function that writes a Parquet file table by table; it appears whole at the end.

        A table without rows is left out: ``datasets`` cannot read a row group that holds none.
        """
        with self._replacing(name) as temporary:  # noqa: SIM117 - closed before it is synced
            with pq.ParquetWriter(temporary, schema) as writer:
                yield lambda table: table.num_rows and writer.write_table(table)

    def write_text(self, name: str | Path, text: str) -> None:
        """Write a text file in UTF-8."""
        with self._replacing(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str | Path, value: Any) -> None:
        """Write a JSON file; NaN raises :class:`ValueError`, undefined numbers are ``null``."""
        self.write_text(
            name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write files into a new folder, which then takes its place whole."""
        temporary = self.work(f"{name}.new")
        shutil.rmtree(temporary)
        temporary.mkdir()
        with disk_errors(self.path / name):
            fill(temporary)
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _sync(file)
            _sync(temporary)
            shutil.rmtree(self.path / name, ignore_errors=True)
            temporary.rename(self.path / name)
            _sync(self.path)

    def work(self, name: str) -> Path:
        """Return a folder for half-done things, kept until the run is done."""
        folder = self.path / layout.WORK / name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _manifest_path(self) -> Path:
        return self.path / layout.MANIFEST

    def _mark(self, stage: str, number: int | None = None) -> Path:
        name = stage if number is None else f"{stage}-{number:05d}"
        return self.path / layout.MARKS / f"{name}.json"

    def _has_marks(self) -> bool:
        return any((self.path / layout.MARKS).glob("*.json"))

    def _undo(self) -> None:
        """Remove what this run wrote, when it failed before anything was finished."""
        for name in (layout.WORK, layout.MARKS):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in self._written:
            if path != self._manifest_path:
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or the run's own folder
                path.parent.rmdir()
        ours = {layout.MANIFEST, layout.RECIPE, layout.LOCK}
        if {entry.name for entry in self.path.iterdir()} <= ours:  # else the manifest says whose
            for name in ours:
                (self.path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _holds_strangers(self) -> bool:
        return any(entry.name not in {layout.LOCK, layout.WORK} for entry in self.path.iterdir())

    def _open(self) -> None:
        if not self._manifest_path.exists():
            self._begin()
            return
        self.manifest = _load_json(self._manifest_path)
        if "settings" in self.manifest:  # maybe those of an earlier version
            self.manifest["settings"] = modernize(self.manifest["settings"])
        if self.manifest.get("settings") != self.settings and not self._has_marks():
            # Nothing was finished with the other settings, so nothing is lost by starting again.
            shutil.rmtree(self.path / layout.WORK, ignore_errors=True)
            self._begin()
            return
        if changed := differences(self.manifest.get("settings", {}), self.settings):
            lines = ", ".join(
                f"{k} ({old!r} there, {new!r} now)" for k, (old, new) in changed.items()
            )
            raise SettingsChangedError(
                f"{self.path} was begun with other settings: {lines}; "
                f"give another --out, or the settings it was begun with"
            )

    def _begin(self) -> None:
        text = json.dumps(self.settings, sort_keys=True)
        self.manifest = {}
        self.record(
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16], settings=self.settings
        )

    @contextlib.contextmanager
    def _replacing(self, name: str | Path) -> Iterator[Path]:
        """Yield a temporary path that is synced and renamed to ``name`` when all went well."""
        target = self.path / name
        temporary = self.work("files") / f"{target.name}.{os.getpid()}"
        with disk_errors(target):
            try:
                yield temporary
                _sync(temporary)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
                self._written.append(target)
                _sync(target.parent)
            finally:
                temporary.unlink(missing_ok=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a run's folder.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there is none, or it is unreadable.
    """
    if not (path / layout.MANIFEST).exists():
        raise RunFolderError(f"{path}: no {layout.MANIFEST} there; give the folder of a run")
    return dict(_load_json(path / layout.MANIFEST))


def is_stage_complete(path: Path, stage: str) -> bool:
    """Whether the run in a folder has finished a stage."""
    return (path / layout.MARKS / f"{stage}.json").exists()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into a one-line error, whichever library met it.

    Raises :class:`~augesc_builder.errors.DiskError` for it; other errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if (disk_error := _disk_error(path, error)) is not None:
            raise disk_error from error
        raise


_FULL_IN_TEXT = re.compile(
    rf"(?:code:|errno|os error) (?:{'|'.join(map(str, sorted(_FULL)))})\b", re.IGNORECASE
)
"""How safetensors and Arrow name the system's error."""

_NEARLY_FULL = 1 << 20
"""Free bytes below which any failure to write is put down to the disk: torch names no error."""


def _disk_error(path: Path, error: Exception) -> DiskError | None:
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
    if number in {errno.ENOTDIR, errno.ENAMETOOLONG}:
        return DiskError(f"{path}: {os.strerror(number)}; give another --out")
    return None


def _is_nearly_full(path: Path) -> bool:
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    return usage.total > 0 and usage.free < _NEARLY_FULL


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunFolderError(
            f"{path}: unreadable ({error}); delete the folder, or give another --out"
        ) from None
