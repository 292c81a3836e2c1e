"""The requirements on anybody's generations, again with other thresholds, and in processes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError
from augesc_builder.pipeline.filter.filter import Filter
from augesc_builder.pipeline.filter.report import filter_report, filter_table, merge
from augesc_builder.pipeline.filter.requirements import active
from augesc_builder.readers.chunks import read_chunks
from augesc_builder.sources import generations
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.generations import parse_generations, read_generations, shards_of
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.tables import GENERATIONS, plain_schema
from augesc_builder.text.prompts import read_text, render
from tests.conftest import SOAK, often, rows_of, shared

EMOJI = [
    {"role": "user", "content": "\u05d0\u05e0\u05d9 \u05e2\u05e6\u05d5\u05d1 \U0001f622"},
    {"role": "assistant", "content": "\u0644\u0645\u0627\u0630\u0627\u061f"},
]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def report_of(folder):
    return json.loads((folder / "filter_report.json").read_text())


@pytest.fixture(scope="session")
def esconv_sessions():
    return [list(s.messages) for s in read_esconv(shared("esconv/test.txt"))]


def forms(sessions):
    """Write sessions in every form in which generations may come."""
    whole = [{"text": render(s)} for s in sessions]
    rest = [render(s[1:]) for s in sessions]
    continued = [
        {"query": s[0]["content"], "text": r[3:] if r.startswith("AI:") else f"\n{r}"}
        for s, r in zip(sessions, rest, strict=True)
    ]
    return {"whole": whole, "continued": continued, "messages": [{"messages": s} for s in sessions]}


def test_labels_are_kept_and_null_where_there_are_none(augesc, tmp_path):
    """In a table as ours, in lines, in ESConv's lines, and in a table of an earlier version."""
    session = list(read_sample_sessions()[0].messages)
    text = {"query": session[0]["content"], "text": render(session[1:]).removeprefix("AI:")}
    ours = {**dict.fromkeys(GENERATIONS), "query_id": "q", "sample": 0, "source": "reddit", **text}
    dialog = [
        {"speaker": "usr" if m["role"] == "user" else "sys", "text": m["content"]} for m in session
    ]
    dialog[1]["strategy"] = "Question"
    for name, write, row, labels in (
        (
            "ours.parquet",
            table,
            {**ours, "emotion": "sad", "subreddit": "lonely"},
            ("sad", "lonely"),
        ),
        ("lines.jsonl", lines, {**text, "subreddit": "lonely"}, (None, "lonely")),
        ("esconv.jsonl", lines, {"dialog": dialog, "emotion_type": "fear"}, ("fear", None)),
        (
            "bare.parquet",
            table,
            {"query_id": "q", "sample": 0, "source": "s", **text},
            (None, None),
        ),
    ):
        out = tmp_path / name.partition(".")[0]
        code, _, err = augesc("filter", write(tmp_path / name, [row]), "--out", out)
        assert code == 0, err
        (kept,) = rows_of(out / "data")
        assert (kept["emotion"], kept["subreddit"]) == labels
        strategies = [None, "Question", *[None] * (len(session) - 2)]
        assert kept["strategies"] == (strategies if "dialog" in row else None)


# -- anybody's generations ------------------------------------------------------------------------


def test_every_form_of_the_same_conversations_gives_the_same(augesc, esconv_sessions, tmp_path):
    kept = {}
    for form, rows in forms(esconv_sessions).items():
        for write, suffix in ((lines, "jsonl"), (table, "parquet")):
            file = write(tmp_path / f"{form}.{suffix}", rows)
            out = tmp_path / f"out-{form}-{suffix}"
            whole = ["--includes-query"] if form == "whole" else []
            code, text, err = augesc("filter", file, "--out", out, *whole)
            assert code == 0, err
            assert "session_length was not measured for 195" in text
            report = report_of(out)
            assert report["violations"]["session_length"] == {
                "count": None,
                "share": None,
                "not_measured": 195,
            }
            assert set(report["by_source"]) == {form}
            sessions = [row["messages"] for row in rows_of(out / "data")]
            n_rejected = len(rows_of(out / "rejected"))
            assert len(sessions) == report["retained"] == 195 - n_rejected
            ids = {row["session_id"] for row in rows_of(out / "data")}
            assert len(ids) == len(sessions)
            kept[form, suffix] = sorted(json.dumps(s) for s in sessions)
    assert len({tuple(k) for k in kept.values()}) == 1
    assert 0 < report["retained"] < 195


