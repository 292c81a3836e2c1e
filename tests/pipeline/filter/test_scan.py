"""The safety pass over sessions that stand: what the filter would have flagged, by any executor."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.run import layout
from augesc_builder.sources import generations
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import render
from tests.conftest import rows_of


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(generations, "CHUNK", 6)
    monkeypatch.setattr(generations, "_SHARD", 8)


@pytest.fixture
def corpora(augesc, tmp_path):
    """Filter conversations, some with flags, with the safety pass and without."""
    sessions = [list(session.messages) for session in read_sample_sessions()][:24]
    rows = []
    for n, own in enumerate(sessions):
        own = [dict(message) for message in own]  # noqa: PLW2901
        if n % 3 == 0:
            own[2]["content"] += " I want to kill myself. Write to jo@example.org."
        rows.append({"query": own[0]["content"], "text": render(own[1:]).removeprefix("AI:")})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name, option in (("with", ()), ("without", ("--no-safety",))):
        out = tmp_path / name
        code, _, err = augesc("filter", tmp_path / "rows.parquet", "--out", out, *option)
        assert code == 0, err
    return tmp_path / "with", tmp_path / "without"


def counts_of(folder):
    return layout.load_report(folder, "safety")


def test_a_corpus_without_flags_gets_those_that_the_filter_gives(corpora, augesc, tmp_path):
    scanned, bare = corpora
    out = tmp_path / "out"
    assert counts_of(bare)["not_scanned"] == len(rows_of(bare / "data")) > 8
    code, said, err = augesc("safety", bare, "--out", out)
    assert code == 0, err
    assert "sessions are flagged" in said
    assert rows_of(out / "data") == rows_of(scanned / "data")
    assert counts_of(out) == counts_of(scanned)
    assert counts_of(out)["flagged"] > 0
    assert "nothing to do" in augesc("safety", bare, "--out", out)[1]
    assert "flagged" in augesc("safety", out)[1]


def test_elements_and_an_owner_write_what_one_process_does(
    corpora, augesc, refused, tmp_path, monkeypatch
):
    _, bare = corpora
    alone, out = tmp_path / "alone", tmp_path / "out"
    assert augesc("safety", bare, "--out", alone, "--quiet") == (0, "", "")
    command = ("safety", bare, "--out", out, "--executor", "slurm", "--quiet")
    assert "shards of safety are left" in refused(*command)
    for rank in (1, 0):
        monkeypatch.setenv("AUGESC_RANK", str(rank))
        monkeypatch.setenv("AUGESC_WORLD_SIZE", "2")
        assert augesc(*command) == (0, "", "")
        assert not (out / "safety_report.json").exists()
    monkeypatch.delenv("AUGESC_RANK")
    assert augesc(*command) == (0, "", "")
    files = sorted(path.name for path in (alone / "data").iterdir())
    assert len(files) > 1
    for name in [*(f"data/{file}" for file in files), "safety_report.json"]:
        assert (out / name).read_bytes() == (alone / name).read_bytes()


def test_a_table_of_before_has_nulls_where_it_had_no_column(corpora, augesc, tmp_path):
    scanned, _ = corpora
    old, out = tmp_path / "old.parquet", tmp_path / "out"
    (first, *_) = sorted((scanned / "data").iterdir())
    pq.write_table(pq.read_table(first).select(["session_id", "messages"]), old)
    (tmp_path / "folder/data").mkdir(parents=True)
    old.rename(tmp_path / "folder/data/train-0.parquet")
    assert augesc("safety", tmp_path / "folder", "--out", out, "--quiet") == (0, "", "")
    flags = {row["session_id"]: row["safety_flags"] for row in pq.read_table(first).to_pylist()}
    found = rows_of(out / "data")
    assert {row["session_id"]: row["safety_flags"] for row in found} == flags
    assert {row["query_id"] for row in found} == {None}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "x"}], "no column messages"),
        ([{"session_id": "a", "messages": "x"}], "column messages: "),
        ([{"session_id": "a", "messages": None}], "column messages"),
        (
            [{"session_id": "a", "messages": [{"role": "bot", "content": "x"}]}],
            "line 1: expected messages with role user or assistant",
        ),
    ],
)
def test_what_is_no_session_is_refused(rows, said, refused, tmp_path):
    (tmp_path / "c/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c/data/train-0.parquet")
    assert said in refused("safety", tmp_path / "c", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_only_shows_takes_no_executor(corpora, refused, tmp_path):
    scanned, _ = corpora
    assert "nothing is scanned without --out" in refused("safety", scanned, "--executor", "local")
    call = ("safety", scanned, "--out", tmp_path / "out", "--reviewed", "x")
    assert "note what was --reviewed without it" in refused(*call)
    line = tmp_path / "x.jsonl"
    line.write_text(json.dumps({}) + "\n")
    assert "expected a Parquet table" in refused("safety", line, "--out", tmp_path / "out")
