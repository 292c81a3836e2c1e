"""Statistics in parts: data that comes back as it was, and one outcome however it is cut."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DamagedError
from augesc_builder.executors import local
from augesc_builder.executors.slurm import SlurmElement, SlurmOwner
from augesc_builder.metrics import partial
from augesc_builder.metrics.duplication import alike
from augesc_builder.metrics.duplication.counts import DEFAULT
from augesc_builder.metrics.tokenized import spoken
from augesc_builder.pipeline.statistics import figures, plan, stage
from augesc_builder.pipeline.statistics.measure import Counts, Measuring, merged, statistics
from augesc_builder.pipeline.statistics.measuring import help_out, measure, part_of
from augesc_builder.pipeline.statistics.ranges import Bands
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.records import USUAL
from augesc_builder.run.folder import RunFolder, join
from augesc_builder.run.progress import Progress
from augesc_builder.run.versions import fingerprint
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sessions import parse_sessions, session_chunks
from augesc_builder.text.minhash import Sketches, bands_of
from tests.conftest import often, shared

QUIET = Progress(quiet=True)
TEXTS = st.text(st.characters(), max_size=8)
JSON = st.recursive(st.integers() | st.none() | st.booleans(), st.lists, max_leaves=6)
ARRAYS = st.sampled_from([np.uint16, np.uint32, np.uint64, np.int64]).flatmap(
    lambda kind: st.lists(
        st.integers(int(np.iinfo(kind).min), int(np.iinfo(kind).max)), max_size=5
    ).map(lambda values: np.array(values, kind))
)
STATES = st.dictionaries(
    st.sampled_from(["a", "a/b", "a/c/0", "d"]),
    JSON | ARRAYS | st.lists(TEXTS, max_size=4),
    min_size=1,
)


@given(STATES)
def test_a_state_is_read_as_it_was_written(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "state.parquet"
    pq.write_table(partial.to_table(state), path)
    found = partial.read_state(path)
    assert found.keys() == state.keys()
    for name, value in state.items():
        assert type(found[name]) is type(value)
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            assert found[name].tolist() == value.tolist()
        else:
            assert found[name] == value


def test_some_values_are_read_alone_and_damage_is_told(tmp_path):
    path = tmp_path / "state.parquet"
    pq.write_table(partial.to_table({"0": np.arange(9), "1": ["x"]}), path)
    assert [*partial.read_state(path, ["1"])] == ["1"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedError, match="not a readable Parquet file"):
        partial.read_state(path)
    with pytest.raises(DamagedError, match="no such file"):
        partial.read_state(tmp_path / "another.parquet")


WORDS = ["I", "feel", "lost", "today", "\ud800", "why", "not", "."]
SAID = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
SESSIONS = st.lists(
    st.lists(SAID, min_size=1, max_size=4).map(
        lambda texts: spoken(
            [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]
        )
    ),
    max_size=8,
)
MEASURING = [
    Measuring(query_sample=3, topic_sample=2, near=DEFAULT),
    Measuring(trained_on=("I feel lost today why not",), tested_on={"t": (("I feel lost",),)}),
]


@pytest.mark.parametrize("what", MEASURING)
@settings(max_examples=often(40))
@given(sessions=SESSIONS, data=st.data())
def test_parts_in_any_order_and_grouping_come_to_the_whole(what, sessions, data):
    whole = Counts(what)
    whole.add(sessions)
    n = data.draw(st.integers(1, 3))
    of = [data.draw(st.integers(0, n - 1)) for _ in sessions]
    read, rows = [], []
    for part in data.draw(st.permutations(range(n))):
        counts = Counts(what)
        counts.add([s for s, where in zip(sessions, of, strict=True) if where == part])
        rows.append(counts.take_rows())
        again = Counts(what)
        again.load(partial.from_table(partial.to_table(counts.state())))
        read.append(again)
    found = merged([*read[1:], merged(read[:1], what)], what)
    near = whole.parts["duplication"].statistics()["near_duplicate_sessions"]
    hashes = np.concatenate([part["hashes"] for part in rows])
    found.parts["duplication"].settle(len(np.unique(hashes)), near)
    diversity = found.parts["lexical_diversity"]
    ranks = np.sort(np.concatenate([part["ranks"] for part in rows]))
    diversity.settle(ranks[diversity.places() - 1])
    columns = {"a": found, "b": Counts(what)}
    assert statistics(columns, what, together=found) == statistics(
        {"a": whole, "b": Counts(what)}, what
    )


def in_one_process(sets: dict[str, list[Path]], what: Measuring) -> dict[str, object]:
    """Measure sets of one source each in memory, near duplicates by datasketch's own index."""
    columns = {}
    for name, files in sets.items():
        columns[name] = Counts(what)
        for chunk in session_chunks(files):
            columns[name].add([spoken(s.messages) for s in parse_sessions(chunk)])
    return json.loads(json.dumps(statistics(columns, what)))