def test_published_lines_and_esconvs_are_judged_as_they_are(augesc, esconv_sessions, tmp_path):
    speakers = {"user": "usr", "assistant": "sys"}
    file = lines(
        tmp_path / "augesc.jsonl",
        [[[speakers[m["role"]], m["content"]] for m in s] for s in esconv_sessions],
    )
    kept = []
    for number, source in enumerate((file, shared("esconv/test.txt"))):
        code, _, err = augesc("filter", source, "--out", tmp_path / str(number))
        assert code == 0, err
        kept.append([row["messages"] for row in rows_of(tmp_path / str(number) / "data")])
    key = json.dumps
    assert sorted(kept[0], key=key) == sorted(kept[1], key=key)
    assert kept[0]


def test_a_tokenizer_measures_session_length(augesc, esconv_sessions, tmp_path):
    from transformers import GPT2Tokenizer

    folder = shared("tokenizers/gpt2")
    tokenizer = GPT2Tokenizer.from_pretrained(str(folder))
    recipe = load_recipe("paper")
    for form, rows in forms(esconv_sessions[:30]).items():
        file, out = lines(tmp_path / f"{form}.jsonl", rows), tmp_path / form
        whole = ["--includes-query"] if form == "whole" else []
        code, text, err = augesc("filter", file, "--out", out, "--tokenizer", folder, *whole)
        assert code == 0, err
        assert "not measured" not in text
        found = [r["total_tokens"] for r in pq.read_table(out / "measured").to_pylist()]
        texts = [
            render(row["messages"])
            if form == "messages"
            else read_text(row.get("query"), row["text"])
            for row in rows
        ]
        assert found == [
            len(tokenizer(f"{recipe.prompt.instruction}\n{text}")["input_ids"]) for text in texts
        ]
        over = sum(n > 1450 for n in found)
        assert report_of(out)["violations"]["session_length"]["count"] == over


def test_the_tokenizer_of_the_recipes_model_counts(augesc, built, esconv_sessions, tmp_path):
    model = {"name": str(built / "checkpoint"), "revision": None, "from_scratch": None}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"extends": "paper", "name": "mine", "backbone": model}))
    file = lines(tmp_path / "g.jsonl", forms(esconv_sessions[:5])["messages"])
    for arguments, measured in (((), 0), (("--recipe", recipe), 5)):
        out = tmp_path / f"out{measured}"
        code, text, err = augesc("filter", file, "--out", out, *arguments)
        assert code == 0, err
        assert ("not measured" in text) is not bool(measured)
        found = pq.read_table(out / "measured")["total_tokens"]
        assert len(found) - found.null_count == measured


def test_without_the_safety_pass_nothing_is_said_to_be_safe(augesc, tmp_path, paper):
    said = [
        {"role": ("user", "assistant")[i % 2], "content": "I want to die today, so much. " * 2}
        for i in range(20)
    ]
    file = lines(tmp_path / "g.jsonl", [{"messages": said}])
    found = {}
    for options in ((), ("--no-safety",)):
        out = tmp_path / f"out{len(options)}"
        code, _, err = augesc("filter", file, "--out", out, *options)
        assert code == 0, err
        (row,) = rows_of(out / "data")
        report = json.loads((out / "safety_report.json").read_text())
        found[options] = (row["safety_flags"] is None, report["not_scanned"], report["flagged"])
    assert found == {(): (False, 0, 1), ("--no-safety",): (True, 1, 0)}


