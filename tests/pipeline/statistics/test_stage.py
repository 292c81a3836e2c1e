"""``augesc stats``: several sets in columns, in processes, with figures, on good and bad input."""

from __future__ import annotations

import json
import re
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augesc_builder.paper import TABLE_2
from augesc_builder.pipeline.statistics import figures
from augesc_builder.sources import sessions
from tests.conftest import shared
from tests.pipeline.filter.test_filter import EMOJI, HOSTILE, lines, table

FIGURES = ("session_statistics", "lexical_diversity", "query_effect", "duplication")


def found_in(folder):
    return json.loads((folder / "statistics.json").read_text())


def test_sets_stand_in_columns_with_the_papers(augesc, built, tmp_path):
    published = [["usr", "I feel lost."], ["sys", "What happened?"], ["usr", "I lost my job."]]
    file = tmp_path / "augesc.txt"
    file.write_text(json.dumps(published) + "\n")
    out = tmp_path / "s"
    code, text, err = augesc(
        *("stats", built, f"ESConv={shared('esconv/test.txt')}", file, "--out", out, "--paper"),
        *("--finetuned-on", shared("esconv/train.txt")),
    )
    assert code == 0, err
    header = [cell.strip() for cell in text.splitlines()[0].split("|")[2:-1]]
    papers = ["paper: ESConv", "paper: AugESC ED", "paper: AugESC Reddit"]
    assert header == ["run", "ESConv", "AugESC", "all", *papers]
    last = [cell.strip() for cell in text.splitlines()[12].split("|")[1:-1]]
    assert last[0] == "supporter: unique words"
    assert last[-3:] == [cells[-1] for cells in TABLE_2.values()]
    found = found_in(out)
    assert list(found["by_source"]) == ["run", "ESConv", "augesc"]
    assert found["by_source"]["augesc"]["seeker"]["utterances"] == 2
    assert found["by_source"]["ESConv"]["novelty"]["ngrams"] > 0
    assert set(found["topic_correlates"]) == {"run", "ESConv", "augesc"}
    names = (*FIGURES, "novelty", "topic_correlates")
    assert {p.name for p in (out / "figures").iterdir()} == {
        f"{name}.{form}" for name in names for form in ("png", "svg")
    }


def test_a_set_with_several_sources_has_a_column_for_each(augesc, tmp_path):
    rows = [{"messages": EMOJI, "source": s} for s in ("reddit", "reddit", "empathetic_dialogues")]
    table(tmp_path / "mine.parquet", rows)
    one = ("stats", tmp_path / "mine.parquet", "--basic", "--out")
    code, text, _ = augesc(*one, tmp_path / "a")
    assert code == 0
    assert re.search(r"\| +ED +\| +Reddit +\| +all +\|", text)
    assert not (tmp_path / "a" / "figures").exists()
    assert "lexical_diversity" not in found_in(tmp_path / "a")
    code, text, _ = augesc(*one, tmp_path / "b", f"again={tmp_path / 'mine.parquet'}")
    assert "mine: reddit" in text
    assert "again: empathetic_dialogues" in text


def test_processes_and_pieces_change_nothing(augesc, tmp_path, monkeypatch):
    file = shared("esconv/valid.txt")
    augesc("stats", file, "--out", tmp_path / "one")
    monkeypatch.setattr(sessions, "_CHUNK", 17)
    code, _, err = augesc("stats", file, "--out", tmp_path / "two", "--num-proc", "2")
    assert code == 0, err
    assert found_in(tmp_path / "one") == found_in(tmp_path / "two")


