"""Every sample of every query, read shard by shard."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError
from augesc_builder.pipeline.generate.order import Order
from tests.conftest import often


def table(rows):
    names = ("query_id", "source", "text")
    return pa.table({name: [row[name] for row in rows] for name in names})


def queries(sources):
    return [
        {"query_id": f"q{i}", "source": source, "text": f" text\n{i}"}
        for i, source in enumerate(sources)
    ]


def write(folder, rows, per_file, per_group):
    files = []
    for start in range(0, len(rows), per_file):
        files.append(folder / f"queries-{start:05d}.parquet")
        pq.write_table(table(rows[start : start + per_file]), files[-1], row_group_size=per_group)
    return files


def generate_of(samples, size):
    given = [f"generate.samples_per_query={samples}", f"generate.shard_size={size}"]
    return load_recipe("tiny", given).generate


@pytest.mark.parametrize("checked", [True, False])
def test_every_sample_of_every_query_stands_in_its_place(tmp_path, checked):
    files = write(tmp_path, queries("aba"), 2, 1)
    order = Order(files, generate_of("{b: 2}", 3), checked=checked)
    assert (order.n_tasks, order.n_shards) == (4, 2)
    found = [
        (t.query["query_id"], t.sample, t.shard, t.row) for n in range(2) for t in order.tasks(n)
    ]
    assert found == [("q0", 0, 0, 0), ("q1", 0, 0, 1), ("q1", 1, 0, 2), ("q2", 0, 1, 0)]
    assert [order.n_rows(n) for n in range(2)] == [3, 1]
    assert order.tasks(1)[0].query == {"query_id": "q2", "source": "a", "text": "text 2"}


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.integers(1, 3) | st.just("{a: 3, c: 2}"),
    *(st.integers(1, 9) for _ in range(3)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=often(40))
def test_any_shard_in_any_order_is_that_part_of_all(
    tmp_path_factory, sources, samples, size, per_file, per_group, dice
):
    chosen = generate_of(samples, size)
    rows = queries(sources)
    whole = [(row["query_id"], n) for row in rows for n in range(chosen.samples_for(row["source"]))]
    folder = tmp_path_factory.mktemp("q")
    order = Order(write(folder, rows, per_file, per_group), chosen, checked=dice.random() < 0.5)
    assert order.n_tasks == len(whole)
    for shard in dice.sample(range(order.n_shards), order.n_shards):
        found = order.tasks(shard)
        assert [(t.query["query_id"], t.sample) for t in found] == whole[
            shard * size : (shard + 1) * size
        ]
        assert [(t.shard, t.row) for t in found] == [(shard, n) for n in range(len(found))]
        assert order.n_rows(shard) == len(found)


@pytest.mark.parametrize("blank", [None, "", " \n", "\u3000", "\x1c"])
@pytest.mark.parametrize("name", ["query_id", "source", "text"])
def test_an_empty_value_is_refused_with_its_row(tmp_path, name, blank):
    rows = [*queries("aaa"), {**queries("a")[0], name: blank}]
    (file,) = write(tmp_path, rows, 9, 2)
    with pytest.raises(InputError, match=r"line 4: query_id, source and text must be filled"):
        Order([file], generate_of(1, 4), checked=True)


def test_other_scripts_are_no_blanks(tmp_path):
    rows = [{"query_id": "q", "source": "a", "text": "助けて"}]
    assert Order(write(tmp_path, rows, 1, 1), generate_of(1, 4), checked=True).n_tasks == 1


def test_an_empty_table_is_refused(tmp_path):
    pq.write_table(table([]), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="empty; expected a query a row"):
        Order([tmp_path / "q.parquet"], generate_of(1, 4), checked=False)