def test_ids_and_counts_that_are_there_are_kept(tmp_path):
    row = {"text": "Human: a\nAI: b", "query_id": 7, "sample": 3, "source": "mine", "n_tokens": 4}
    (chunk,) = read_chunks(lines(tmp_path / "x.jsonl", [row, {"text": "Human: a"}]), 10, 5)
    first, second = parse_generations(chunk, includes_query=True).to_pylist()
    assert (first["query_id"], first["sample"], first["source"]) == ("7", 3, "mine")
    assert (first["n_tokens"], first["n_prompt_tokens"], first["query"]) == (4, None, None)
    assert (second["source"], second["sample"]) == ("x", 11)  # row 12 of all files
    assert len(second["query_id"]) == 16


def test_backgrounds_and_strategies_go_with_their_texts(augesc, esconv_sessions, tmp_path):
    """In a table as ours, in lines, and in a table that has neither, as earlier versions wrote."""
    session = next(s for s in esconv_sessions if 10 <= len(s) <= 50)
    query, rest = session[0]["content"], session[1:]
    names = [None, *("Question" if m["role"] == "assistant" else None for m in rest)]
    row = {"query_id": "q", "sample": 0, "source": "s", "query": query, "seed": 13}
    row |= {"text": render(session).removeprefix(f"Human: {query}\nAI:"), "finish_reason": "eos"}
    row |= {"n_prompt_tokens": 9, "n_tokens": 99}
    told = {"background": "I drive a bus.", "background_faults": ["empty"], "strategies": names}
    rows = [row | told, row | {"text": " x\nno role"} | told | {"background": None}]
    schema = plain_schema(GENERATIONS)
    whole = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(whole, tmp_path / "ours.parquet")
    pq.write_table(whole.select(list(row)), tmp_path / "older.parquet")
    lines(tmp_path / "ours.jsonl", rows)
    for name in ("ours.parquet", "ours.jsonl", "older.parquet"):
        out = tmp_path / f"{name}-out"
        code, _, err = augesc("filter", tmp_path / name, "--out", out)
        assert code == 0, err
        kept, rejected = rows_of(out / "data"), rows_of(out / "rejected")
        assert [r["text"] for r in rejected if "format" in r["violations"]] == [" x\nno role"]
        for found in [*kept, *rejected]:
            older = name == "older.parquet"
            whose = found.get("text") != " x\nno role"
            assert found["background"] == ("I drive a bus." if whose and not older else None)
            assert found["strategies"] == (None if older else names)
            if "violations" in found:
                assert found["background_faults"] == (None if older else ["empty"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("background", 3), ("strategies", "Question"), ("background_faults", [1])),
        *(("emotion", 3), ("subreddit", ["lonely"])),
    ],
)
def test_grounds_and_labels_of_another_kind_are_refused(refused, tmp_path, column, value):
    path = lines(tmp_path / "g.jsonl", [{"query": "q", "text": " x", column: value}])
    said = refused("filter", path, "--out", tmp_path / "out")
    assert f"line 1: column {column}: expected" in said