def test_near_duplicates_on_request(augesc, tmp_path):
    file = lines(tmp_path / "s.jsonl", [{"messages": EMOJI}] * 2)
    for options, expected in (((), None), (("--near-duplicates",), 2)):
        out = tmp_path / f"out{expected}"
        code, _, err = augesc("stats", file, "--out", out, *options)
        assert code == 0, err
        assert found_in(out)["duplication"]["near_duplicate_sessions"] == expected


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "no utterance"])
@pytest.mark.parametrize("write", [lines, table])
def test_hostile_sessions_are_counted_right(augesc, tmp_path, name, write):
    messages = HOSTILE[name]
    suffix = "jsonl" if write is lines else "parquet"
    file, out = write(tmp_path / f"s.{suffix}", [{"messages": messages}]), tmp_path / "out"
    code, text, err = augesc("stats", file, "--out", out)
    assert code == 0, err
    found = found_in(out)
    assert found["sessions"] == 1
    seeker = [m for m in messages if m["role"] == "user"]
    assert found["seeker"]["utterances"] == len(seeker)
    assert found["supporter"]["utterances"] == len(messages) - len(seeker)
    assert not re.search("nan", (out / "statistics.json").read_text(), re.IGNORECASE)
    if name == "one speaker only":
        assert found["supporter"]["mean_utterance_words"] is None
        assert re.search(r"supporter: words an utterance +\| +- \|", text)
    if name == "a huge utterance":
        assert found["seeker"]["utterance_words"] == [[375_000, 1]]


def test_no_sessions_are_no_numbers(augesc, tmp_path):
    schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string())])))])
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    code, text, err = augesc("stats", tmp_path / "none.parquet", "--out", tmp_path / "out")
    assert code == 0, err
    found = found_in(tmp_path / "out")
    assert found["sessions"] == 0
    assert found["mean_session_words"] is None
    assert found["by_source"] == {}
    assert re.search(r"words a session +\| +- \|", text)
    assert not (tmp_path / "out" / "figures").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"messages": [{"role": "boss", "content": "x"}]}, "role user or assistant"),
        ({"messages": [{"role": "user", "content": None}]}, "line 1: expected messages"),
        ({"messages": None}, "line 1: column messages: expected a list of utterances"),
        ({"messages": [None]}, "line 1: expected messages"),
        ({"messages": []}, "line 1: a session without messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "line 1: half of a surrogate"),
        ([["usr", "x"], ["bot", "y"]], 'expected pairs ["usr" or "sys", text]'),
        ([], "line 1: a session without messages"),
        ({"dialog": []}, "'dialog' must be a list with utterances"),
        ({"text": "x"}, "the key 'dialog' is missing, found text"),
    ],
)
def test_what_is_refused(refused, tmp_path, line, says):
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(line) + "\n")
    assert says in refused("stats", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_without_messages_and_names_that_clash(refused, tmp_path):
    file = table(tmp_path / "s.parquet", [{"text": "x"}])
    assert "no column messages, nor query and text; found text" in refused(
        "stats", file, "--out", tmp_path / "out"
    )
    other = tmp_path / "other" / "s.parquet"
    other.parent.mkdir()
    table(other, [{"messages": EMOJI}])
    line = refused("stats", other, other, "--out", tmp_path / "out")
    assert "a second set called s; name it, as in other=" in line


# -- figures --------------------------------------------------------------------------------------


def test_figures_are_whole_the_same_each_time_and_survive_odd_words(tmp_path, built):
    found = found_in(built / "corpus")
    found["by_source"]["a $x_1$ set"] = found["by_source"]["sample"]
    words = [["$\\frac", 3.0], ["\U0001f622\u4f60", 2.0], ["<b>&", 1.0]]
    found["topic_correlates"] = {
        "sample": {"seeker": words, "supporter": []},
        "a $x_1$ set": {"seeker": [], "supporter": words},
    }
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        figures.draw(found, tmp_path / folder)
    names = {*FIGURES, "novelty", "topic_correlates"}
    for name in names:
        svg = (tmp_path / "one" / f"{name}.svg").read_text()
        assert svg == (tmp_path / "two" / f"{name}.svg").read_text()
        assert "</svg>" in svg
        png = (tmp_path / "one" / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width > 600
        assert height > 300
    assert "&lt;b&gt;&amp;" in (tmp_path / "one" / "topic_correlates.svg").read_text()
