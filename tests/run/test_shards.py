"""A shard that is made twice is written once, whoever stops where."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.errors import RunFolderError, SettingsChangedError
from augesc_builder.run.folder import RunFolder, join
from augesc_builder.run.shards import Shards
from tests.conftest import SOAK

TABLE = pa.table({"a": [1, 2, 3]})
FILE = "t/part-00000-of-00001.parquet"


class Killed(BaseException):
    pass


def makers(folder: Path, n: int = 2) -> list[Shards]:
    return [Shards(folder, lambda _: None) for _ in range(n)]


def add(maker: Shards, *values: int) -> bool:
    return maker.add_shard("s", 0, 1, {"t/part": pa.table({"a": list(values)})}, by=values[0])


def rows(folder: Path) -> list[int]:
    return pq.read_table(folder / FILE)["a"].to_pylist()


def is_clean(folder: Path) -> bool:
    """Whether nothing waits, and the mark tells of the file."""
    marks = makers(folder, 1)[0].marks
    return not list((folder / ".work").rglob("*.parquet")) and not marks.damage(marks.files())


def test_whoever_comes_second_changes_nothing(tmp_path):
    first, second = makers(tmp_path)
    assert add(first, 1, 1)
    assert not add(second, 2, 2)
    assert rows(tmp_path) == [1, 1]
    assert second.shard_fact("s", 0) == {"rows": {"t/part": 2}, "by": 1}
    assert is_clean(tmp_path)


@pytest.mark.soak
def test_several_that_finish_at_the_same_instant(tmp_path):
    for turn in range(10_000 if SOAK else 60):
        folder, found = tmp_path / str(turn), {}
        meeting = threading.Barrier(3)

        def make(number, folder=folder, found=found, meeting=meeting):
            maker = Shards(folder, lambda _: None)
            original = maker._create

            def create(*args):
                meeting.wait()
                return original(*args)

            maker._create = create
            found[number] = add(maker, number, number)

        threads = [threading.Thread(target=make, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = [number for number, was_first in found.items() if was_first]
        assert rows(folder) == [winner, winner]
        assert Shards(folder, print).shard_fact("s", 0)["by"] == winner
        assert is_clean(folder)


@pytest.mark.parametrize("how", [Killed, KeyboardInterrupt])
def test_a_stop_behind_the_mark_loses_nothing(tmp_path, monkeypatch, how):
    def stop(*_):
        raise how

    with RunFolder(tmp_path, {}):
        pass
    with monkeypatch.context() as patch, pytest.raises(how):
        patch.setattr(Path, "replace", stop)
        add(makers(tmp_path, 1)[0], 1, 1)
    assert not (tmp_path / FILE).exists()
    assert not add(makers(tmp_path, 1)[0], 2, 2)
    with RunFolder(tmp_path, {}) as run:  # it puts in its place what waits for that
        assert rows(tmp_path) == [1, 1]
        assert run.has_shard("s", 0)
    assert is_clean(tmp_path)


def test_who_reads_a_shard_between_its_mark_and_its_files_finds_them(tmp_path):
    maker, reader = makers(tmp_path)
    maker.add_shard("s", 1, 2, {"t/part": TABLE})
    original, seen = maker._put_in_place, []

    def put(*args):
        assert reader.has_shard("s", 0)
        reader.bring("s", 1)  # another's shard waits on
        assert not (tmp_path / FILE).exists()
        reader.bring("s", 0)
        seen.append(rows(tmp_path))
        original(*args)

    maker._put_in_place = put
    assert add(maker, 1, 1)
    assert seen == [[1, 1]]
    assert rows(tmp_path) == [1, 1]
    assert is_clean(tmp_path)


def test_one_that_was_stopped_until_all_was_over_changes_nothing(tmp_path):
    slow, quick = makers(tmp_path)
    original = slow._create

    def create(*args):
        assert add(quick, 2, 2)
        for path in sorted((tmp_path / ".work").rglob("*"), reverse=True):  # the run has ended
            path.rmdir() if path.is_dir() else path.unlink()
        return original(*args)

    slow._create = create
    assert not add(slow, 1, 1)
    assert rows(tmp_path) == [2, 2]
    assert is_clean(tmp_path)


def test_who_is_at_work_may_be_while_the_owner_comes_and_goes(tmp_path):
    slow, quick = makers(tmp_path)
    original, folder = slow._create, RunFolder(tmp_path, {})
    with folder:
        folder.record(kept=1)

    def create(*args):
        with RunFolder(tmp_path, {}) as run:
            run.work("half-done")
        assert quick.add_shard("s", 1, 2, {"t/part": TABLE})
        found = original(*args)
        with RunFolder(tmp_path, {}):  # behind the mark, before the files are in their place
            pass
        return found

    slow._create = create
    assert add(slow, 1, 1)
    assert rows(tmp_path) == [1, 1]
    assert is_clean(tmp_path)
    with RunFolder(tmp_path, {}):
        pass
    assert not (tmp_path / ".work").exists()


def test_what_was_begun_and_left_is_in_nobodys_way(tmp_path, monkeypatch):
    def stop(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "link", stop)
        add(makers(tmp_path, 1)[0], 1, 1)
    (maker,) = makers(tmp_path, 1)
    maker.settle()
    assert not maker.has_shard("s", 0)
    assert add(maker, 2, 2)
    assert rows(tmp_path) == [2, 2]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_links(tmp_path, monkeypatch, number):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", none)
    first, second = makers(tmp_path)
    assert add(first, 1, 1)
    (tmp_path / ".complete/s-00000.json").rename(tmp_path / "mark")
    original = second._create
    second._create = lambda *args: (
        (tmp_path / "mark").rename(tmp_path / ".complete/s-00000.json") and original(*args)
    )
    assert not add(second, 2, 2)
    assert rows(tmp_path) == [1, 1]


def test_a_link_whose_answer_was_lost_is_ours(tmp_path, monkeypatch):
    original = os.link

    def twice(*args):
        original(*args)
        raise FileExistsError

    monkeypatch.setattr(os, "link", twice)
    assert add(makers(tmp_path, 1)[0], 1, 1)
    assert rows(tmp_path) == [1, 1]


def test_a_place_may_be_written_in_several_ways(tmp_path):
    (maker,) = makers(tmp_path, 1)
    assert maker.add_shard("s", 0, 1, {"./t//part": TABLE})
    assert list(maker.marks.files()) == [FILE]
    assert maker.marks.table(tmp_path / "t") == [tmp_path / FILE]


def test_the_first_chooses_for_all(tmp_path):
    first, second = makers(tmp_path)
    assert first.agreed("s") is None
    assert first.agree("s", {"slots": 4}) == {"slots": 4}
    assert second.agree("s", {"slots": 8}) == {"slots": 4}
    assert second.agreed("s") == {"slots": 4}
    assert second.marks.names("s") == []  # it finishes nothing


def test_what_stands_in_the_way_is_set_aside(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / FILE).write_text("mine")
    said: list[str] = []
    assert add(Shards(tmp_path, said.append), 1, 1)
    assert (tmp_path / "set-aside" / FILE).read_text() == "mine"
    assert rows(tmp_path) == [1, 1]
    assert len(said) == 1


def test_a_place_outside_of_the_folder_is_refused_before_there_is_a_mark(tmp_path):
    folder, (maker,) = tmp_path / "run", makers(tmp_path / "run", 1)
    (tmp_path / "theirs").mkdir()
    folder.mkdir()
    (folder / "t").symlink_to(tmp_path / "theirs")
    with pytest.raises(RunFolderError, match="lies outside of"):
        add(maker, 1)
    assert not maker.has_shard("s", 0)
    assert not list((tmp_path / "theirs").iterdir())


def test_a_mark_that_is_cut_keeps_no_run_from_being_opened(tmp_path, monkeypatch):
    def stop(*_):
        raise Killed

    with RunFolder(tmp_path, {}):
        pass
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", stop)
        add(makers(tmp_path, 1)[0], 1)
    (tmp_path / ".complete/s-00000.json").write_text("{")  # as on a disk without links
    with RunFolder(tmp_path, {}) as run:
        assert not run.is_intact("s")
        assert not run.has_shard("s", 0)
        assert run.add_shard("s", 0, 1, {"t/part": TABLE})


def test_more_shards_than_five_digits_name(tmp_path):
    (maker,) = makers(tmp_path, 1)
    for number in (99_999, 100_000):
        assert maker.add_shard("s", number, 100_001, {"t/part": TABLE})
    assert list(maker.written_shards("s")) == [99_999, 100_000]
    assert list(maker.shards("s", 3)) == [0, 1, 2]


def test_who_joins_has_the_same_settings_and_packages(tmp_path):
    with pytest.raises(RunFolderError, match=r"no manifest\.json there"):
        join(tmp_path, {}, print)
    with RunFolder(tmp_path, {"seed": 1}) as run:
        run.record(made_with={"python": "2.7", "torch": "1"})
    with pytest.raises(SettingsChangedError, match=r"seed \(1 there, 2 now\)"):
        join(tmp_path, {"seed": 2}, print)
    with pytest.raises(Exception, match=r"this worker, on .* has python 3\S+, and the run 2\.7"):
        join(tmp_path, {"seed": 1}, print)
    with RunFolder(tmp_path, {"seed": 1}) as run:
        run.record(made_with={})
    assert add(join(tmp_path, {"seed": 1}, print), 1)