def test_sessions_that_passed_pass_again_with_their_ids(augesc, built, tmp_path):
    out = tmp_path / "again"
    code, _, err = augesc("filter", built / "corpus" / "data", "--out", out, "--recipe", "paper")
    assert code == 0, err
    before = {row["session_id"] for row in rows_of(built / "corpus" / "data")}
    after = rows_of(out / "data")
    assert {row["session_id"] for row in after} <= before
    assert len(after) + len(rows_of(out / "rejected")) == len(before)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([{"text": "x"}], (), "line 1: column query must be filled"),
        ([{"query": " ", "text": "x"}], (), "line 1: column query must be filled"),
        ([{"txt": "x"}], (), "line 1: column text (or messages) must be filled, found only txt"),
        ([{"query": "q", "text": 3}], (), "line 1: column text: expected a text, found 3"),
        (["no"], (), "line 1: expected an object with text or messages, found no"),
        ([{"messages": None}], (), "line 1: column messages: expected a list of utterances"),
        ([{"messages": [{"role": "system", "content": "x"}]}], (), "role user or assistant"),
        ([{"messages": [{"role": "user", "content": None}]}], (), "line 1: expected messages"),
        (
            [{"query": "q", "text": "x", "n_tokens": -1}],
            (),
            "column n_tokens: expected a whole number from 0 on, found -1",
        ),
        ([{"query": "q", "text": "x", "sample": 2**40}], (), "column sample: expected a whole"),
        ([{"query": "q", "text": "x", "seed": 1.5}], (), "column seed: expected a whole"),
        ([{"query": "q", "text": "half \ud83d"}], (), "line 1: half of a surrogate pair (\\ud83d)"),
        ([], (), "no generations to filter"),
        ([{"query": "q", "text": "x"}], ("--tokenizer", "no/such/x"), "no tokenizer to be had"),
    ],
)
def test_what_is_refused(refused, tmp_path, rows, options, says):
    file = lines(tmp_path / "g.jsonl", rows)
    out = tmp_path / "out"
    assert says in refused("filter", file, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "X"], "expected GENERATIONS and --out DIR, or --reuse DIR"),
        (["FILE"], "expected GENERATIONS and --out DIR"),
        (["FILE", "--reuse", "X"], "--reuse measures nothing"),
        (["--reuse", "X"], "no manifest.json there"),
    ],
)
def test_what_does_not_go_together(refused, tmp_path, arguments, says):
    file = lines(tmp_path / "g.jsonl", [{"query": "q", "text": "x"}])
    assert says in refused("filter", *[file if a == "FILE" else a for a in arguments])


HOSTILE = {
    "an empty utterance": [*EMOJI, {"role": "user", "content": ""}],
    "one speaker only": [EMOJI[0], EMOJI[0]],
    "right-to-left and emoji": EMOJI,
    "no utterance": [],
    "a huge utterance": [{"role": "user", "content": "so sad. " * 125_000}, EMOJI[1]],
    "one word of a megabyte": [{"role": "user", "content": "x" * 1_000_000}, EMOJI[1]],
    "very many utterances": EMOJI * 3_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sessions_are_measured_right(augesc, tmp_path, name):
    messages = HOSTILE[name]
    file, out = lines(tmp_path / "g.jsonl", [{"messages": messages}]), tmp_path / "out"
    code, _, err = augesc("filter", file, "--out", out)
    assert code == 0, err
    (measured,) = pq.read_table(out / "measured").to_pylist()
    seeker = [m for m in messages if m["role"] == "user"]
    assert measured["n_utterances"] == len(messages)
    assert len(measured["seeker_words"]) == len(seeker)
    assert len(measured["supporter_words"]) == len(messages) - len(seeker)
    assert "NaN" not in (out / "filter_report.json").read_text()
    if name == "an empty utterance":
        assert measured["seeker_words"] == [3, 0]
    if name == "a huge utterance":
        assert measured["seeker_words"] == [375_000]
    if name == "one speaker only":
        assert measured["utterance_ratio"] is None
        assert measured["supporter_mean_words"] is None


# -- again ----------------------------------------------------------------------------------------


def test_reuse_decides_as_a_filter_with_those_thresholds(augesc, esconv_sessions, tmp_path):
    file = lines(tmp_path / "g.jsonl", forms(esconv_sessions)["messages"])
    change = ("--set", "requirements.total_utterances.max=25")
    back = ("--set", "requirements.total_utterances.max=50")
    for arguments in (
        (file, "--out", tmp_path / "first"),
        (file, "--out", tmp_path / "fresh", *change),
        ("--reuse", tmp_path / "first", "--out", tmp_path / "again", *change),
        ("--reuse", tmp_path / "again", "--out", tmp_path / "back", *back),
    ):
        code, _, err = augesc("filter", *arguments)
        assert code == 0, err
    for one, other in (("again", "fresh"), ("back", "first")):
        for place in ("data", "rejected", "measured"):
            assert rows_of(tmp_path / one / place) == rows_of(tmp_path / other / place)
        for name in ("filter_report.json", "filter_report.md"):
            assert (tmp_path / one / name).read_text() == (tmp_path / other / name).read_text()
    assert report_of(tmp_path / "again")["retained"] < report_of(tmp_path / "first")["retained"]


def test_reuse_without_a_folder_prints_and_writes_nothing(augesc, esconv_sessions, tmp_path):
    file = lines(tmp_path / "g.jsonl", forms(esconv_sessions)["messages"])
    done = tmp_path / "done"
    augesc("filter", file, "--out", done)
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()}
    file.unlink()  # what was measured is enough
    change = ("--set", "requirements.total_utterances.max=25")
    code, text, err = augesc("filter", "--reuse", done, *change)
    assert code == 0, err
    assert "Nothing was written" in text
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.is_file()} == before
    line = next(x for x in text.splitlines() if x.startswith("| ours (messages") or "ours (g)" in x)
    assert line != filter_table(report_of(done)).splitlines()[2]