def near_copies(n: int) -> list[dict[str, object]]:
    """Return real sessions, many of them twice, most of those with a few words changed."""
    rng = random.Random(3)
    originals = [s.messages for s in read_esconv(shared("esconv/valid.txt"))[: n // 2]]
    rows = []
    for _ in range(n):
        messages = [dict(m) for m in rng.choice(originals)]
        for _ in range(rng.randrange(6)):
            rng.choice(messages)["content"] = f"indeed {rng.random():.3f}"
        rows.append({"messages": messages, "source": "made"})
    return rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two sets: a table in row groups, and lines; near copies inside and across."""
    folder, rows = tmp_path_factory.mktemp("corpus"), near_copies(160)
    table = pa.Table.from_pylist(rows[:100])
    pq.write_table(table, folder / "a.parquet", row_group_size=37)
    lines = "".join(json.dumps({**row, "source": "b"}) + "\n" for row in rows[100:])
    (folder / "b.jsonl").write_text(lines)
    return {"made": [folder / "a.parquet"], "b": [folder / "b.jsonl"]}


MEASURED = replace(stage._measuring(load_recipe("paper"), None), near=DEFAULT)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda found, into: None)


@pytest.mark.parametrize("num_proc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_many_small_shards_come_to_what_one_process_finds(corpus, tmp_path, monkeypatch, num_proc):
    if num_proc == 1:  # processes of their own know nothing of a patch
        monkeypatch.setattr(plan, "_CHUNK", 7)
        monkeypatch.setattr(alike, "AT_ONCE", 24 * 256)
    monkeypatch.setattr(plan, "_SHARD", 40)
    monkeypatch.setattr(plan, "_RANGE", 33)
    given = [f"{name}={files[0]}" for name, files in corpus.items()]
    out = tmp_path / "out"
    stage.standalone(given, out, QUIET, with_paper=False, near_duplicates=True, num_proc=num_proc)
    found = json.loads((out / "statistics.json").read_text())
    one = in_one_process(corpus, MEASURED)
    assert {name: found[name] for name in one} == one
    assert 0 < found["duplication"]["near_duplicate_sessions"] < 160
    assert not (out / "partial").exists()
    assert [mark.name for mark in (out / ".complete").iterdir()] == ["statistics.json"]


def test_shards_are_cut_by_rows_and_are_all_rows_once(corpus, monkeypatch):
    monkeypatch.setattr(plan, "_SHARD", 30)
    parts = tuple(
        plan.Part(name, tuple(files), tuple(count_rows(f) for f in files), MEASURED)
        for name, files in corpus.items()
    )
    cut = plan.Plan(parts, USUAL)
    seen = {}
    for number in range(cut.n_shards):
        chunks = [*cut.chunks(number)]
        assert sum(len(chunk.rows) for chunk in chunks) == cut.rows_of(number) <= cut.size <= 30
        for chunk in chunks:
            seen.setdefault(chunk.path.name, []).extend(chunk.numbers())
    assert seen == {"a.parquet": [*range(1, 101)], "b.jsonl": [*range(1, 61)]}
    assert cut.n_shards == 4 + 3


@settings(max_examples=often(40))
@given(
    seed=st.integers(0, 1 << 32),
    n=st.integers(2, 90),
    kinds=st.integers(1, 12),
    changed=st.integers(0, 40),
    held=st.sampled_from([64 * 32, 1 << 16]),
)
def test_bands_find_the_pairs_of_the_index_of_all(seed, n, kinds, changed, held):
    """Rows come in one order or another, a few sketches are held, and buckets may be large."""
    import datasketch

    rng = np.random.default_rng(seed)
    originals = rng.integers(0, 1 << 32, (kinds, 128), dtype=np.uint32)
    sketches = originals[rng.integers(0, kinds, n)]
    for sketch in sketches:
        at = rng.integers(0, 128, rng.integers(0, changed + 1))
        sketch[at] = rng.integers(0, 1 << 32, len(at), dtype=np.uint32)
    ids = np.sort(rng.choice(1 << 40, n, replace=False)).astype(np.uint64)
    columns = rng.integers(0, 3, n)
    asked = []

    def fetch(rows):
        assert (np.diff(rows.astype(np.int64)) > 0).all()
        asked.append(len(rows))
        return sketches[np.searchsorted(ids, rows)]

    every, own = np.zeros(n, bool), np.zeros(n, bool)
    mixed = rng.permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alike, "AT_ONCE", held)
        for band in bands_of(DEFAULT):
            keys = alike.band_keys(sketches, band)[mixed]
            found = alike.near_duplicates(
                keys, ids[mixed], columns[mixed], band, DEFAULT.threshold, fetch
            )
            every[mixed] |= found[0]
            own[mixed] |= found[1]

    def n_alike(some):
        index = Sketches(DEFAULT)
        empty = datasketch.LeanMinHash(datasketch.MinHash(128))
        for values in some:
            sketch = empty.copy()
            sketch.hashvalues = values.astype(empty.hashvalues.dtype)
            index._sketches.append(sketch)
        return index.n_alike()

    assert int(every.sum()) == n_alike(sketches)
    for column in range(3):
        mine = columns == column
        assert int((own & mine).sum()) == n_alike(sketches[mine])
    assert max(asked, default=0) <= held


def test_a_bucket_of_more_than_is_held_is_read_in_blocks(monkeypatch):
    monkeypatch.setattr(alike, "AT_ONCE", 8 * 256)
    n, asked = 3000, []
    sketches = np.random.default_rng(1).integers(0, 1 << 32, (n, 128), dtype=np.uint32)
    sketches[:, :13] = 7  # one band is the same everywhere, and nothing else
    sketches[2999] = sketches[5]
    ids = np.arange(n, dtype=np.uint64)

    def fetch(rows):
        asked.append(len(rows))
        return sketches[rows.astype(np.int64)]

    keys = alike.band_keys(sketches, (0, 13))
    every, own = alike.near_duplicates(keys, ids, ids.astype(np.int64), (0, 13), 0.8, fetch)
    assert np.flatnonzero(every).tolist() == [5, 2999]
    assert not own.any()  # each is of a column of its own
    assert max(asked) <= 256


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "hurt", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("gone", None))]
)
def test_a_killed_one_goes_on_and_makes_damaged_counts_again(corpus, tmp_path, monkeypatch, hurt):
    monkeypatch.setattr(plan, "_SHARD", 40)
    given = [f"{name}={files[0]}" for name, files in corpus.items()]
    ask = {"with_paper": False, "near_duplicates": True, "num_proc": 1}
    stage.standalone(given, tmp_path / "whole", QUIET, **ask)
    out, n = tmp_path / "out", []

    def killed(self, shards, number):
        n.append(number)
        if len(n) == 4:
            raise Killed
        return make(self, shards, number)

    make = Bands.make
    monkeypatch.setattr(Bands, "make", killed)
    with pytest.raises(Killed):
        stage.standalone(given, out, QUIET, **ask)
    file = sorted((out / "partial").glob("hashes-*"))[2]
    if hurt == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif hurt == "gone":
        file.unlink()
    stage.standalone(given, out, QUIET, **ask)
    # Where a count was made again, so was all that stands on it.
    assert n[4] == (0 if hurt else 3)
    whole = (tmp_path / "whole" / "statistics.json").read_bytes()
    assert (out / "statistics.json").read_bytes() == whole
    assert not (out / "partial").exists()


def test_counts_that_are_hurt_while_they_are_read_are_said(corpus, tmp_path, monkeypatch):
    """The next command finds the file by its checksum, and makes it again."""
    run = local.LocalExecutor.run

    def hurting(self, job):
        for number in run(self, job):
            if number == 1:
                file = sorted((job.folder / "partial").glob("counts-00001*"))[0]
                bytes_there = bytearray(file.read_bytes())
                bytes_there[len(bytes_there) // 2] ^= 1
                file.write_bytes(bytes_there)
            yield number

    given = [f"{name}={files[0]}" for name, files in corpus.items()]
    ask = {"with_paper": False, "num_proc": 1}
    with monkeypatch.context() as patch:
        patch.setattr(local.LocalExecutor, "run", hurting)
        with pytest.raises(DamagedError, match="counts-00001-of-00002"):
            stage.standalone(given, tmp_path / "out", QUIET, **ask)
    stage.standalone(given, tmp_path / "out", QUIET, **ask)
    stage.standalone(given, tmp_path / "whole", QUIET, **ask)
    whole = (tmp_path / "whole" / "statistics.json").read_bytes()
    assert (tmp_path / "out" / "statistics.json").read_bytes() == whole


def test_workers_elsewhere_and_an_owner_come_to_the_same(corpus, tmp_path, monkeypatch):
    """Two equal workers make everything; the owner merges, and finds what one process does."""
    monkeypatch.setattr(plan, "_SHARD", 40)
    monkeypatch.setattr(plan, "_RANGE", 70)
    parts = tuple(part_of(n, files, MEASURED, USUAL) for n, files in corpus.items())
    cut, asked = plan.Plan(parts), {"stage": "statistics"}
    with RunFolder(tmp_path / "out", asked, QUIET) as folder:
        folder.record(made_with=fingerprint())
        with ThreadPoolExecutor() as pool:
            workers = [
                pool.submit(
                    help_out, join(folder.path, asked, print), cut, SlurmElement(rank, 2), QUIET
                )
                for rank in range(2)
            ]
            for worker in workers:
                worker.result()
        counted = measure(folder, cut, SlurmOwner(), QUIET)
        found = stage._found(folder, cut, counted, MEASURED)
    assert json.loads(json.dumps(found)) == in_one_process(corpus, MEASURED)


def test_the_command_is_a_worker_where_there_is_a_rank_and_the_owner_elsewhere(
    corpus, tmp_path, augesc, refused, monkeypatch
):
    monkeypatch.setattr(plan, "_SHARD", 40)
    given = [f"{name}={files[0]}" for name, files in corpus.items()]
    call = ("stats", *given, "--out", tmp_path / "out", "--near-duplicates", "--num-proc", 1)
    several = (*call, "--executor", "slurm")
    with monkeypatch.context() as patch:
        patch.setenv("AUGESC_RANK", "1")
        patch.setenv("AUGESC_WORLD_SIZE", "2")
        assert augesc(*several)[0] == 0
        assert not (tmp_path / "out" / "statistics.json").exists()
        assert "seed" in refused(*several, "--seed", 5)
    assert augesc(*several)[0] == 0
    before = sorted((tmp_path / "out").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setenv("AUGESC_RANK", "0")
        patch.setenv("AUGESC_WORLD_SIZE", "2")
        assert augesc(*several)[0] == 0  # too late: nothing is made again
    assert [path for path in sorted((tmp_path / "out").rglob("*")) if path not in before] == []
    assert augesc(*call[:-5], "--out", tmp_path / "one", *call[-3:])[0] == 0
    found = [(tmp_path / name / "statistics.json").read_bytes() for name in ("out", "one")]
    assert found[0] == found[1]
