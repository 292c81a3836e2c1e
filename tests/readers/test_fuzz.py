"""Every reader on lines and files that nobody should write: all are read or counted, none ends it.

What a reader gives goes on as it does in a command: through the rules for posts, the requirements,
the counts of words, and into tables.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.queries import QuerySource
from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError
from augesc_builder.pipeline.filter.filter import Filter
from augesc_builder.pipeline.queries.collect import Collected, collect_queries
from augesc_builder.pipeline.statistics.measure import TABLE_2, Measuring
from augesc_builder.readers.records import BadLines
from augesc_builder.sources.empathetic_dialogues import COLUMNS
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.generations import read_generations
from augesc_builder.sources.published import ByteRange, byte_ranges, read_byte_range
from augesc_builder.sources.sessions import session_chunks
from augesc_builder.tables import QUERIES, REJECTED_POSTS, to_table
from tests.conftest import SOAK
from tests.readers.mutations import TOKENS, VALUES, mutate_file, mutate_line

RECIPE = load_recipe("paper", ["queries.reddit.subreddits=[]", "queries.classifiers.enabled=false"])
SAID = "I feel so alone, and nobody I know has asked me how I am for weeks."
PAIRS = [["usr", SAID], ["sys", "That is hard. Who is there?"], ["usr", "My cat. :)"]]
MESSAGES = [{"role": "user" if who == "usr" else "assistant", "content": t} for who, t in PAIRS]
ESCONV = {"problem_type": "x", "dialog": [{"speaker": who, "text": text} for who, text in PAIRS]}
POST = {"title": "Help", "selftext": SAID, "subreddit": "stress", "is_self": True, "over_18": False}
GENERATION = {
    **{"query_id": "q", "sample": 0, "source": "s", "query": SAID, "seed": 1},
    **{"text": " That is hard.\nHuman: It is.", "n_prompt_tokens": 9, "n_tokens": 9},
    "finish_reason": "eos",
}
TRIGGER = {"utterance_idx": 1, "context": "sad", "utterance": f"{SAID} &amp; so_comma_ on"}
ED_LINE = f"c1,1,sad,p,0,{SAID.replace(',', '_comma_')},,"
CSV_LINE = f'Help,"{SAID}",stress,true,false'


def posts(source: str) -> Callable[[Path], int]:
    """Give a function that makes queries of a file, and returns how many lines it saw."""

    def read(path: Path) -> int:
        origin = QuerySource(source=source, path=str(path))
        settings = RECIPE.queries.model_copy(update={"sources": [origin]})
        collected = Collected({}, {})
        for kept, dropped in collect_queries(settings, collected):
            to_table(kept, QUERIES)
            to_table(dropped, REJECTED_POSTS)
        (funnel,) = collected.funnels.values()
        json.dumps(funnel.report(), ensure_ascii=False).encode()
        return funnel.n_posts + funnel.bad.count

    return read


def sessions(path: Path) -> int:
    n = 0
    for chunk in session_chunks([path]):
        counted, bad = {}, BadLines()
        unread = Measuring(names=(TABLE_2,)).chunk(chunk, counted, bad)
        n += sum(counts.statistics()["sessions"] for counts in counted.values())
        n += bad.count + unread
        assert n == chunk.first + len(chunk.rows)
    return n


def generations(path: Path) -> int:
    n = 0
    for chunk in read_generations([path]):
        found = Filter(RECIPE.requirements, includes_query=len(chunk.rows) % 2 == 0).chunk(chunk)
        assert len(found) == len(chunk.rows)
        n += len(found)
    return n


def published(path: Path) -> int:
    """Read every line by itself: a bad one is refused, not counted."""
    start = n = 0
    for line in path.read_bytes().split(b"\n"):
        n += bool(line.strip())
        with_error = ByteRange(str(path), start, len(line), n)
        start += len(line) + 1
        try:
            list(read_byte_range(with_error))
        except InputError as error:
            str(error).encode()
    for part in byte_ranges(path):
        list(read_byte_range(part))
    return n


def trained_on(path: Path) -> int:
    return len(read_esconv(path))


LINES: dict[str, tuple[str, list[object], Callable[[Path], int]]] = {
    "esconv": ("s.txt", [ESCONV], sessions),
    "esconv to train on": ("s.txt", [ESCONV], trained_on),
    "sessions": ("s.jsonl", [{"messages": MESSAGES, "source": "s"}, PAIRS, ESCONV], sessions),
    "generations": ("g.jsonl", [GENERATION, {"messages": MESSAGES}, PAIRS], generations),
    "published": ("augesc.txt", [PAIRS], published),
    "reddit": ("RS.jsonl", [POST], posts("reddit")),
    "reddit zst": ("RS.zst", [POST], posts("reddit")),
    "reddit csv": ("RS.csv", [CSV_LINE], posts("reddit")),
    "empathetic_dialogues": ("ed.csv", [ED_LINE], posts("empathetic_dialogues")),
}
"""By source: the name of a file, good lines, and what reads them."""

HEADERS = {
    "reddit csv": b"title,selftext,subreddit,is_self,over_18\n",
    "empathetic_dialogues": ",".join(COLUMNS).encode() + b"\n",
}


def tables(**rows: dict[str, object]) -> dict[str, bytes]:
    """Give a Parquet file of each row, repeated."""
    files = {}
    for name, row in rows.items():
        file = io.BytesIO()
        table = pa.Table.from_pylist([row] * 20 + [dict.fromkeys(row)])
        pq.write_table(table, file, compression="none", use_dictionary=name != "ed")
        files[name] = file.getvalue()
    return files


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tarball:
        text = b"\n".join([HEADERS["empathetic_dialogues"].strip(), ED_LINE.encode()])
        member = tarfile.TarInfo("ed/train.csv")
        member.size = len(text)
        tarball.addfile(member, io.BytesIO(text))
    return file.getvalue()


TABLES = tables(ed=TRIGGER, reddit=POST, sessions={"messages": MESSAGES}, generations=GENERATION)
DUMP = b"\n".join([json.dumps(POST).encode()] * 20)
FILES: dict[str, tuple[str, bytes, Callable[[Path], int]]] = {
    "empathetic_dialogues parquet": ("e.parquet", TABLES["ed"], posts("empathetic_dialogues")),
    "reddit parquet": ("RS.parquet", TABLES["reddit"], posts("reddit")),
    "sessions parquet": ("s.parquet", TABLES["sessions"], sessions),
    "generations parquet": ("g.parquet", TABLES["generations"], generations),
    "reddit zst": ("RS.zst", zstandard.compress(DUMP), posts("reddit")),
    "reddit gz": ("RS.jsonl.gz", gzip.compress(DUMP), posts("reddit")),
    "reddit csv": ("RS.csv", HEADERS["reddit csv"] + CSV_LINE.encode(), posts("reddit")),
    "tar": ("e.tar", tar(), posts("empathetic_dialogues")),
    "tar.gz": ("e.tar.gz", gzip.compress(tar()), posts("empathetic_dialogues")),
    "tar.xz": ("e.tar.xz", lzma.compress(tar()), posts("empathetic_dialogues")),
    "tar.bz2": ("e.tar.bz2", bz2.compress(tar()), posts("empathetic_dialogues")),
}
"""By source: the name of a file, its bytes, and what reads it."""


def read(path: Path, reader: Callable[[Path], int]) -> int | None:
    """Read a file; ``None`` where it is refused in words."""
    try:
        return reader(path)
    except InputError as error:
        str(error).encode()
        return None


def write(path: Path, source: str, lines: list[bytes]) -> Path:
    data = HEADERS.get(source, b"") + b"\n".join(lines) + b"\n"
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


def good(source: str) -> list[bytes]:
    samples = LINES[source][1]
    return [s.encode() if isinstance(s, str) else json.dumps(s).encode() for s in samples]


def test_what_is_not_changed_is_read(tmp_path):
    for source, (name, samples, reader) in LINES.items():
        assert read(write(tmp_path / name, source, good(source)), reader) == len(samples), source
    for source, (name, data, reader) in FILES.items():
        (tmp_path / name).write_bytes(data)
        assert read(tmp_path / name, reader), source


@pytest.mark.parametrize("source", LINES)
@pytest.mark.parametrize(
    "n_lines",
    [500, pytest.param(100_000 if SOAK else 5_000, marks=[pytest.mark.slow, pytest.mark.soak])],
)
def test_mutated_lines(tmp_path, source, n_lines):
    name, _, reader = LINES[source]
    rng, samples = random.Random(f"{source}/{n_lines}"), good(source)
    for _ in range(0, n_lines, 500):
        lines = [mutate_line(rng, rng.choice(samples)) for _ in range(499)] + samples[:1]
        n = read(write(tmp_path / name, source, lines), reader)
        n_filled = sum(bool(line.strip()) for line in lines)
        if source == "empathetic_dialogues":  # gives the first utterances alone
            assert n is None or n <= n_filled
        elif source in {"published", "esconv to train on"}:  # one bad line is the end of it
            assert n is None
        elif source != "reddit csv":  # a record may hold several lines
            assert n == n_filled


@pytest.mark.parametrize("source", FILES)
@pytest.mark.parametrize("n_files", [40, pytest.param(150, marks=pytest.mark.slow)])
def test_mutated_files(tmp_path, source, n_files):
    name, data, reader = FILES[source]
    rng = random.Random(f"{source}/{n_files}")
    for _ in range(n_files):
        (tmp_path / name).write_bytes(mutate_file(rng, data))
        read(tmp_path / name, reader)


NAMES = sorted(
    {*POST, *GENERATION, *ESCONV, *TRIGGER, "messages", "role", "content", "speaker", "body"}
)
VALUE = st.recursive(
    st.sampled_from(VALUES) | st.text(max_size=20) | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
LINE = st.one_of(
    st.binary(max_size=60),
    VALUE.map(lambda value: json.dumps(value).encode()),
    st.lists(st.sampled_from(TOKENS), max_size=4).map(b"".join),
).map(lambda line: line.replace(b"\n", b""))


@pytest.mark.parametrize("source", LINES)
def test_lines_of_any_kind(tmp_path_factory, source):
    name, _, reader = LINES[source]
    path = tmp_path_factory.mktemp("fuzz") / name

    @given(st.lists(LINE, max_size=6))
    def check(lines):
        read(write(path, source, [*lines, *good(source)]), reader)

    check()