def test_reuse_measures_nothing(augesc, built, tmp_path, monkeypatch):
    def measure(*_):
        raise AssertionError("measured")

    monkeypatch.setattr("augesc_builder.pipeline.filter.filter.measure", measure)
    monkeypatch.setattr("augesc_builder.text.words.tokenize", measure)
    out = tmp_path / "out"
    change = ("--set", "requirements.total_utterances.max=1")
    code, _, err = augesc("filter", "--reuse", built, "--out", out, *change)
    assert code == 0, err
    assert report_of(out)["total"] == 12
    assert report_of(out)["retained"] <= report_of(built / "corpus")["retained"]


def test_reuse_of_a_build_keeps_its_other_thresholds(augesc, built, tmp_path):
    code, _, err = augesc("filter", "--reuse", built, "--out", tmp_path / "same")
    assert code == 0, err
    assert rows_of(tmp_path / "same" / "data") == rows_of(built / "corpus" / "data")


def test_reuse_refuses_what_would_be_wrong(augesc, refused, tmp_path):
    file = lines(tmp_path / "g.jsonl", [{"text": "Human: a\nAI: b"}])
    done, out = tmp_path / "done", tmp_path / "out"
    augesc("filter", file, "--includes-query", "--out", done)
    line = refused("filter", "--reuse", done, "--set", "requirements.role_words.words=[Bot]")
    assert "changes what is measured" in line
    lines(file, [{"text": "Human: other\nAI: b"}])
    assert "changed since it was measured" in refused("filter", "--reuse", done, "--out", out)
    file.unlink()
    assert "gone since it was measured" in refused("filter", "--reuse", done, "--out", out)
    assert not out.exists()


# -- shards and processes -------------------------------------------------------------------------


