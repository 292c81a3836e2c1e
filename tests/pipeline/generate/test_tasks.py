"""Which conversations go to a process together."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import InputError
from augesc_builder.pipeline.generate.tasks import Task, batches, generation_row, read_queries


def make(n_samples, missing=()):
    """Give the tasks of queries with so many samples each, in one shard, but for some."""
    samples = [(query, sample) for query, n in enumerate(n_samples) for sample in range(n)]
    return [
        Task({"query_id": f"q{query}"}, sample, 0, row)
        for row, (query, sample) in enumerate(samples)
        if row not in missing
    ]


def test_a_shard_is_not_kept_together_and_the_samples_of_a_query_are():
    found = [[(t.query["query_id"], t.sample) for t in some] for some in batches(make([3, 1]), 2)]
    assert found == [[("q0", 0), ("q0", 1)], [("q0", 2)], [("q1", 0)]]
    assert [len(some) for some in batches(make([4, 4], missing={1, 4, 5, 6, 7}), 4)] == [3]


@given(st.lists(st.integers(1, 40), max_size=8), st.sets(st.integers(0, 99)), st.integers(1, 20))
def test_every_task_once_in_order_and_never_too_many(n_samples, missing, size):
    tasks = make(n_samples, missing)
    found = list(batches(tasks, size))
    assert [task for some in found for task in some] == tasks
    assert all(len(some) <= size for some in found)
    assert all(len({task.query["query_id"] for task in some}) == 1 for some in found)
    if not missing:
        assert len(found) == sum(-(-n // size) for n in n_samples)


def test_what_the_source_says_of_a_query_stands_in_its_rows(tmp_path):
    plain = {"query_id": "q", "source": "s", "text": "I am\n sad."}
    for labels, found in (
        ({"emotion": "sad", "subreddit": "lonely"}, ("sad", "lonely")),
        ({"emotion": "sad"}, ("sad", None)),
        ({}, (None, None)),  # a table of the user's own
    ):
        pq.write_table(pa.Table.from_pylist([{**plain, **labels}]), tmp_path / "q.parquet")
        (query,) = read_queries([tmp_path / "q.parquet"])
        row = generation_row(Task(query, 0, 0, 0), "text", 1)
        assert (row["emotion"], row["subreddit"]) == found
        assert row["query"] == "I am sad."
    pq.write_table(pa.Table.from_pylist([{**plain, "emotion": 3}]), tmp_path / "q.parquet")
    with pytest.raises(InputError, match="line 1: column emotion: expected a text, found 3"):
        read_queries([tmp_path / "q.parquet"])
