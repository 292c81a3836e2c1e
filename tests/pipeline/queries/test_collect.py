"""Sources of triggers, good and broken, and what the stage makes of them."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import zstandard

from augesc_builder import tables
from augesc_builder.config.queries import QuerySource
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import CheckpointError, InputError, RecipeError
from augesc_builder.pipeline.generate.tasks import read_queries
from augesc_builder.pipeline.queries import stage
from augesc_builder.pipeline.queries.report import Funnel
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.sources.empathetic_dialogues import EMOTIONS
from augesc_builder.tables import query_id
from tests.conftest import ROOT, rows_of, shared

QUIET = Progress(quiet=True)
HEADER = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"
WORDS = "and so I went home and cried about it for a while"


def collect(settings, out: Path, *sources: tuple[str, object], num_proc: int = 1, **changes):
    """Run the stage; give queries, rejected posts and the report."""
    origins = [QuerySource(source=name, path=str(path)) for name, path in sources]
    settings = settings.model_copy(update={"sources": origins, **changes})
    with RunFolder(out, {}) as run:
        stage._collect(run, settings, "queries", QUIET, num_proc)
    place = out / "queries"
    kept = pq.read_table(place / "queries-00000-of-00001.parquet")
    rejected = pq.read_table(place / "rejected.parquet")
    assert kept.schema.equals(tables.plain_schema(tables.QUERIES))
    assert rejected.schema.equals(tables.plain_schema(tables.REJECTED_POSTS))
    report = json.loads((place / "queries_report.json").read_text())
    for name, part in report.items():
        assert part["posts"] == part["queries"] + part["rejected"]
        reasons = [
            r for row in rejected.to_pylist() if row["source"] == name for r in row["reasons"]
        ]
        assert part["dropped"] == {r: reasons.count(r) for r in part["dropped"]}
        assert sum(part["dropped"].values()) == len(reasons)
    return kept.to_pylist(), rejected.to_pylist(), report


@pytest.fixture
def settings(paper):
    reddit = paper.queries.reddit.model_copy(update={"subreddits": ["stress", "ptsd"]})
    off = paper.queries.classifiers.model_copy(update={"enabled": False})
    return paper.queries.model_copy(update={"reddit": reddit, "classifiers": off})


def ed(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


class TestEmpatheticDialogues:
    def test_first_utterances_of_negative_conversations(self, settings, tmp_path):
        ten = " ".join(["pain_comma_"] * 5)  # a comma is a word of its own
        path = ed(
            tmp_path / "ed.csv",
            f"c1,1,sad,p,0,{ten},,",
            f"c1,2,sad,p,1,{ten} more,,",
            f"c2,1,joyful,p,0,{ten} joy,,",
            "c3,1,angry,p,0,too few words,,",
            f"c4,1,sad,p,0,{ten.upper().replace('_COMMA_', '_comma_')},,",
            f"c5,1,lonely,p,0,Tom &amp; I   {ten},,",
            f"c6,1,lonely,p,0,me@example.org {ten},,",
        )
        kept, rejected, report = collect(settings, tmp_path / "out", ("empathetic_dialogues", path))
        assert [row["text"] for row in kept] == [
            "pain, pain, pain, pain, pain,",
            "Tom & I pain, pain, pain, pain, pain,",
        ]
        assert [(row["emotion"], row["n_words"]) for row in kept] == [("sad", 10), ("lonely", 13)]
        assert [(row["reasons"], row["n_words"]) for row in rejected] == [
            (["emotion"], None),
            (["length"], 3),
            (["duplicate"], 10),
            (["personal_data"], None),
        ]
        found = report["empathetic_dialogues"]
        assert (found["posts"], found["queries"]) == (6, 2)
        assert found["words"] == {"mean": 11.5, "q25": 10, "q50": 10, "q75": 13}
        assert found["paper"] == {"queries": 8950, "mean_words": 19.9}

    @pytest.mark.parametrize(("n", "kept"), [(9, False), (10, True), (60, True), (61, False)])
    def test_length_bounds_are_inclusive(self, settings, tmp_path, n, kept):
        path = ed(
            tmp_path / "ed.csv",
            f"c1,1,sad,p,0,{' '.join(['word'] * n)},,",
            f"c2,1,sad,p,0,{' '.join(['other'] * 20)},,",
        )
        found, _, _ = collect(settings, tmp_path / "out", ("empathetic_dialogues", path))
        assert len(found) == 1 + kept

    def test_a_folder_and_the_tarball_give_the_same(self, settings, tmp_path):
        folder = tmp_path / "empatheticdialogues"
        folder.mkdir()
        ed(folder / "train.csv", f"c1,1,sad,p,0,one {WORDS},,")
        ed(folder / "test.csv", f"c2,1,sad,p,0,two {WORDS},,")
        tarball = tmp_path / "empatheticdialogues.tar.gz"
        with tarfile.open(tarball, "w:gz") as file:
            file.add(folder, "empatheticdialogues")
        results = [
            collect(settings, tmp_path / name, ("empathetic_dialogues", path))[0]
            for name, path in (("a", folder), ("b", tarball))
        ]
        assert results[0] == results[1]
        assert len(results[0]) == 2

    def test_a_broken_tarball(self, settings, tmp_path):
        folder = tmp_path / "f"
        folder.mkdir()
        for i in range(40):
            ed(
                folder / f"{i}.csv",
                *(f"c{k},1,sad,p,0,{i} {k * 7919} {WORDS},," for k in range(99)),
            )
        tarball = tmp_path / "whole.tar.gz"
        with tarfile.open(tarball, "w:gz") as file:
            file.add(folder, "f")
        broken = tmp_path / "broken.tar.gz"
        broken.write_bytes(tarball.read_bytes()[: tarball.stat().st_size // 2])
        with pytest.raises(InputError, match="not a whole tarball"):
            collect(settings, tmp_path / "out", ("empathetic_dialogues", broken))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("c,1,sad,p,0,one,two,,", "line 3: expected 8 columns, found 9"),
            ("c,1,sad,p,0,one,", "line 3: expected 8 columns, found 7"),
            ("c,1,blue,p,0,one,,", "line 3: unknown emotion 'blue'"),
        ],
    )
    def test_bad_lines_are_counted_or_fatal(self, settings, tmp_path, line, says):
        path = ed(tmp_path / "ed.csv", f"c1,1,sad,p,0,{WORDS},,", line)
        source = ("empathetic_dialogues", path)
        kept, _, report = collect(settings, tmp_path / "out", source)
        assert len(kept) == 1
        bad = report["empathetic_dialogues"]["bad_lines"]
        assert bad["count"] == 1
        assert says in bad["examples"][0]
        with pytest.raises(InputError, match=says):
            collect(settings, tmp_path / "strict", source, strict=True)

    def test_files_with_nothing_usable(self, settings, tmp_path):
        def fails(text: str, says: str) -> None:
            path = tmp_path / "x.csv"
            path.write_text(text)
            with pytest.raises(InputError, match=says):
                collect(settings, tmp_path / "out", ("empathetic_dialogues", path))

        fails("a,b", "line 1: expected the header")
        fails("", "empty")
        fails(HEADER, "no line behind the header")
        fails(f"{HEADER}\nc,1,blue,p,0,one,,", "unknown emotion 'blue'")
        fails(f"{HEADER}\nc,1,joyful,p,0,hello,,", "none of 1 posts became a query .1 for emotion")
        (tmp_path / "none").mkdir()
        with pytest.raises(InputError, match="no CSV files"):
            collect(settings, tmp_path / "out", ("empathetic_dialogues", tmp_path / "none"))

    def test_the_real_test_split(self, settings, tmp_path):
        path = shared("empathetic_dialogues/test.csv")
        kept, _, report = collect(settings, tmp_path / "out", ("empathetic_dialogues", path))
        assert report["empathetic_dialogues"]["posts"] == 2547
        assert len(kept) == report["empathetic_dialogues"]["queries"] == 1115
        assert not any("_comma_" in row["text"] for row in kept)

    def test_the_labels_are_32(self, settings):
        assert len(EMOTIONS) == 32
        assert set(settings.negative_emotions) < EMOTIONS


def post(text="", **fields):
    return {
        "id": "x",
        "subreddit": "stress",
        "title": "",
        "selftext": text,
        "author": "somebody_secret",
        "over_18": False,
        "is_self": True,
        **fields,
    }


POSTS = [
    post(f"one {WORDS}"),
    post(f"two {WORDS}", title="A bad day"),
    post(f"two {WORDS}", title="A bad day!"),
    post("[removed]", title=f"three {WORDS}"),
    post("[deleted]"),
    post(f"four {WORDS}", is_self=False),
    post(f"five {WORDS}", over_18=True),
    post(f"six {WORDS}", subreddit="aww"),
    post(f"seven {WORDS}", subreddit="PTSD"),
    post(f"eight &amp; nine &#x200B;\n\n{WORDS}"),
    post(f"ten {WORDS} r/stress"),
    post(f"One {WORDS}"),
]
KEPT = [
    f"one {WORDS}",
    f"A bad day. two {WORDS}",
    f"A bad day! two {WORDS}",
    f"seven {WORDS}",
    f"eight & nine {WORDS}",
]
REASONS = [
    *(["removed"], ["removed"], ["not_self"], ["over_18"], ["subreddit"]),
    *(["reddit_lingo"], ["duplicate"]),
]


def lines_of(posts) -> bytes:
    return b"".join(json.dumps(p).encode() + b"\n" for p in posts)


def write_dump(path: Path, data: bytes) -> Path:
    if path.suffix == ".zst":
        parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
        data = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    elif path.suffix == ".gz":
        data = gzip.compress(data)
    path.write_bytes(data)
    return path


class TestReddit:
    @pytest.mark.parametrize("name", ["RS.zst", "RS.jsonl", "RS.jsonl.gz", "RS"])
    @pytest.mark.parametrize("num_proc", [1, 2])
    def test_dumps(self, settings, tmp_path, name, num_proc):
        dump = write_dump(tmp_path / name, lines_of(POSTS))
        kept, rejected, report = collect(
            settings, tmp_path / "out", ("reddit", dump), num_proc=num_proc
        )
        assert [row["text"] for row in kept] == KEPT
        assert [row["reasons"] for row in rejected] == REASONS
        assert kept[3]["subreddit"] == "PTSD"
        assert report["reddit"]["paper"] == {"queries": 24_766, "mean_words": 39.1}

    @pytest.mark.parametrize("name", ["posts.parquet", "posts.csv"])
    def test_tables(self, settings, tmp_path, name):
        table = pa.Table.from_pylist(POSTS)
        path = tmp_path / name
        (pq.write_table if path.suffix == ".parquet" else pa.csv.write_csv)(table, path)
        kept, rejected, _ = collect(settings, tmp_path / "out", ("reddit", path))
        assert [row["text"] for row in kept] == KEPT
        assert [row["reasons"] for row in rejected] == REASONS

    def test_a_table_with_a_text_column_alone(self, settings, tmp_path):
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"text": [f"one {WORDS}", "short"], "author": ["a", "b"]}), path)
        kept, rejected, _ = collect(settings, tmp_path / "out", ("reddit", path))
        assert [row["text"] for row in kept] == [f"one {WORDS}"]
        assert rejected[0]["reasons"] == ["length"]
        pq.write_table(pa.table({"body_text": ["x"]}), path)
        with pytest.raises(InputError, match="no text column"):
            collect(settings, tmp_path / "out2", ("reddit", path))

    def test_many_files_in_the_order_of_their_names(self, settings, tmp_path):
        folder = tmp_path / "dumps"
        folder.mkdir()
        write_dump(folder / "RS_2.zst", lines_of(POSTS[6:]))
        write_dump(folder / "RS_1.jsonl", lines_of(POSTS[:6]))
        (folder / "notes.txt").write_text("not a dump")
        kept, _, _ = collect(settings, tmp_path / "out", ("reddit", folder))
        assert [row["text"] for row in kept] == KEPT

    def test_authors_are_nowhere(self, settings, tmp_path):
        dump = write_dump(tmp_path / "RS.zst", lines_of(POSTS))
        collect(settings, tmp_path / "out", ("reddit", dump))
        for path in (tmp_path / "out").rglob("*"):
            assert not path.is_file() or b"somebody_secret" not in path.read_bytes()

    def test_two_frames_in_one_file(self, settings, tmp_path):
        path = tmp_path / "RS.zst"
        first = write_dump(tmp_path / "a.zst", lines_of(POSTS[:4])).read_bytes()
        second = write_dump(tmp_path / "b.zst", lines_of(POSTS[4:])).read_bytes()
        path.write_bytes(first + second)
        kept, _, _ = collect(settings, tmp_path / "out", ("reddit", path))
        assert [row["text"] for row in kept] == KEPT

    @pytest.mark.parametrize("name", ["RS.zst", "RS.jsonl.gz"])
    def test_a_truncated_dump_gives_what_is_whole(self, settings, tmp_path, name):
        many = [post(f"item{i} {WORDS}") for i in range(20_000)]
        whole = write_dump(tmp_path / name, lines_of(many)).read_bytes()
        path = tmp_path / f"short-{name}"
        path.write_bytes(whole[: len(whole) // 2])
        kept, _, report = collect(settings, tmp_path / "out", ("reddit", path))
        assert 1000 < len(kept) < 20_000
        (example,) = report["reddit"]["bad_lines"]["examples"]
        assert example.startswith(f"{path}, line {len(kept) + 1}")
        assert "truncated" in example
        with pytest.raises(InputError, match="truncated"):
            collect(settings, tmp_path / "strict", ("reddit", path), strict=True)
        assert not (tmp_path / "strict").exists()

    @pytest.mark.parametrize("name", ["RS.zst", "RS.jsonl.gz"])
    def test_the_wrong_compression(self, settings, tmp_path, name):
        path = tmp_path / name
        path.write_bytes(lines_of(POSTS))
        with pytest.raises(InputError, match=r"no post .* not compressed as its name says"):
            collect(settings, tmp_path / "out", ("reddit", path))
        plain = write_dump(tmp_path / "RS.jsonl", lines_of(POSTS))
        plain.write_bytes(gzip.compress(lines_of(POSTS)))
        with pytest.raises(InputError, match=r"no post .* not JSON"):
            collect(settings, tmp_path / "out", ("reddit", plain))

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            (b"{broken", "line 13: not JSON (Expecting property name"),
            (b'{"author": "somebody_secret", "selftext', "line 13: not JSON (Unterminated"),
            (b"[1]", "line 13: expected an object"),
            (b'{"id": "x", "score": 3}', "line 13: no text: expected title, selftext or text"),
            (b'{"selftext": null}', "line 13: no text"),
            (b'{"selftext": "caf\xe9"}', "line 13: not JSON (not UTF-8)"),
        ],
    )
    @pytest.mark.parametrize("num_proc", [1, 2])
    def test_bad_lines_are_counted_or_fatal(self, settings, tmp_path, line, says, num_proc):
        dump = write_dump(tmp_path / "RS.zst", lines_of(POSTS) + line + b"\n" + lines_of(POSTS[:1]))
        kept, _, report = collect(settings, tmp_path / "out", ("reddit", dump), num_proc=num_proc)
        assert [row["text"] for row in kept] == KEPT
        assert report["reddit"]["bad_lines"]["count"] == 1
        assert says in report["reddit"]["bad_lines"]["examples"][0]
        assert "secret" not in report["reddit"]["bad_lines"]["examples"][0]
        with pytest.raises(InputError, match=re.escape(says)):
            collect(settings, tmp_path / "s", ("reddit", dump), strict=True, num_proc=num_proc)

    @pytest.mark.slow
    def test_a_killed_command_leaves_no_process_behind(self, tmp_path):
        many = [post(f"item{i} {WORDS}") for i in range(60_000)]
        dump = write_dump(tmp_path / "RS.jsonl", lines_of(many))
        command = [sys.executable, "-m", "augesc_builder", "queries", "--num-proc", "2"]
        command += ["--source", f"reddit={dump}", "--out", str(tmp_path / "out")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUGESC_MARK": str(tmp_path)}
        process = subprocess.Popen(command, env=environment)

        def alive() -> int:
            marked = 0
            for path in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    marked += f"AUGESC_MARK={tmp_path}".encode() in path.read_bytes()
            return marked

        while process.poll() is None and alive() < 4:  # the command, its fork server, two workers
            time.sleep(0.05)
        assert process.poll() is None
        process.kill()
        process.wait()
        for _ in range(100):
            if not alive():
                break
            time.sleep(0.1)
        assert not alive()

    def test_nothing_there(self, settings, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            collect(settings, tmp_path / "out", ("reddit", tmp_path / "nothing"))
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no dumps there"):
            collect(settings, tmp_path / "out", ("reddit", tmp_path / "empty"))
        with pytest.raises(InputError, match="no post in it"):
            collect(settings, tmp_path / "out", ("reddit", write_dump(tmp_path / "x.jsonl", b"")))
        origin = [QuerySource(source="reddit")]
        with pytest.raises(RecipeError, match="needs a path"), RunFolder(tmp_path / "o", {}) as run:
            stage._collect(run, settings.model_copy(update={"sources": origin}), ".", QUIET, 1)

    def test_real_posts_give_the_same_in_any_number_of_processes(self, settings, tmp_path):
        path = shared("reddit/RS_dreaddit_train.zst")
        one = collect(settings, tmp_path / "one", ("reddit", path))
        two = collect(settings, tmp_path / "two", ("reddit", path), num_proc=3)
        assert one == two
        assert one[2]["reddit"]["posts"] == 2838
        for row in one[0]:
            assert row["query_id"] == query_id("reddit", row["text"])
        assert {"length", "serious_issue", "medication", "reddit_lingo", "url", "subreddit"} <= set(
            one[2]["reddit"]["dropped"]
        )


def test_duplicates_are_found_across_sources(settings, tmp_path):
    text = f"one {WORDS}"
    path = ed(tmp_path / "ed.csv", f"c1,1,sad,p,0,{text},,")
    dump = write_dump(tmp_path / "RS.jsonl", lines_of([post(text), post(f"two {WORDS}")]))
    kept, rejected, _ = collect(
        settings, tmp_path / "out", ("empathetic_dialogues", path), ("reddit", dump)
    )
    assert [row["source"] for row in kept] == ["empathetic_dialogues", "reddit"]
    assert [row["reasons"] for row in rejected] == [["duplicate"]]


@pytest.mark.parametrize(("threshold", "out"), [(0.5, True), (0.95, False)])
def test_near_duplicates_across_sources(settings, tmp_path, threshold, out):
    from augesc_builder.config.queries import NearDuplicates

    long = " ".join(f"word{i}" for i in range(50))
    path = ed(tmp_path / "ed.csv", f"c1,1,sad,p,0,{long},,")
    near, far = long.replace("word49", "other"), " ".join(f"far{i}" for i in range(50))
    dump = write_dump(tmp_path / "RS.jsonl", lines_of([post(near), post(far)]))
    near_duplicates = NearDuplicates(threshold=threshold, shingle=3, permutations=128)
    kept, rejected, _ = collect(
        settings,
        tmp_path / "out",
        *(("empathetic_dialogues", path), ("reddit", dump)),
        near_duplicates=near_duplicates,
    )
    assert [row["reasons"] for row in rejected] == [["near_duplicate"]] * out
    assert len(kept) == 3 - out


def test_names_and_places(settings, tmp_path):
    """With a real spaCy model, though one that knows two names only."""
    import spacy

    nlp = spacy.blank("en")
    patterns = [{"label": "PERSON", "pattern": "Jane Doe"}, {"label": "GPE", "pattern": "Recife"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(tmp_path / "model")
    posts = [post(f"{name} {WORDS}") for name in ("Jane Doe", "In Recife", "My friend")]
    dump = write_dump(tmp_path / "RS.jsonl", lines_of(posts))
    kept, rejected, _ = collect(
        settings,
        tmp_path / "out",
        ("reddit", dump),
        names_and_places=str(tmp_path / "model"),
    )
    assert [row["text"] for row in kept] == [f"My friend {WORDS}"]
    assert [row["reasons"] for row in rejected] == [["personal_data"]] * 2
    with pytest.raises(CheckpointError, match="python -m spacy download no_such_model"):
        collect(settings, tmp_path / "x", ("reddit", dump), names_and_places="no_such_model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a folder of a spaCy model"):
        collect(
            settings, tmp_path / "x", ("reddit", dump), names_and_places=str(tmp_path / "empty")
        )


def test_only_the_first_so_many(settings, tmp_path):
    dump = write_dump(tmp_path / "RS.jsonl", lines_of(POSTS))
    kept, rejected, report = collect(settings, tmp_path / "out", ("reddit", dump), max_per_source=2)
    assert [row["text"] for row in kept] == KEPT[:2]
    beyond = [row["text"] for row in rejected if row["reasons"] == ["max_per_source"]]
    assert beyond == KEPT[2:]  # no post that was read is without a row
    assert report["reddit"]["dropped"]["max_per_source"] == 3


def test_the_funnels_quantiles():
    funnel = Funnel("x")
    funnel.add([{"n_words": n} for n in (10, 20, 30, 40)], [])
    assert funnel.report()["words"] == {"mean": 25.0, "q25": 10, "q50": 20, "q75": 30}
    assert Funnel("x").report()["words"]["q50"] is None


def test_ids_belong_to_source_and_text():
    assert query_id("a", "x") == query_id("a", "x")
    assert len({query_id("a", "x"), query_id("b", "x"), query_id("a", "y")}) == 3


def test_a_queries_table_is_checked(tmp_path):
    def table(**columns):
        pq.write_table(pa.table(columns), tmp_path / "q.parquet")
        return read_queries([tmp_path / "q.parquet"])

    assert table(query_id=["a"], source=["s"], text=[" b  c "])[0]["text"] == "b c"
    with pytest.raises(InputError, match="no column source, text; found query_id"):
        table(query_id=["a"])
    with pytest.raises(InputError, match="line 2: query_id, source and text must be filled"):
        table(query_id=["a", "b"], source=["s", "s"], text=["x", None])
    empty = pa.array([], pa.string())
    with pytest.raises(InputError, match="empty"):
        table(query_id=empty, source=empty, text=empty)
    (tmp_path / "q.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_queries([tmp_path / "q.parquet"])


@pytest.mark.slow
def test_a_build_with_both_as_its_triggers(tiny_file, tmp_path):
    from augesc_builder.pipeline.build import build

    path, dump = shared("empathetic_dialogues/test.csv"), shared("reddit/RS_dreaddit_train.zst")
    both = f"[{{source: empathetic_dialogues, path: {path}}}, {{source: reddit, path: {dump}}}]"
    recipe = load_recipe(
        tiny_file, [f"queries.sources={both}", "generate.samples_per_query={reddit: 2}"]
    )
    assert build(recipe, tmp_path / "run", QUIET)
    sources = [row["source"] for row in rows_of(tmp_path / "run" / "generations")]
    assert (sources.count("empathetic_dialogues"), sources.count("reddit")) == (12, 24)
    report = json.loads((tmp_path / "run/corpus/filter_report.json").read_text())
    assert set(report["by_source"]) == {"empathetic_dialogues", "reddit"}


# -- classifiers ----------------------------------------------------------------------------------


def classifier(folder: Path, labels: list[str], biased_to: dict[str, float]) -> Path:
    """Make a tiny classifier whose scores are those of its biases, whatever it reads."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    from augesc_builder.models.causal_lm import train_tokenizer

    folder.mkdir()
    tokenizer: PreTrainedTokenizerFast = train_tokenizer([WORDS], 300)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = 64
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=len(labels),
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([biased_to.get(label, -4.0) for label in labels]))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TestClassifiers:
    LABELS = ("joy", "sadness", "surprise", "neutral")

    @pytest.fixture
    def with_models(self, settings, tmp_path):
        def make(*, multi_label=False, biases, threshold=0.5, toxic=-4.0, labels=None):
            labels = list(labels or self.LABELS)
            emotion = classifier(tmp_path / "emotion", labels, biases)
            toxicity = classifier(tmp_path / "toxic", ["toxic", "insult"], {"insult": toxic})
            classifiers = settings.classifiers.model_dump()
            classifiers |= {"enabled": True, "batch_size": 2}
            classifiers["emotions"] = [
                {
                    "name": "tiny",
                    "model": str(emotion),
                    "revision": None,
                    "multi_label": multi_label,
                    "threshold": threshold,
                    "labels": {
                        "positive": ["joy"],
                        "negative": ["sadness"],
                        "ambiguous": ["surprise"],
                        "neutral": ["neutral"],
                    },
                }
            ]
            classifiers["toxicity"] |= {"model": str(toxicity), "revision": None}
            return type(settings.classifiers).model_validate(classifiers)

        return make

    def reasons(self, classifiers):
        from augesc_builder.pipeline.queries.classifiers import PostClassifiers

        texts = [f"{name} {WORDS * length}" for name, length in (("one", 1), ("two", 9), ("x", 2))]
        first, *others = PostClassifiers(classifiers).reasons(texts)
        assert others == [first, first]
        return first

    def test_they_judge_reddit_posts_and_no_others(self, settings, tmp_path, with_models):
        path = ed(tmp_path / "ed.csv", f"c1,1,sad,p,0,other {WORDS},,")
        dump = write_dump(tmp_path / "RS.jsonl", lines_of(POSTS))
        sources = (("empathetic_dialogues", path), ("reddit", dump))
        kept, rejected, _ = collect(
            settings, tmp_path / "a", *sources, classifiers=with_models(biases={"sadness": 3.0})
        )
        assert [row["text"] for row in kept] == [f"other {WORDS}", *KEPT]
        assert [row["reasons"] for row in rejected] == REASONS

    def test_posts_they_put_out_are_counted(self, settings, tmp_path, with_models):
        dump = write_dump(tmp_path / "RS.jsonl", lines_of(POSTS))
        with pytest.raises(InputError, match=r"none of 12 posts .*5 for emotion_tiny"):
            collect(
                settings,
                tmp_path / "out",
                ("reddit", dump),
                classifiers=with_models(biases={"joy": 3.0}),
            )

    @pytest.mark.parametrize(
        ("biases", "found"),
        [
            ({"sadness": 3.0}, []),
            ({"surprise": 3.0}, []),
            ({"joy": 3.0}, ["emotion_tiny"]),
            ({"neutral": 3.0}, ["emotion_tiny"]),
            ({"sadness": 3.0, "joy": 2.9}, []),  # softmax: the best one alone
        ],
    )
    def test_single_label(self, with_models, biases, found):
        assert self.reasons(with_models(biases=biases)) == found

    @pytest.mark.parametrize(
        ("biases", "threshold", "found"),
        [
            ({"sadness": 3.0}, 0.3, []),
            ({"sadness": 3.0, "joy": 0.0}, 0.3, ["emotion_tiny"]),  # sigmoid: joy has 0.5 too
            ({"sadness": 3.0, "joy": 0.0}, 0.6, []),
            ({"sadness": -2.0}, 0.3, []),  # none reaches it: the best counts
            ({"joy": -2.0}, 0.3, ["emotion_tiny"]),
        ],
    )
    def test_multi_label(self, with_models, biases, threshold, found):
        models = with_models(multi_label=True, biases=biases, threshold=threshold)
        assert self.reasons(models) == found

    def test_toxicity(self, with_models):
        models = with_models(biases={"joy": 3.0}, toxic=1.0)
        assert self.reasons(models) == ["emotion_tiny", "toxic"]

    def test_a_model_without_the_labels_is_refused_by_name(self, with_models):
        models = with_models(biases={}, labels=("joy", "LABEL_1", "surprise", "neutral"))
        with pytest.raises(CheckpointError, match=r"emotion: lacks the labels sadness"):
            self.reasons(models)

    def test_a_model_with_other_labels_is_refused_too(self, with_models):
        models = with_models(biases={}, labels=(*self.LABELS, "rage"))
        with pytest.raises(CheckpointError, match="has the labels rage"):
            self.reasons(models)

    def test_a_model_that_is_none(self, settings, tmp_path):
        (tmp_path / "empty").mkdir()
        classifiers = settings.classifiers.model_dump() | {"enabled": True}
        classifiers["emotions"] = []
        classifiers["toxicity"] |= {"model": str(tmp_path / "empty"), "revision": None}
        models = type(settings.classifiers).model_validate(classifiers)
        with pytest.raises(CheckpointError, match="cannot be loaded as a classifier"):
            self.reasons(models)

    def test_the_papers_models_know_every_goemotions_label_once(self, paper):
        _, goemotions = paper.queries.classifiers.emotions
        groups = goemotions.labels.model_dump().values()
        labels = [label for group in groups for label in group]
        assert len(labels) == len(set(labels)) == 28