@settings(max_examples=often(80))
@given(st.lists(st.integers(0, 70), max_size=6), st.integers(1, 30), st.integers(1, 60))
def test_shards_hold_every_row_once(rows, chunk, shard):
    old = generations.CHUNK, generations._SHARD
    generations.CHUNK, generations._SHARD = chunk, shard
    try:
        parts = shards_of(rows)
    finally:
        generations.CHUNK, generations._SHARD = old
    assert sum(n for _, n in parts) == sum(rows)
    assert sum(n for n, _ in parts) == sum(-(-n // chunk) for n in rows)
    assert all(n >= shard for _, n in parts[:-1])


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("group", [7, 64, 1000])
def test_processes_and_row_groups_change_nothing(
    augesc,
    esconv_sessions,
    tmp_path,
    monkeypatch,
    num_proc,
    group,
):
    monkeypatch.setattr(generations, "CHUNK", 40)
    monkeypatch.setattr(generations, "_SHARD", 80)
    rows = forms(esconv_sessions)["continued"]
    file = table(tmp_path / "g.parquet", rows, row_group_size=group)
    code, _, err = augesc("filter", file, "--out", tmp_path / "out", "--num-proc", num_proc)
    assert code == 0, err
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3
    monkeypatch.undo()
    code, _, err = augesc("filter", file, "--out", tmp_path / "whole")
    assert code == 0, err
    for place in ("data", "rejected", "measured"):
        assert rows_of(tmp_path / "out" / place) == rows_of(tmp_path / "whole" / place)
    assert report_of(tmp_path / "out") == report_of(tmp_path / "whole")


@pytest.mark.parametrize("write", [lines, table])
@pytest.mark.parametrize("num_proc", [1, 2])
def test_bad_rows_are_counted_shown_and_left_out(augesc, tmp_path, monkeypatch, write, num_proc):
    monkeypatch.setattr(generations, "CHUNK", 2)
    good = {"query": "q", "text": "x", "n_tokens": 1, "n_prompt_tokens": 1, "source": "s"}
    bad = [{**good, "text": None}, {**good, "n_tokens": 2**31 - 1}, {**good, "query": " "}]
    rows = [good, good, bad[0], good, bad[1], bad[2], good]
    file = write(tmp_path / f"g.{'jsonl' if write is lines else 'parquet'}", rows)
    out, again = tmp_path / "out", tmp_path / "again"
    code, text, err = augesc("filter", file, "--out", out, "--num-proc", num_proc)
    assert (code, err) == (0, "")
    assert "  3 lines are unreadable, and left out" in text
    report = json.loads((out / "filter_report.json").read_text())
    assert report["total"] == 4
    assert report["bad_lines"]["count"] == 3
    says = ["line 3: column text", "line 5: columns n_prompt_tokens and n_tokens", "line 6: column"]
    for example, said in zip(report["bad_lines"]["examples"], says, strict=True):
        assert example.startswith(f"{file}, {said}")
    assert pq.read_table(out / "measured")["sample"].to_pylist() == [0, 1, 3, 6]
    code, _, err = augesc("filter", "--reuse", out, "--out", again, "--num-proc", num_proc)
    assert code == 0, err
    assert (again / "filter_report.json").read_text() == (out / "filter_report.json").read_text()


def test_rows_with_messages_and_rows_with_text_are_not_mixed(augesc, tmp_path):
    file = lines(tmp_path / "g.jsonl", [{"messages": EMOJI}, {"text": "x"}])
    code, _, err = augesc("filter", file, "--out", tmp_path / "out", "--includes-query")
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "filter_report.json").read_text())
    (example,) = report["bad_lines"]["examples"]
    assert "line 2: rows with messages and rows with text in one file" in example


