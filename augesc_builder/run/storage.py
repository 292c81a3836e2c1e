"""The files of a run: written aside, put in their place together with their mark, and known by it.

What is written waits below ``.work``. A commit notes names and digests first, so that one which a
kill interrupts is carried to its end by the next command. Only what the marks list is the run's
own: anything else that stands in the way is set aside, in the folder ``set-aside``, and never
removed.
"""

from __future__ import annotations

import contextlib
import os
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
from augesc_builder.run.marks import Marks
from augesc_builder.run.versions import versions

KEPT = "kept-"
"""How marks begin that finish nothing: of the recipe, and of what a training renews."""


class Storage:
    """The files below a folder that belong to its run.

    ``say`` is told what was set aside or is made again.
    """

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self.path = path
        self.marks = Marks(path)
        self._say = say
        self._staged: dict[str, Path] = {}
        self._inputs: dict[str, str] = {}

    # -- what was done ---------------------------------------------------------------------------

    def is_complete(self, stage: str) -> bool:
        """Whether a stage has its completion mark."""
        return stage in self.marks

    def is_intact(self, stage: str) -> bool:
        """Whether a stage is complete, each of its files as it was written.

        What is not is set aside and loses its mark, so that the stage makes it again.
        """
        intact = self.is_complete(stage)
        for name in self.marks.names(stage):
            try:
                damage = self.marks.damage(self.marks.read(name).get("files", {}))
            except RunFolderError as error:
                self._say(f"{error}; made again")
                self._set_aside(self.marks.path(name))
                intact = False
                continue
            for file, what in damage.items():
                self._say(f"{self.path / file} {what}; it is made again")
                if (self.path / file).exists():
                    self._set_aside(self.path / file)
            if damage:
                self.forget(name)
                intact = False
        if not intact:
            self.forget(stage)
        return intact

    def is_current(self, stage: str) -> bool:
        """Whether a stage and its shards were made from what the stages before it hold now."""
        return all(
            self.marks.digest(before) == digest
            for name in self.marks.names(stage)
            for before, digest in self.marks.read(name).get("inputs", {}).items()
        )

    def use(self, stage: str, place: str | None = None) -> list[Path]:
        """Return the tables of an earlier stage in a folder below this one, each checked.

        What the stage wrote is an input of the stage that is complete next. Raises
        :class:`~augesc_builder.errors.InputError` where a file is not as it was written, and for
        a table there that no stage wrote.
        """
        self._inputs[stage] = self.marks.digest(stage)
        return [] if place is None else self.marks.table(self.path / place, stage)

    def facts(self, stage: str) -> dict[str, Any]:
        """Return the facts that a complete stage was marked with."""
        mark = self.marks.read(stage)
        return dict(mark.get("facts", mark))

    def forget(self, name: str) -> None:
        """Remove a mark, and the files that were written for it where they are as they were."""
        if name not in self.marks:
            return
        files = self.marks.read(name).get("files", {})
        damaged = self.marks.damage(files)
        self.marks.path(name).unlink()
        for file in files.keys() - damaged.keys():
            (self.path / file).unlink()
            with contextlib.suppress(OSError):  # not empty
                (self.path / file).parent.rmdir()

    # -- tables in shards ------------------------------------------------------------------------

    def shards(self, stage: str, n_shards: int) -> Iterator[int]:
        """Return the numbers of a stage's shards that are not written yet."""
        return (i for i in range(n_shards) if not self.has_shard(stage, i))

    def has_shard(self, stage: str, number: int) -> bool:
        """Whether a shard of a stage is written."""
        return _shard(stage, number) in self.marks

    def written_shards(self, stage: str) -> list[int]:
        """Return the numbers of a stage's shards that are written."""
        marks = (name for name in self.marks.names(stage) if name != stage)
        return [int(name.removeprefix(f"{stage}-")) for name in marks]

    def shard_fact(self, stage: str, number: int) -> dict[str, Any]:
        """Return what the mark of a written shard says."""
        return self.facts(_shard(stage, number))

    def forget_shard(self, stage: str, number: int) -> None:
        """Remove a shard and its mark, where it is written."""
        self.forget(_shard(stage, number))

    def write_shard(
        self,
        stage: str,
        number: int,
        n_shards: int | None,
        tables: Mapping[str, pa.Table],
        **facts: Any,
    ) -> None:
        """Write shard ``number`` of each table (a path below the folder), then its mark.

        ``n_shards`` is ``None`` where nobody knows yet how many there will be.
        """
        for name, table in tables.items():
            self.write_table(layout.shard_path(name, number, n_shards), table)
        rows = {name: table.num_rows for name, table in tables.items()}
        self._commit(_shard(stage, number), {"rows": rows, **facts})

    def shard_facts(self, stage: str, n_shards: int) -> list[dict[str, Any]]:
        """Return what the marks of a stage's shards say, in order."""
        return [self.shard_fact(stage, i) for i in range(n_shards)]

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
        self._commit(f"{KEPT}{name}", {})

    def work(self, name: str) -> Path:
        """Return a folder for half-done things, kept until the run is done."""
        folder = self.path / layout.WORK / name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    # -- inside ----------------------------------------------------------------------------------

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

    def _commit(self, mark: str, facts: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            files = {name: measured(file).model_dump() for name, file in self._staged.items()}
            body = {"facts": facts, "files": files, "inputs": self._inputs, "versions": versions()}
            staged = {n: str(file.relative_to(self.path)) for n, file in self._staged.items()}
            intent = {"mark": mark, "body": body, "staged": staged}
            write_synced(self.work(".") / layout.COMMIT, sealed(intent))
            self._staged = {}
            self._carry_out(intent)

    def _carry_out(self, intent: Mapping[str, Any]) -> None:
        """Put files in their place, then the mark; done again after a kill, it does the rest."""
        known, folders, mark = self.marks.files(), set(), str(intent["mark"])
        for name in (*intent["staged"], *intent["staged"].values(), f"{layout.MARKS}/{mark}.json"):
            self._check_inside(name)
        waiting = any((self.path / staged).exists() for staged in intent["staged"].values())
        if not waiting and mark in self.marks and self.marks.read(mark) == intent["body"]:
            (self.path / layout.WORK / layout.COMMIT).unlink()  # all but this was done
            return
        for name, staged in intent["staged"].items():
            source, target = self.path / staged, self.path / name
            folders.add(target.parent)
            if not source.exists():
                continue  # it was put in its place before the kill
            if target.exists() and (name not in known or self.marks.damage({name: known[name]})):
                self._set_aside(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        if mark in self.marks:
            before = self.marks.read(mark).get("files", {})
            gone = {name: before[name] for name in before.keys() - intent["body"]["files"].keys()}
            for name in gone.keys() - self.marks.damage(gone).keys():
                (self.path / name).unlink()
        for folder in folders:
            sync(folder)
        self.marks.path(mark).parent.mkdir(exist_ok=True)
        write_synced(self.marks.path(mark), sealed(dict(intent["body"])))
        (self.path / layout.WORK / layout.COMMIT).unlink()

    def _check_inside(self, name: str) -> None:
        """Refuse to write outside of the folder, by dots or through a link."""
        target = Path(os.path.normpath(self.path / name))
        root = self.path.resolve()
        if not (target.parent.resolve() / target.name).is_relative_to(root):
            raise RunFolderError(
                f"{self.path / name} lies outside of {self.path}, by a link or by its name; give "
                f"--out a folder that holds its own files"
            )

    def _set_aside(self, path: Path) -> None:
        """Move what this run did not write out of the way, where its owner finds it."""
        wanted = self.path / layout.SET_ASIDE / path.relative_to(self.path)
        target, n = wanted, 1
        while target.exists():
            n += 1
            target = wanted.with_name(f"{wanted.name}.{n}")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._say(f"{path} is not as this run left it; it is kept as {target}")


def _shard(stage: str, number: int) -> str:
    return f"{stage}-{number:05d}"
