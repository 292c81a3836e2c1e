"""The files of a run: written aside, put in their place together with their mark, and known by it.

What is written waits below ``.work``. A commit notes names and digests first, so that one which a
kill interrupts is carried to its end by the next command. Only what the marks list is the run's
own: anything else that stands in the way is set aside, in the folder ``set-aside``, and never
removed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import (
    disk_errors,
    measured,
    sealed,
    sync,
    to_json,
    write_synced,
)
from augesc_builder.run.marks import Marks, shard_mark
from augesc_builder.run.shards import KEPT, Shards
from augesc_builder.run.versions import versions


class Storage(Shards):
    """The files below a folder that belong to its run, which one process at a time owns.

    ``say`` is told what was set aside or is made again.
    """

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        super().__init__(path, say)
        self._staged: dict[str, Path] = {}

    # -- what was done ---------------------------------------------------------------------------

    def is_complete(self, stage: str) -> bool:
        """Whether a stage has its completion mark."""
        return stage in self.marks

    def is_intact(self, stage: str) -> bool:
        """Whether a stage is complete, each of its files as it was written.

        What is not is set aside and loses its mark, so that the stage makes it again.
        """
        intact = self.is_complete(stage)
        for name in self.marks.each(stage):
            try:
                damage = self.place.damage(self.marks.read(name).get("files", {}))
            except RunFolderError as error:
                self._say(f"{error}; made again")
                self._put_by(f"{layout.MARKS}/{name}.json")
                intact = False
                continue
            for file, what in damage.items():
                self._say(f"{self.place}/{file} {what}; it is made again")
                self._put_by(file)
            if damage:
                self.forget(name)
                intact = False
        if not intact:
            self.forget(stage)
        return intact

    def is_current(self, stage: str) -> bool:
        """Whether a stage and its shards were made from what the stages before it hold now."""
        now: dict[str, str] = {}
        for name in self.marks.each(stage):
            for before, digest in self.marks.read(name).get("inputs", {}).items():
                if before not in now:
                    now[before] = self.marks.digest(before)
                if now[before] != digest:
                    return False
        return True

    def forget(self, name: str) -> None:
        """Remove a mark, and the files that were written for it where they are as they were."""
        if name not in self.marks:
            return
        files = self.marks.read(name).get("files", {})
        self.place.withdraw(name, files)
        damaged = Marks(self.path).damage(files)  # in this folder
        self.marks.path(name).unlink()
        for file in files.keys() - damaged.keys():
            (self.path / file).unlink()
            with contextlib.suppress(OSError):  # not empty
                (self.path / file).parent.rmdir()

    def forget_shard(self, stage: str, number: int) -> None:
        """Remove a shard and its mark, where it is written."""
        self.forget(shard_mark(stage, number))

    def replace_shard(
        self,
        stage: str,
        number: int,
        n_shards: int | None,
        tables: Mapping[str, pa.Table],
        **facts: Any,
    ) -> None:
        """Write shard ``number`` of each table, as ``add_shard`` does, in the place of another."""
        for name, table in tables.items():
            self.write_table(layout.shard_path(name, number, n_shards), table)
        rows = {name: table.num_rows for name, table in tables.items()}
        mark = shard_mark(stage, number)
        self._commit(mark, {"rows": rows, **facts}, renew=mark in self.marks)

    def sweep(self) -> None:
        """Remove what is half-done, but what other makers of shards may be at."""
        work = self.path / layout.WORK
        with contextlib.suppress(OSError, RunFolderError):
            self.settle()
        for entry in [*work.glob("*")] if work.is_dir() else []:
            if entry.is_dir() and entry.name != layout.SHARDS:
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.is_dir():
                entry.unlink(missing_ok=True)
        for folder in (work / layout.SHARDS, work):
            with contextlib.suppress(OSError):  # not there, or not empty
                folder.rmdir()

    # -- single things, in their place when the stage or the shard is complete -------------------

    def write_table(self, name: str | Path, table: pa.Table) -> None:
        """Write a table as Parquet."""
        with self.table_writer(name, table.schema) as write:
            write(table)

    @contextlib.contextmanager
    def table_writer(
        self, name: str | Path, schema: pa.Schema
    ) -> Iterator[Callable[[pa.Table], None]]:
        """Yield a function that writes a Parquet file table by table.

        A table without rows is left out: ``datasets`` cannot read a row group that holds none.
        """
        with self._staging(name) as temporary:  # noqa: SIM117 - closed before it is synced
            with pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer:
                yield lambda table: table.num_rows and writer.write_table(table)

    def write_text(self, name: str | Path, text: str) -> None:
        """Write a text file in UTF-8."""
        with self._staging(name) as temporary:
            # Only names of files can hold what is not UTF-8; JSON reads the same name back.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    def write_json(self, name: str | Path, value: Any) -> None:
        """Write a JSON file; NaN raises :class:`ValueError`, undefined numbers are ``null``."""
        self.write_text(name, to_json(value))

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` write the files of a folder."""
        temporary = self.work(f"{name}.new")
        shutil.rmtree(temporary)
        temporary.mkdir()
        with disk_errors(self.path / name):
            fill(temporary)
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    sync(file)
                    self._staged[f"{name}/{file.relative_to(temporary).as_posix()}"] = file

    def keep(self, name: str, content: str | Callable[[Path], None]) -> None:
        """Put a text, or a folder that a function fills, in its place at once.

        It finishes nothing, and may be renewed.
        """
        if isinstance(content, str):
            path = self.path / name
            if (
                f"{KEPT}{name}" in self.marks
                and path.is_file()
                and path.read_text("utf-8") == content
            ):
                return
            self.write_text(name, content)
        else:
            self.write_folder(name, content)
        self._commit(f"{KEPT}{name}", {}, renew=True)

    def work(self, name: str) -> Path:
        """Return a folder for half-done things, kept until the run is done."""
        folder = self.path / layout.WORK / name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # -- inside ----------------------------------------------------------------------------------

    def _put_by(self, name: str) -> None:
        """Set a file aside that is not the run's, here and where the run is."""
        self.place.set_aside(name)
        if (self.path / name).exists():
            self.set_aside(self.path / name)

    @contextlib.contextmanager
    def _staging(self, name: str | Path) -> Iterator[Path]:
        """Yield a path to write to; the file is synced, and waits for its mark."""
        name = Path(name).as_posix()
        temporary = self.work("files") / f"{len(self._staged)}-{Path(name).name}"
        with disk_errors(self.path / name):
            try:
                yield temporary
                sync(temporary)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self._staged[name] = temporary

    def _commit(self, mark: str, facts: Mapping[str, Any], *, renew: bool = False) -> None:
        with disk_errors(self.path):
            files = {name: measured(file).model_dump() for name, file in self._staged.items()}
            body = {"facts": facts, "files": files, "inputs": self._inputs, "versions": versions()}
            offered = self.place.offer(mark, body, self._staged, renew=renew)
            if offered is None:
                self._say(f"{self.place}: another process has finished {mark}; what it made stays")
                for file in self._staged.values():
                    file.unlink(missing_ok=True)
                self._staged = {}
                return
            body = offered
            staged = {n: str(file.relative_to(self.path)) for n, file in self._staged.items()}
            intent = {"mark": mark, "body": body, "staged": staged}
            write_synced(self.work(".") / layout.COMMIT, sealed(intent))
            self._staged = {}
            self._carry_out(intent)

    def _carry_out(self, intent: Mapping[str, Any]) -> None:
        """Put files in their place, then the mark; done again after a kill, it does the rest."""
        here, folders, mark = Marks(self.path), set(), str(intent["mark"])
        for name in (*intent["staged"], *intent["staged"].values(), f"{layout.MARKS}/{mark}.json"):
            self.check_inside(name)
        waiting = any((self.path / staged).exists() for staged in intent["staged"].values())
        if not waiting and mark in here and here.read(mark) == intent["body"]:
            (self.path / layout.WORK / layout.COMMIT).unlink()  # all but this was done
            return
        there = {name for name in intent["staged"] if (self.path / name).exists()}
        known = here.files([mark] if mark in here else [])
        known |= here.find(there - known.keys())
        for name, staged in intent["staged"].items():
            source, target = self.path / staged, self.path / name
            folders.add(target.parent)
            if not source.exists():
                continue  # it was put in its place before the kill
            if target.exists() and (name not in known or here.damage({name: known[name]})):
                self.set_aside(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        if mark in here:
            before = here.read(mark).get("files", {})
            gone = {name: before[name] for name in before.keys() - intent["body"]["files"].keys()}
            for name in gone.keys() - here.damage(gone).keys():
                (self.path / name).unlink()
        for folder in folders:
            sync(folder)
        here.path(mark).parent.mkdir(exist_ok=True)
        write_synced(here.path(mark), sealed(dict(intent["body"])))
        (self.path / layout.WORK / layout.COMMIT).unlink()
