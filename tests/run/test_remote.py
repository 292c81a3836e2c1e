"""A run at an address is the run of a disk: the marks there decide, and files are known by them."""

from __future__ import annotations

import hashlib
import json
import pickle
import uuid

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import RunFolderError, StoreError
from augesc_builder.run.copies import fetched, folder_of, opened, place_of
from augesc_builder.run.folder import RunFolder, join, read_manifest
from augesc_builder.run.heartbeat import read_workers
from augesc_builder.run.remote_marks import _is_copy
from augesc_builder.run.shards import Shards
from augesc_builder.run.shared import SharedRun
from augesc_builder.run.status import overview
from augesc_builder.run.store import Object, Store, check_address
from augesc_builder.run.telling import Telling

SETTINGS = {"stage": "filter", "seed": 1}


class Killed(BaseException):
    pass


@pytest.fixture
def address(monkeypatch, tmp_path):
    monkeypatch.setenv("AUGESC_WORK", str(tmp_path / "a"))
    return f"memory://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Be another machine, whose working copies are empty."""

    def go(name="b"):
        monkeypatch.setenv("AUGESC_WORK", str(tmp_path / name))

    return go


def keys(address):
    found = fsspec.filesystem("memory").find(address)
    return sorted(name.removeprefix(address.removeprefix("memory:/")).lstrip("/") for name in found)


def begin(address, *values, settings=SETTINGS):
    with RunFolder(address, settings) as run:
        for number, value in enumerate(values):
            run.add_shard("filter", number, len(values), {"data/train": pa.table({"a": [value]})})
        run.write_json("report.json", {"n": len(values)})
        run.complete("filter")


def values(path):
    return [v for file in sorted(path.glob("data/*")) for v in pq.read_table(file)["a"].to_pylist()]


