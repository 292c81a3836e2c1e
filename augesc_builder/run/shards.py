"""The shards of a run's folder, which any number of processes may make at once.

A shard is written below ``.work``, in a folder named after its mark and its maker. Then its mark is
created, which only one maker can do: whoever comes second finds it there, and what it wrote goes.
With the mark the files are put in their place; should their maker be stopped before that, whoever
comes next does it, for the mark says by size and digest which files they are. Nobody asks who else
is at work, no clock is compared, and nothing is waited for: a worker that was stopped for an hour
and continued changes nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.disk import create_synced, disk_errors, measured, sealed, sync
from augesc_builder.run.marks import Files, shard_mark
from augesc_builder.run.place import flat
from augesc_builder.run.versions import versions

KEPT = "kept-"
"""How marks begin that finish nothing: of the recipe, and of what a training renews."""

_AGREED = f"{KEPT}agreed-"


class Shards:
    """What is finished in a run's folder, and what one of its makers adds.

    ``say`` is told what was set aside or is made again.
    """

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self.path = path
        self.place = place_of(path)
        self.marks = self.place.marks()
        self._say = say
        self._inputs: dict[str, str] = {}

    def use(self, stage: str, place: str | None = None) -> list[Path]:
        """Return the tables of an earlier stage in a folder below this one, each checked.

        What the stage wrote is an input of what is finished next. Raises
        :class:`~augesc_builder.errors.InputError` where a file is not as it was written, and for
        a table there that no stage wrote.
        """
        self._inputs[stage] = self.marks.digest(stage)
        self.bring(stage, tables=False)
        return [] if place is None else self.marks.table(self.path / place, stage)

    def bring(self, stage: str, number: int | None = None, *, tables: bool = True) -> None:
        """Have on this machine what a stage, or one of its shards, wrote, wherever that was.

        A shard has its mark a moment before its files: they are put in their place here, too.
        """
        self.place.bring(stage, number, lambda name: tables or not name.endswith(".parquet"))
        if number is not None:
            self._settle(shard_mark(stage, number))

    def made_from(self, inputs: Mapping[str, str]) -> None:
        """Note the digests of the stages that are used, which another process has looked up."""
        self._inputs = dict(inputs)

    @property
    def inputs(self) -> dict[str, str]:
        """Return the digests of the stages that are used, by name."""
        return dict(self._inputs)

    def facts(self, name: str) -> dict[str, Any]:
        """Return the facts that something finished was marked with."""
        mark = self.marks.read(name)
        return dict(mark.get("facts", mark))

    # -- shards ----------------------------------------------------------------------------------

    def shards(self, stage: str, n_shards: int) -> Iterator[int]:
        """Yield the numbers of a stage's shards that are not written yet, as they are asked for."""
        return (i for i in range(n_shards) if not self.has_shard(stage, i))

    def has_shard(self, stage: str, number: int) -> bool:
        """Whether a shard of a stage is written."""
        return shard_mark(stage, number) in self.marks

    def written_shards(self, stage: str) -> Iterator[int]:
        """Yield the numbers of a stage's shards that are written."""
        marks = (name for name in self.marks.each(stage) if name != stage)
        return (int(name.removeprefix(f"{stage}-")) for name in marks)

    def shard_fact(self, stage: str, number: int) -> dict[str, Any]:
        """Return what the mark of a written shard says."""
        return self.facts(shard_mark(stage, number))

    def shard_facts(self, stage: str, n_shards: int) -> list[dict[str, Any]]:
        """Return what the marks of a stage's shards say, in order."""
        return [self.shard_fact(stage, i) for i in range(n_shards)]

    def add_shard(
        self,
        stage: str,
        number: int,
        n_shards: int | None,
        tables: Mapping[str, pa.Table],
        **facts: Any,
    ) -> bool:
        """Write shard ``number`` of each table (a path below the folder); whether it was the first.

        ``n_shards`` is ``None`` where nobody knows yet how many there will be. Where somebody else
        has made the shard meanwhile, theirs stays and this one goes.
        """
        mark = shard_mark(stage, number)
        if mark in self.marks:
            return False
        rows = {name: table.num_rows for name, table in tables.items()}
        with disk_errors(self.path), self._aside(mark) as staging:
            files: Files = {}
            for name, table in tables.items():
                at = Path(layout.shard_path(name, number, n_shards)).as_posix()
                self.check_inside(at)
                staged = staging / flat(at)
                write_parquet(staged, table)
                files[at] = measured(staged).model_dump()
                sync(staged)
            is_first = self._create(mark, {"rows": rows, **facts}, files, staging)
            if is_first:
                self._put_in_place(files, staging)
            return is_first
        return False

    def settle(self) -> None:
        """Put in their place the files of shards whose makers stopped right behind their marks.

        What waits for a mark that nobody has created is left: its maker may be at work.
        """
        self.place.settle()
        self._settle("*")

    def _settle(self, marks: str) -> None:
        """Settle what waits for marks whose names match a pattern."""
        waiting = self.path / layout.WORK / layout.SHARDS
        for staging in sorted(waiting.glob(f"{marks}.*")) if waiting.is_dir() else ():
            mark = staging.name.rpartition(".")[0]
            if mark not in self.marks:
                continue
            try:
                files = self.marks.read(mark).get("files", {})
            except RunFolderError:  # whoever looks whether the stage is intact says so
                continue
            lacking = {
                name: files[name]
                for name in self.marks.damage(files)
                if self.marks.is_as_written(staging / flat(name), files[name])
            }
            self._put_in_place(lacking, staging)
            shutil.rmtree(staging, ignore_errors=True)  # of who came second, too

    # -- the first word --------------------------------------------------------------------------

    def agreed(self, stage: str) -> dict[str, Any] | None:
        """Return what the first of a stage's makers chose for all of them."""
        name = f"{_AGREED}{stage}"
        return self.facts(name) if name in self.marks else None

    def agree(self, stage: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Choose ``facts`` for all makers of a stage; return what the first of them chose."""
        mark = f"{_AGREED}{stage}"
        with disk_errors(self.path), self._aside(mark) as staging:
            self._create(mark, facts, {}, staging)
        return self.facts(mark)

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Mark ``facts`` under a name that begins with :data:`KEPT`, where that is not done yet."""
        if name not in self.marks:
            with disk_errors(self.path), self._aside(name) as staging:
                self._create(name, facts, {}, staging)

    # -- inside ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _aside(self, mark: str) -> Iterator[Path]:
        """Yield a folder for what waits for a mark; its name is that of no other maker's.

        It goes at the end, but where this one is interrupted with the mark there: what is in it may
        have to be put in its place still.
        """
        folder = self.path / layout.WORK / layout.SHARDS / f"{mark}.{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            yield folder
        except FileNotFoundError:
            if mark not in self.marks:
                raise
            # Another made it, the run ended, and what waited was taken away.
        except BaseException:
            if mark not in self.marks:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _create(self, mark: str, facts: Mapping[str, Any], files: Files, staging: Path) -> bool:
        path = self.marks.path(mark)
        path.parent.mkdir(exist_ok=True)
        body = {"facts": facts, "files": files, "inputs": self._inputs, "versions": versions()}
        offered = self.place.offer(mark, body, {name: staging / flat(name) for name in files})
        if offered is None:
            return False
        # Elsewhere the place has decided by now, and another may have fetched the mark.
        return create_synced(path, sealed(offered), staging / path.name) or offered is not body

    def _put_in_place(self, files: Files, staging: Path) -> None:
        """Move files of a mark to where it says they are; others may do the same meanwhile."""
        folders = set()
        for name, facts in files.items():
            self.check_inside(name)
            staged, target = staging / flat(name), self.path / name
            if target.exists() and not self.marks.is_as_written(target, facts):
                self.set_aside(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # put there by another
                staged.replace(target)
            folders.add(target.parent)
        for folder in folders:
            sync(folder)

    def check_inside(self, name: str) -> None:
        """Refuse to write outside of the folder, by dots or through a link."""
        target = (self.path / name).parent.resolve() / Path(name).name
        if ".." in Path(name).parts or not target.is_relative_to(self.path.resolve()):
            raise RunFolderError(
                f"{self.path / name} lies outside of {self.path}, by a link or by its name; give "
                f"--out a folder that holds its own files"
            )

    def set_aside(self, path: Path) -> None:
        """Move what this run did not write out of the way, where its owner finds it."""
        wanted = self.path / layout.SET_ASIDE / path.relative_to(self.path)
        target, n = wanted, 1
        while target.exists():
            n += 1
            target = wanted.with_name(f"{wanted.name}.{n}")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._say(f"{path} is not as this run left it; it is kept as {target}")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table; one without rows has no row group, which ``datasets`` could not read."""
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        if table.num_rows:
            writer.write_table(table)
