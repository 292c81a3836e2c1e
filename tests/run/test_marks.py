"""What marks tell, one by one: digests, files and shards, however many there are."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.run import sorting
from augesc_builder.run.disk import sealed
from augesc_builder.run.kinds import kinds_of, names_of, note_kind
from augesc_builder.run.marks import Marks
from augesc_builder.run.shards import Shards
from augesc_builder.run.sorting import sorted_pairs


def mark(folder: Path, name: str, *files: str) -> None:
    (folder / ".complete").mkdir(exist_ok=True)
    about = {
        file: {"bytes": 1, "sha256": hashlib.sha256(file.encode()).hexdigest()} for file in files
    }
    (folder / f".complete/{name}.json").write_text(sealed({"facts": {}, "files": about}))


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3))))
def test_pairs_are_sorted_as_a_mapping_of_them_is(pairs):
    before, sorting._RUN = sorting._RUN, 4
    try:
        assert list(sorted_pairs(pairs)) == sorted(dict(pairs).items())
    finally:
        sorting._RUN = before


def test_the_digest_of_a_stage_is_that_of_all_its_files_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sorting, "_RUN", 3)
    for number in (99_998, 99_999, 100_000, 7):
        mark(tmp_path, f"s-{number:05d}", f"t/é-{number:05d}-of-100001", f"r/{number:05d}")
    mark(tmp_path, "s", "report.json")
    mark(tmp_path, "another-00000", "t/another")
    files = Marks(tmp_path).files([n for n in Marks(tmp_path).names() if n[:2] in {"s", "s-"}])
    parts = {file: facts["sha256"] for file, facts in files.items()}
    text = json.dumps(parts, sort_keys=True)
    assert Marks(tmp_path).digest("s") == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert len(parts) == 9


def test_marks_come_in_the_order_of_their_shards(tmp_path):
    for name in (
        "s-100000",
        "s-00002",
        "s",
        "s-99999",
        "s-000002",
        f"s-{10**14}",
        "so-00001",
        "s-x",
    ):
        mark(tmp_path, name)
    strange = ["s-000002", f"s-{10**14}"]
    assert list(Marks(tmp_path).each("s")) == ["s", *strange, "s-00002", "s-99999", "s-100000"]
    assert Marks(tmp_path).has_any("so")
    assert not Marks(tmp_path).has_any("x")
    assert Marks(tmp_path).counts() == {"s": 5, "so": 1}


def test_as_many_marks_are_read_as_need_be(tmp_path, monkeypatch):
    for number in range(9):
        mark(tmp_path, f"s-{number:05d}", f"t/{number}")
    marks, read = Marks(tmp_path), []
    original = marks.read
    monkeypatch.setattr(marks, "read", lambda name: read.append(name) or original(name))
    assert marks.find([]) == {}
    assert not read
    assert sorted(marks.find(["t/3", "t/5"])) == ["t/3", "t/5"]
    assert len(read) < 10
    assert marks.find(["t/9"]) == {}


def test_what_reads_all_marks_holds_few(tmp_path):
    def peak(n: int) -> int:
        for number in range(n):
            mark(tmp_path, f"s-{number:05d}", f"t/{number}")
        marks = Marks(tmp_path)
        tracemalloc.start()
        marks.digest("s")
        marks.counts()
        assert sum(1 for _ in Shards(tmp_path, print).written_shards("s")) == n
        assert marks.find(["x"]) == {}
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    before, sorting._RUN = sorting._RUN, 256
    try:
        small = peak(300)
        assert peak(3000) < 4 * small
    finally:
        sorting._RUN = before


def test_a_kind_is_noted_once_and_named_by_what_tells_it_from_others(tmp_path):
    shards = Shards(tmp_path, print)
    one = {"name": "A", "features": ["avx2"], "dtype": "float32", "slots": 8}
    two = {**one, "features": [], "slots": 4}
    noted = [note_kind(shards, "generate", kind) for kind in (one, two, one)]
    assert noted[0] == noted[2] != noted[1]
    found = kinds_of(shards, "generate")
    assert found == {noted[0]: one, noted[1]: two}
    assert kinds_of(shards, "filter") == {}
    assert names_of([one, two]) == ["A (features avx2, slots 8)", "A (features none, slots 4)"]
    assert names_of([one]) == ["A"]
    (hostile,) = names_of([{"name": "a\x1b[31m\nb" + "x" * 999}])
    assert hostile.isprintable()
    assert len(hostile) <= 200


@pytest.mark.parametrize("facts", [[], {"name": ["\x1b"]}, {}])
def test_kinds_that_nobody_wrote_are_no_harm_to_status(tmp_path, facts):
    from augesc_builder.run.status import _kinds

    mark(tmp_path, "kept-kind-generate-00000000")
    text = sealed({"facts": facts, "files": {}})
    (tmp_path / ".complete/kept-kind-generate-00000000.json").write_text(text)
    assert all(name.isprintable() for name in _kinds(tmp_path))
    (tmp_path / ".complete/kept-kind-generate-00000000.json").write_text("{")
    assert _kinds(tmp_path) == []