def test_what_a_run_makes_is_at_its_address(address, elsewhere):
    begin(address, 1, 2)
    assert keys(address) == [
        *(".complete/filter-00000.json", ".complete/filter-00001.json", ".complete/filter.json"),
        *("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
        *("manifest.json", "report.json"),
    ]
    elsewhere()
    assert values(fetched(address)) == [1, 2]
    assert fetched(f"{address}/data").name == "data"
    assert fetched(f"{address}/corpus/data").name == "data"
    with pytest.raises(RunFolderError, match=r"no manifest\.json there"):
        fetched(f"{address}/far/below/data")
    with RunFolder(address, SETTINGS) as run:
        assert run.is_intact("filter")
        assert (run.path / "report.json").exists()


def test_a_report_is_there_on_another_machine_and_tables_where_they_are_used(address, elsewhere):
    begin(address, 1, 2)
    elsewhere()
    with RunFolder(address, SETTINGS) as run:
        assert run.is_intact("filter")
        assert (run.path / "report.json").exists()
        assert not (run.path / "data").exists()
        assert len(run.use("filter", "data")) == 2
        assert values(run.path) == [1, 2]


def test_what_is_done_again_on_purpose_replaces_what_was_done(address, elsewhere):
    begin(address, 1)
    elsewhere()
    with RunFolder(address, SETTINGS) as run:
        run.write_json("report.json", {"n": 7})
        run.complete("filter", again=True)
    elsewhere()
    assert json.loads((fetched(address) / "report.json").read_text()) == {"n": 7}
    assert keys(address)[-2:] == ["manifest.json", "report.json"]


def test_whoever_comes_second_changes_nothing(address, elsewhere):
    begin(address)
    first = Shards(folder_of(address), lambda _: None)
    elsewhere()
    second = Shards(opened(address), lambda _: None)
    assert first.path != second.path
    assert first.add_shard("s", 0, 1, {"t/part": pa.table({"a": [1]})}, by=1)
    assert not second.add_shard("s", 0, 1, {"t/part": pa.table({"a": [2]})}, by=2)
    assert second.has_shard("s", 0)
    assert second.shard_fact("s", 0)["by"] == 1
    second.bring("s")
    assert pq.read_table(second.path / "t/part-00000-of-00001.parquet")["a"].to_pylist() == [1]
    assert not [key for key in keys(address) if key.startswith(".work")]
    assert [*second.shards("s", 2)] == [1]


@pytest.mark.parametrize("step", ["create", "copy", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_a_maker_that_is_killed_leaves_what_others_settle(
    address, elsewhere, monkeypatch, step, after
):
    begin(address)
    maker, whole = Shards(folder_of(address), lambda _: None), getattr(Store, step)

    def killed(*arguments):
        if after:
            whole(*arguments)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Store, step, killed)
        maker.add_shard("s", 0, 1, {"t/part": pa.table({"a": [1]})})
    elsewhere()
    other = Shards(opened(address), lambda _: None)
    other.settle()
    if (step, after) == ("create", False):  # no mark: its maker may be at work still
        assert not other.has_shard("s", 0)
        assert other.add_shard("s", 0, 1, {"t/part": pa.table({"a": [2]})})
        other.settle()
    assert other.has_shard("s", 0)
    other.bring("s")
    found = pq.read_table(other.path / "t/part-00000-of-00001.parquet")["a"].to_pylist()
    assert found == [2 if (step, after) == ("create", False) else 1]
    assert not [key for key in keys(address) if key.startswith((".work", "set-aside"))]


def test_an_owner_who_is_second_is_told_and_takes_what_is_there(address, elsewhere):
    begin(address)
    with RunFolder(address, SETTINGS) as first:
        elsewhere()
        said = []
        with RunFolder(address, SETTINGS) as second:
            second._say = said.append
            for run, text in ((first, "1"), (second, "2")):
                run.write_text("late.txt", text)
                run.complete("late")
            second.use("late")
            assert (second.path / "late.txt").read_text() == "1"
    assert [line for line in said if "another process has finished late" in line] == said
    assert Store(address).read("late.txt") == b"1"


@pytest.mark.parametrize("harm", [lambda text: text[:-1], lambda text: b"X" + text[1:]])
def test_a_table_that_was_changed_at_the_address_is_found_and_made_again(address, elsewhere, harm):
    begin(address, 1, 2)
    name = "data/train-00001-of-00002.parquet"
    store = Store(address)
    store.put(name, harm(store.read(name)))
    with pytest.raises(RunFolderError, match=r"of-00002\.parquet"):
        elsewhere()
        fetched(address)
    elsewhere("c")
    said = []
    with RunFolder(address, SETTINGS) as run:
        run._say = said.append
        run.bring("filter")  # whoever uses it finds out
        assert not run.is_intact("filter")
        assert [*run.shards("filter", 2)] == [1]
        run.add_shard("filter", 1, 2, {"data/train": pa.table({"a": [2]})})
        run.write_json("report.json", {"n": 2})
        run.complete("filter")
        assert run.is_intact("filter")
    assert any(f"{address}/{name}" in line for line in said)
    assert f"set-aside/{name}" in keys(address)
    elsewhere("d")
    assert values(fetched(address)) == [1, 2]


@pytest.mark.parametrize("name", ["data/train-00001-of-00002.parquet", "report.json"])
def test_what_a_reader_found_changed_is_made_again_by_whoever_owns_the_run(
    address, elsewhere, name
):
    """Though its size is right, and the copies of who made it are good."""
    begin(address, 1, 2)
    store = Store(address)
    store.put(name, bytes([store.read(name)[0] ^ 1]) + store.read(name)[1:])
    elsewhere()
    for _ in range(2):
        with pytest.raises(RunFolderError, match="has other bytes than were written"):
            fetched(address)
    elsewhere("a")
    said = []
    with RunFolder(address, SETTINGS) as run:
        run._say = said.append
        assert not run.is_intact("filter")
        for number in run.shards("filter", 2):
            run.add_shard("filter", number, 2, {"data/train": pa.table({"a": [number + 1]})})
        run.write_json("report.json", {"n": 2})
        run.complete("filter")
    assert any(line.startswith(f"{address}/{name} has other bytes") for line in said)
    assert f"set-aside/{name}" in keys(address)
    assert not [key for key in keys(address) if key.startswith(".work")]
    elsewhere()
    assert values(fetched(address)) == [1, 2]


def test_what_somebody_says_of_a_file_is_looked_at(address, elsewhere):
    begin(address, 1)
    name = "data/train-00000-of-00001.parquet"
    Store(address).put(f".work/doubted/{name.replace('/', '--')}", name.encode())
    elsewhere()
    with RunFolder(address, SETTINGS) as run:
        assert run.is_intact("filter")
    assert not [key for key in keys(address) if key.startswith((".work", "set-aside"))]


@pytest.mark.parametrize("stranger", [lambda text: b"mine", lambda text: text[:-9] + b"X" * 9])
def test_a_stranger_where_a_file_belongs_is_set_aside(address, elsewhere, stranger):
    """Whether or not it is as large as the file."""
    name, table = "t/part-00000-of-00001.parquet", {"t/part": pa.table({"a": [1]})}
    begin(address)
    elsewhere("a")
    Shards(opened(address), lambda _: None).add_shard("s", 0, 1, table)
    store, there = Store(address), f"{address}-2"
    wanted = store.read(name)
    begin(there)
    Store(there).put(name, stranger(wanted))
    elsewhere("b")
    Shards(opened(there), lambda _: None).add_shard("s", 0, 1, table)
    assert Store(there).read(f"set-aside/{name}") == stranger(wanted)
    assert Store(there).read(name) == wanted


def test_what_others_left_is_no_place_for_a_run(address):
    Store(address).put("thesis.tex", b"mine")
    with pytest.raises(RunFolderError, match="no run left"):
        begin(address)
    assert keys(address) == ["thesis.tex"]


def test_other_settings_are_refused_on_any_machine(address, elsewhere):
    begin(address, 1)
    elsewhere()
    with pytest.raises(RunFolderError, match="other settings"):
        begin(address, 1, settings={**SETTINGS, "seed": 2})


def test_a_run_that_is_gone_leaves_its_working_copy_behind(address):
    begin(address, 1)
    fsspec.filesystem("memory").rm(address, recursive=True)
    begin(address, 3)
    assert values(fetched(address)) == [3]


def test_a_mark_that_was_replaced_elsewhere_is_read_anew(address, elsewhere):
    begin(address, 1)
    here = opened(address)
    elsewhere()
    with RunFolder(address, SETTINGS) as run:
        run.forget_shard("filter", 0)
        run.add_shard("filter", 0, 1, {"data/train": pa.table({"a": [5]})})
    elsewhere("a")
    assert opened(address) == here
    assert values(fetched(address)) == [5]


def test_a_store_that_looks_first_and_then_writes_is_named(address, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.spec import AbstractFileSystem

    assert Store(address).creates_once("probe")
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", _slowly(AbstractFileSystem.pipe_file))
    assert not Store(address).creates_once("probe")
    assert keys(address) == []
    said = []
    place_of(folder_of(address)).begin(said.append)
    assert any("no conditional put" in line for line in said)


def _slowly(write):
    """Let others in between the look and the writing."""
    import time

    def pipe_file(self, path, value, mode="overwrite", **options):
        if mode == "create" and self.exists(path):
            raise FileExistsError
        time.sleep(0.05)
        write(self, path, value, **options)

    return pipe_file


def test_a_worker_joins_from_a_machine_that_has_nothing(address, elsewhere):
    begin(address, 1, 2)
    elsewhere()
    shards = join(folder_of(address), SETTINGS, lambda _: None)
    assert [*shards.shards("filter", 3)] == [2]
    assert len(shards.use("filter", "data")) == 2


def test_a_job_takes_the_working_copy_of_the_machine_that_it_comes_to(address, elsewhere):
    begin(address, 1, 2)
    there = opened(address)
    run_id = read_manifest(there)["run_id"]
    file = there / "data/train-00000-of-00002.parquet"
    sent = pickle.dumps(SharedRun(there, run_id, "other", 3, {"filter": "digest"}))
    elsewhere()
    job = pickle.loads(sent)
    assert job.folder == opened(address) != there
    needed = job.folder / file.relative_to(there)
    job.check_worker([needed])
    assert [path.name for path in job.folder.glob("data/*")] == [file.name], "and no other"
    assert [*job.missing()] == [0, 1, 2]


def test_status_is_told_from_another_machine(address, elsewhere):
    begin(address, 1)
    elsewhere()
    found = overview(opened(address))
    assert found.folder == address
    assert found.state == "complete"


def test_what_workers_say_is_heard_on_another_machine(address, elsewhere):
    begin(address, 1)
    elsewhere("a")
    telling = Telling(opened(address), "generate", 3, "a GPU")

    def heard():
        elsewhere("b")
        overview(opened(address))
        found = [(each.state, each.shards) for each in read_workers(opened(address))]
        elsewhere("a")
        return found

    assert heard() == [("running", 0)]
    telling.made()
    telling._write("running")
    assert heard() == [("running", 0)]  # it is put up now and then, and at the end
    telling.end()
    assert heard() == [("finished", 1)]
    place_of(opened(address)).end()
    assert heard() == []


def test_marks_are_fetched_ahead_where_they_are_read_in_order(address, elsewhere, monkeypatch):
    begin(address, *range(40))
    elsewhere()
    shards, calls = Shards(opened(address), lambda _: None), []
    several = Store.read_several
    monkeypatch.setattr(
        Store, "read_several", lambda self, names: calls.append(len(names)) or several(self, names)
    )
    assert len(shards.shard_facts("filter", 40)) == 40
    assert len(calls) <= 7, "1 + 2 + 4 + ... marks"


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///run", "s3://b/../c", "s3://b//c", "s3://key:secret@b/c", "s3://b/c d", "S3://b/c",
     "s3://b/*", "s3://b/c?versionId=1", "s3://b/\x1b[2J", "s3://b/" + "x" * 1000, "zip://x::s3://b"],
)  # fmt: skip
def test_what_is_no_address_is_said(text):
    with pytest.raises(ValueError, match=r"address|part|bytes"):
        check_address(text)


@pytest.mark.parametrize("text", ["nope://bucket/run", "gs://bucket/run"])
def test_a_store_that_cannot_be_had_is_one_line(text, monkeypatch, tmp_path, refused):
    monkeypatch.setenv("AUGESC_WORK", str(tmp_path))
    said = refused("status", text)
    assert text in said


def test_no_run_at_an_address(address, refused):
    assert f"{address}: no manifest.json there" in refused("status", address)
    with pytest.raises(StoreError, match="no address"):
        folder_of("s3://b/c d")


def test_a_mark_is_kept_here_only_where_the_store_tells_that_it_is_the_same(tmp_path):
    mark = tmp_path / "filter.json"
    mark.write_bytes(b"{}")
    same = hashlib.md5(b"{}", usedforsecurity=False).hexdigest()
    assert _is_copy(mark, Object("k", 2, same))
    assert not _is_copy(mark, Object("k", 2, "0" * 32))
    assert not _is_copy(mark, Object("k", 3, same))
    assert not _is_copy(mark, Object("k", 2, None))
