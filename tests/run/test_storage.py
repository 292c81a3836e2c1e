"""Only what a run wrote is the run's; what it wrote is known by its bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.errors import InputError, RunFolderError, SettingsChangedError
from augesc_builder.run.disk import load_sealed, sealed
from augesc_builder.run.folder import RunFolder, is_run, read_manifest
from augesc_builder.run.marks import Marks, checked, parquet_files, table_files
from augesc_builder.run.progress import Progress

TABLE = pa.table({"a": [1, 2, 3]})


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {".lock", ".status.json"}
    }


def telling(say) -> Progress:
    progress = Progress(quiet=True)
    progress.say = say
    return progress


def make(folder: Path, n: int = 2, say=lambda _: None) -> RunFolder:
    """Fill a folder with a stage of ``n`` shards, and one that reads them."""
    with RunFolder(folder, {"seed": 1}, telling(say)) as run:
        for number in run.shards("s", n):
            run.add_shard("s", number, n, {"t/part": TABLE.slice(number % 2)})
        if not run.is_complete("s"):
            run.write_text("t/report.txt", "rows")
            run.complete("s")
        run.use("s", "t")
        run.write_text("card.md", "hello")
        run.complete("c")
    return run


@pytest.mark.parametrize(
    "manifest", ['{"name": "my app", "icons": []}', '{"fingerprint": "x", "settings": {}}', "[]"]
)
@pytest.mark.parametrize("fails", [True, False])
def test_somebody_elses_folder_is_never_touched(tmp_path, manifest, fails):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "logo.svg").write_text("mine")
    before = tree(tmp_path)
    expected = pytest.raises(RunFolderError, match=r"not that of a run|expected a JSON object")
    with expected, RunFolder(tmp_path, {"seed": 1}) as run:
        run.write_folder("figures", lambda folder: (folder / "a.svg").touch())
        if fails:
            raise InputError("bad", "file")
    assert tree(tmp_path) == before
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("name", [".lock", ".work/files/theirs", ".work/manifest.json", ".x"])
def test_hidden_files_of_others_are_others(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(RunFolderError, match="no run left"), RunFolder(tmp_path, {}):
        pass
    assert tree(tmp_path) == ({name: b"mine"} if name != ".lock" else {})
    assert path.read_text() == "mine"


def test_a_kill_before_the_manifest_is_there_is_no_stranger(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".work/files").mkdir(parents=True)
    (tmp_path / ".work/files/manifest.json.123.new").write_text("{")
    make(tmp_path)
    assert is_run(tmp_path)


def test_what_stands_in_the_way_is_set_aside(tmp_path):
    said: list[str] = []
    with RunFolder(tmp_path, {"seed": 1}) as run:
        run.complete("first")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/part-00001-of-00002.parquet").write_text("mine")
    (tmp_path / "card.md").write_text("my notes")
    make(tmp_path, say=said.append)
    assert (tmp_path / "set-aside/t/part-00001-of-00002.parquet").read_text() == "mine"
    assert (tmp_path / "set-aside/card.md").read_text() == "my notes"
    assert (tmp_path / "card.md").read_text() == "hello"
    assert len(said) == 2
    assert all("kept as" in line for line in said)


def test_an_edit_of_the_users_outlives_a_new_version_and_so_does_the_next(tmp_path):
    make(tmp_path)
    for number, edit in enumerate(["first edit", "second edit"], 1):
        (tmp_path / "card.md").write_text(edit)
        with RunFolder(tmp_path, {"seed": 1}) as run:
            run.write_text("card.md", f"version {number}")
            run.complete("c")
    assert (tmp_path / "card.md").read_text() == "version 2"
    assert (tmp_path / "set-aside/card.md").read_text() == "first edit"
    assert (tmp_path / "set-aside/card.md.2").read_text() == "second edit"


def test_a_new_version_of_its_own_file_is_put_in_its_place(tmp_path):
    make(tmp_path)
    with RunFolder(tmp_path, {"seed": 1}) as run:
        run.write_text("other.md", "renamed")
        run.complete("c")
    assert not (tmp_path / "card.md").exists()  # it was the run's own, and is of no stage now
    assert not (tmp_path / "set-aside").exists()


def test_a_failure_removes_nothing_but_what_it_wrote(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), RunFolder(out, {}) as run:
        run.keep("recipe.yaml", "seed: 1")
        raise KeyboardInterrupt
    (out / "notes.txt").write_text("mine")
    (out / "recipe.yaml").write_text("edited")
    with pytest.raises(InputError), RunFolder(out, {}):
        raise InputError("bad", "file")
    left = {name: text for name, text in tree(out).items() if name != "manifest.json"}
    assert left == {"notes.txt": b"mine", "recipe.yaml": b"edited"}


@pytest.mark.parametrize("lost", ["t/part-00000-of-00002.parquet", "t/report.txt", "card.md"])
@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_what_is_lost_or_damaged_is_made_again(tmp_path, lost, how):
    make(tmp_path / "a")
    whole = tree(tmp_path / "a")
    path = tmp_path / "a" / lost
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if how == "cut" else bytes([data[0] ^ 1]) + data[1:])
    said: list[str] = []
    with RunFolder(tmp_path / "a", {"seed": 1}, telling(said.append)) as run:
        stage = "c" if lost == "card.md" else "s"
        assert not run.is_intact(stage)
        assert run.is_intact("c" if stage == "s" else "s")
    assert any(str(path) in line and "made again" in line for line in said)
    make(tmp_path / "a")
    again = tree(tmp_path / "a")
    kept = {name: again.pop(name) for name in list(again) if name.startswith("set-aside")}
    assert list(kept) == ([] if how == "gone" else [f"set-aside/{lost}"])
    for name in ("manifest.json", ".complete/s.json", ".complete/c.json"):
        whole.pop(name), again.pop(name)  # seconds
    assert again == whole


def test_readers_take_the_files_of_the_marks_and_no_others(tmp_path):
    make(tmp_path)
    files = parquet_files(tmp_path / "t")
    assert [path.name for path in files] == [f"part-0000{i}-of-00002.parquet" for i in range(2)]
    assert checked(files[0]) == files[0]
    with pytest.raises(InputError, match="no Parquet files of queries there"):
        table_files(tmp_path / "t", "queries")  # never another table of a run
    stale = tmp_path / "t/part-00002-of-00003.parquet"
    pq.write_table(TABLE, stale)
    with pytest.raises(InputError, match="is no file of the run"):
        parquet_files(tmp_path / "t")
    stale.unlink()
    files[1].unlink()
    with pytest.raises(InputError, match=r"is gone; run the command that wrote it again"):
        parquet_files(tmp_path / "t")
    shutil.copytree(tmp_path / "t", tmp_path.with_name(f"{tmp_path.name}-copy"))
    assert len(parquet_files(tmp_path.with_name(f"{tmp_path.name}-copy"))) == 1  # no run's


def test_no_flipped_bit_passes(tmp_path):
    """Whatever bit of a table, a mark or the manifest turns, no other data is read."""
    make(tmp_path, 1)
    rng, paths = random.Random(0), [*tmp_path.glob("t/*"), *tmp_path.glob(".complete/*.json")]
    for _ in range(300):
        path = rng.choice([*paths, tmp_path / "manifest.json"])
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        whole, _ = path.read_bytes(), path.write_bytes(data)
        try:
            read = pq.read_table(parquet_files(tmp_path / "t")[0])
            marks = Marks(tmp_path)
            assert not marks.damage(marks.files())
            manifest = read_manifest(tmp_path)
        except (InputError, RunFolderError, AssertionError):
            pass
        else:  # a blank that became another, or a letter of the word checksum
            assert read == TABLE
            assert manifest["settings"] == {"seed": 1}
            found, written = json.loads(data), json.loads(whole)
            del written["checksum"]
            assert {key: found.get(key) for key in written} == written
        path.write_bytes(whole)


def test_page_checksums_guard_tables_outside_of_runs(tmp_path):
    with RunFolder(tmp_path / "run", {}) as run:
        run.write_table("x.parquet", pa.table({"a": list(range(5000))}))
        run.complete("s")
    path = tmp_path / "x.parquet"
    data = bytearray((tmp_path / "run/x.parquet").read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    from augesc_builder.readers.parquet import read_table

    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_table(path, ["a"])


def test_marks_that_point_outside_are_refused(tmp_path):
    run = make(tmp_path / "run")
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("../mine.txt", str(tmp_path / "mine.txt")):
        mark = run.marks.path("c")
        facts = {"bytes": 4, "sha256": "0"}
        mark.write_text(sealed({"facts": {}, "files": {name: facts}, "inputs": {}}))
        with pytest.raises(RunFolderError, match="outside of its folder"):
            run.marks.files()
    assert (tmp_path / "mine.txt").read_text() == "mine"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(40))
def test_a_commit_that_is_interrupted_is_carried_to_its_end(tmp_path, monkeypatch, after):
    """A stop at any rename or sync leaves a folder that ends as if there had been none."""
    make(tmp_path / "whole")
    left = after

    def dying(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying(Path.replace))
        patch.setattr(os, "fsync", dying(os.fsync))
        with contextlib.suppress(Killed):
            make(tmp_path / "run")
    make(tmp_path / "run")
    ends = [tree(tmp_path / name) for name in ("whole", "run")]
    for end in ends:
        for name in ("manifest.json", ".complete/s.json", ".complete/c.json"):
            end.pop(name)
    assert ends[0] == ends[1]


def test_a_smaller_input_after_a_kill_reads_no_stale_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path, {"rows": 3}) as run:
        run.write_table("t/part-00002-of-00003.parquet", TABLE)
        raise KeyboardInterrupt
    with RunFolder(tmp_path, {"rows": 2}) as run:
        run.add_shard("s", 0, 1, {"t/part": TABLE})
        run.complete("s")
        assert [path.name for path in run.use("s", "t")] == ["part-00000-of-00001.parquet"]


def test_what_was_made_from_another_table_is_not_current(tmp_path):
    make(tmp_path)
    with RunFolder(tmp_path, {"seed": 1}) as run:
        assert run.is_current("c")
        run.write_text("t/report.txt", "other rows")
        run.complete("s")
        assert not run.is_current("c")
        run.forget("c")
        assert not (tmp_path / "card.md").exists()
        assert run.is_current("c")  # nothing is made of anything


def test_the_manifest_of_before_is_known_by_its_fingerprint(tmp_path):
    make(tmp_path)
    manifest = read_manifest(tmp_path)
    before = {key: manifest[key] for key in ("fingerprint", "settings", "stages")}
    (tmp_path / "manifest.json").write_text(json.dumps(before))
    assert is_run(tmp_path)
    make(tmp_path)


@given(st.dictionaries(st.text(), st.recursive(st.integers() | st.text() | st.none(), st.lists)))
@settings(max_examples=60, deadline=None)
def test_what_is_sealed_is_read_again(tmp_path_factory, value):
    value.pop("checksum", None)
    path = tmp_path_factory.mktemp("s") / "x.json"
    path.write_text(sealed(value), encoding="utf-8")
    assert load_sealed(path) == value


def test_inputs_that_earlier_versions_did_not_know_are_no_change(tmp_path):
    def begin(**inputs):
        with RunFolder(tmp_path, {"inputs": inputs}) as run:
            run.complete("s")

    begin(a="1")
    begin(a="1", b="2")
    with pytest.raises(SettingsChangedError, match=r"inputs\.a \('1' there, '3' now\)"):
        begin(a="3", b="2")
    with pytest.raises(SettingsChangedError, match=r"inputs\.a \('1' there, None now\)"):
        begin()


def test_what_is_kept_is_renewed_where_it_is_another(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        run.keep("recipe.yaml", "a")
        file = (tmp_path / "recipe.yaml").stat().st_ino
        run.keep("recipe.yaml", "a")
        assert (tmp_path / "recipe.yaml").stat().st_ino == file
        run.keep("recipe.yaml", "b")
        assert (tmp_path / "recipe.yaml").read_text() == "b"
        run.keep("model", lambda folder: (folder / "weights").write_text("1") and None)
        run.keep("model", lambda folder: (folder / "shard").write_text("2") and None)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"shard"}
    assert not (tmp_path / "set-aside").exists()


@pytest.mark.parametrize("where", ["name", "source", "mark", "link"])
def test_a_commit_that_somebody_made_up_writes_nothing_elsewhere(tmp_path, where):
    """A run's folder may be a stranger's: what its next command carries out stays inside."""
    run, mine = tmp_path / "run", tmp_path / "mine.txt"
    make(run)
    mine.write_text("mine")
    staged = {"name": ("../mine.txt", ".work/x"), "source": ("stolen.txt", "../mine.txt")}
    name, source = staged.get(where, ("b.txt", ".work/x"))
    if where == "link":
        (tmp_path / "theirs").mkdir()
        (run / "out").symlink_to(tmp_path / "theirs")
        name = "out/x.txt"
    (run / ".work").mkdir()
    (run / ".work/x").write_text("theirs")
    body = {"facts": {}, "files": {name: {"bytes": 6, "sha256": ""}}, "inputs": {}, "versions": {}}
    mark = "../../evil" if where == "mark" else "s-00009"
    intent = {"mark": mark, "body": body, "staged": {name: source}}
    (run / ".work/commit.json").write_text(sealed(intent))
    before = tree(tmp_path)
    with pytest.raises(RunFolderError, match="lies outside of"), RunFolder(run, {"seed": 1}):
        pass
    assert tree(tmp_path) == before


def test_a_mark_that_stands_is_not_written_again(tmp_path):
    """A kill between the mark and the end of its commit."""
    run = make(tmp_path)
    mark = run.marks.path("s")
    before = mark.stat().st_mtime_ns
    (tmp_path / ".work").mkdir()
    intent = {"mark": "s", "body": run.marks.read("s"), "staged": {}}
    (tmp_path / ".work/commit.json").write_text(sealed(intent))
    make(tmp_path)
    assert mark.stat().st_mtime_ns == before


def test_every_damage_of_a_stage_is_found_at_once(tmp_path):
    make(tmp_path, 3)
    (tmp_path / ".complete/s-00000.json").write_text("{")
    (tmp_path / "t/part-00001-of-00003.parquet").unlink()
    with RunFolder(tmp_path, {"seed": 1}) as run:
        assert not run.is_intact("s")
        assert run.marks.names("s") == ["s-00002"]
    assert (tmp_path / "set-aside/.complete/s-00000.json").read_text() == "{"


def test_what_was_lost_is_put_back_by_the_same_stage(tmp_path):
    """Its mark says the same as before: only the file is missing."""
    make(tmp_path)
    (tmp_path / "card.md").unlink()
    with RunFolder(tmp_path, {"seed": 1}) as run:
        run.use("s", "t")
        run.write_text("card.md", "hello")
        run.complete("c")
    assert (tmp_path / "card.md").read_text() == "hello"


@pytest.mark.parametrize("files", [[], "x", {"a": 1}, {"a": {"bytes": "4"}}, {"a": {}}])
def test_marks_that_somebody_made_up_are_told_in_a_line(tmp_path, files):
    run = make(tmp_path)
    run.marks.path("c").write_text(sealed({"facts": {}, "files": files}))
    with pytest.raises(RunFolderError, match=r"files are not as a run lists them.*put the file"):
        run.marks.files()