@pytest.mark.parametrize(
    ("copies", "shard", "n_kills"),
    [
        pytest.param(20, 300, 3, marks=pytest.mark.slow),
        *(
            pytest.param(copies, shard, n_kills, marks=[pytest.mark.slow, pytest.mark.soak])
            for copies, shard, n_kills in ((750, generations._SHARD, 1), (20, 300, SOAK))
            if SOAK
        ),
    ],
)
def test_a_killed_filter_goes_on_where_it_was(tmp_path, copies, shard, n_kills):
    sessions = [list(session.messages) for session in read_sample_sessions()]
    rows = forms(sessions)["continued"] * copies
    file, out = table(tmp_path / "g.parquet", rows), tmp_path / "out"
    code = (
        "from augesc_builder.cli import app\nfrom augesc_builder.sources import generations\n"
        f"generations.CHUNK, generations._SHARD = {min(generations.CHUNK, shard)}, {shard}\n"
        "app.main()"
    )
    command = [sys.executable, "-c", code, "filter", str(file), "--quiet"]
    command += ["--out", str(out), "--num-proc", "2"]

    def finished() -> dict[str, int]:
        """Say when the data of the shards that are marked as complete was written.

        Left out are those whose maker was killed before it put them in their place.
        """
        shards = [mark.stem.removeprefix("filter-") for mark in out.glob(".complete/filter-*.json")]
        return {
            shard: path.stat().st_mtime_ns
            for shard in shards
            for path in out.glob(f"data/*-{shard}-*.parquet")
        }

    for _ in range(n_kills):
        before = finished()
        if len(before) + 1 >= -(-len(rows) // shard):  # too little is left to be killed in
            shutil.rmtree(out)
            before = {}
        with subprocess.Popen(command, start_new_session=True) as process:
            while len(finished()) <= len(before):
                assert process.poll() is None
                time.sleep(0.005)
            os.killpg(process.pid, signal.SIGKILL)
        assert before.items() <= finished().items()
    assert not (out / "filter_report.json").exists()
    before = finished()
    subprocess.run(command, check=True)
    assert before.items() <= finished().items()
    report = report_of(out)
    assert report["total"] == len(rows)
    assert pq.read_table(out / "data").num_rows == report["retained"]
    assert pq.read_table(out / "measured").num_rows == len(rows)


# -- the report -----------------------------------------------------------------------------------


def test_the_report_holds_the_papers_rows_beside_ours():
    counts = [
        {"reddit": {"total": 3, "format": 1, "kept": 2}},
        {"reddit": {"total": 1, "kept": 1}, "empathetic_dialogues": {"total": 1, "no_tokens": 1}},
    ]
    eight = [requirement.name for requirement in active(load_recipe("paper").requirements)]
    report = filter_report(counts, eight)
    assert report["total"] == 5
    assert report["violations"]["format"] == {"count": 1, "share": 0.2}
    assert report["violations"]["session_length"] == {"count": 0, "share": 0.0, "not_measured": 1}
    assert report["paper"]["GPT-J (ED)"]["violations"]["session_length"] == {"share": 0.031}
    assert report["paper"]["GPT-3 (ED)"]["retention"] == 0.172
    rows, footnote = filter_table(report, model="GPT-J").split("\n\n")
    rows = rows.splitlines()
    assert "GPT-3 (ED) seeker utterance length 36.8 (here 36.7), role words 11.3" in footnote
    assert "GPT-J (Reddit) retention 49.6 (here 48.7)" in footnote
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert names == [
        *("GPT-J (ED)", "GPT-J (Reddit)", "GPT-J (all)"),
        *("paper: GPT-3 (ED)", "paper: GPT-J (ED)", "paper: GPT-J (Reddit)"),
    ]
    cells = [cell.strip() for cell in rows[6].split("|")[2:-1]]
    assert cells == ["0.3", "3.1", "17.8", "3.9", "5.2", "2.4", "25.3", "27.4", "49.1"]
    assert merge(counts)["reddit"]["total"] == 4
    assert rows[2].split("|")[3].strip() == "-"  # nothing of it was measured


def test_pieces_that_were_not_those_measured_are_refused(tmp_path):
    paths = [
        lines(tmp_path / f"{name}.jsonl", [{"text": f"Human: {name}\nAI: b"}]) for name in "ab"
    ]
    judge = Filter(load_recipe("paper").requirements, includes_query=True)
    (a, b) = (next(read_generations([path])) for path in paths)
    with pytest.raises(InputError, match="not the rows that were measured"):
        judge.refilter((b, judge.chunk(a).measured))


@pytest.mark.parametrize("kept_of_ten", [0, 1, 5, 10])
def test_what_a_worker_sends_is_as_large_as_its_rows(tmp_path, kept_of_ten):
    """A slice takes the table that it is cut from along; two thousand of them are gigabytes."""
    good = "\n".join([f"Human: {SAID}", f"AI: {SAID}"] * 6)
    texts = [good if i % 10 < kept_of_ten else "no role" for i in range(2000)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (chunk,) = read_chunks(file, 0, 2000)
    found = Filter(load_recipe("paper").requirements, includes_query=True).chunk(chunk)
    assert found.sessions.num_rows == 200 * kept_of_ten
    assert found.rejected.num_rows == 2000 - found.sessions.num_rows
    size = found.sessions.nbytes + found.rejected.nbytes + found.measured.nbytes
    assert len(pickle.dumps(found)) < 1.5 * size + 100_000


SAID = "I have been feeling very low for some weeks and I do not know why"
