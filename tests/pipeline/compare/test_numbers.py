"""Intervals of differences: they hold what is so, and find what is not so one time in twenty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.intervals import Grams
from augesc_builder.pipeline.compare.measure import Measured, Sums
from augesc_builder.pipeline.compare.numbers import Ratio, estimate, estimate_diversity
from tests.conftest import often

WORDS = {"words": Ratio("", "words a session", "words", "kept")}
SHARE = {"share": Ratio("", "a share", "words", "kept", is_share=True)}


def sums(names: dict[str, int], rows) -> Sums:
    """Give the sums of sessions: the query of each, and its words."""
    found = Sums(names)
    found.add("kept", [query for query, _ in rows])
    found.add("words", [query for query, _ in rows], [words for _, words in rows])
    return found


def difference(first, second, compared=WORDS, n: int = 200, seed: int = 1):
    queries = {query: i for i, query in enumerate(sorted({q for q, _ in [*first, *second]}))}
    (key,) = compared
    return estimate([sums(queries, first), sums(queries, second)], compared, n, seed)[1][1][key]


ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 99)), min_size=1, max_size=16)


@settings(max_examples=often(60))
@given(ROWS, ROWS)
def test_a_difference_lies_in_its_interval_and_runs_change_places(first, second):
    there, back = difference(first, second), difference(second, first)
    means = [np.mean([words for _, words in rows]) for rows in (first, second)]
    assert there.value == pytest.approx(means[1] - means[0])
    assert back.value == pytest.approx(-there.value)
    if there.low is not None:
        assert there.low - 1e-9 <= there.high
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


@settings(max_examples=often(60))
@given(ROWS)
def test_a_run_does_not_differ_from_itself(rows):
    found = difference(rows, rows)
    assert (found.value, found.low or 0.0, found.high or 0.0) == (0, 0, 0)


@given(ROWS, st.integers(1, 50))
def test_what_is_added_to_each_of_the_same_queries_is_sure(rows, more):
    rows = [(f"{query}{i}", words) for i, (query, words) in enumerate(rows)]
    found = difference(rows, [(query, words + more) for query, words in rows])
    if len(rows) > 1:  # pairs: however much sessions differ from each other
        assert (found.low, found.high) == pytest.approx((more, more))


def test_a_share_of_nothing_or_all_has_no_interval():
    rows = {share: [(f"{i}", i < 10 * share) for i in range(10)] for share in (0.0, 0.5, 1.0)}
    assert difference(rows[0.5], rows[0.5][::-1], SHARE).low is not None
    for never in (0.0, 1.0):
        found = difference(rows[0.5], rows[never], SHARE)
        assert (found.value, found.low, found.high) == (never - 0.5, None, None)
        assert difference(rows[never], rows[0.5], SHARE).low is None


@pytest.mark.parametrize("on_the_same_queries", [True, False])
def test_equal_runs_are_found_to_differ_one_time_in_twenty(on_the_same_queries):
    rng, wrong, n = np.random.default_rng(3), 0, 300
    for i in range(n):
        # What a query brings with it.
        shifts = [rng.normal(0, 20, 80)] * 2 if on_the_same_queries else rng.normal(0, 20, (2, 80))
        first, second = (
            [
                (f"{j}" if on_the_same_queries else f"{run}-{j}", words)
                for j, words in enumerate(rng.normal(100 + shifts[run], 10))
                if rng.random() < 0.8  # kept
            ]
            for run in (0, 1)
        )
        found = difference(first, second, n=200, seed=i)
        wrong += not found.low <= 0 <= found.high
    assert 0.02 * n <= wrong <= 0.10 * n


@pytest.mark.parametrize("shared", [0, 40])
def test_vendi_scores_of_equal_runs_differ_one_time_in_twenty(shared):
    rng, wrong, n = np.random.default_rng(7), 0, 60

    def held(queries, width):
        for query in queries:
            words = rng.zipf(1.3 + width, rng.integers(30, 60)) % 5_000
            yield query, np.unique(words.astype(np.uint64))

    for _ in range(n):
        runs = [Measured(Sums({})) for _ in range(2)]
        for run, first in zip(runs, (0, 40 - shared), strict=True):
            run.held = [*held(range(first, first + 40), 0.0)]
        found = estimate_diversity(runs)[1][1]["vendi"]
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 0.11 * n
    poor = Measured(Sums({}))
    poor.held = [*held(range(40), 1.0)]
    found = estimate_diversity([runs[0], poor])[1][1]["vendi"]
    assert found.high < 0
    assert estimate_diversity([Measured(Sums({}))])[0][0]["vendi"].value is None


def said(rng, queries, width: float) -> list[Grams]:
    """Give words of sessions, some common and some rare, as 1-grams of queries."""
    ids, where = [], []
    for query in queries:
        words = rng.zipf(1.3 + width, rng.integers(30, 60)) % 5_000
        ids += [hash_of(str(word)) >> 1 for word in words]
        where += [query] * len(words)
    return [Grams(np.array(ids, np.int64), np.array(where, np.int64))]


@pytest.mark.parametrize("shared", [0, 60])
def test_distinct_words_of_equal_runs_differ_one_time_in_twenty(shared):
    rng, wrong, n = np.random.default_rng(5), 0, 200
    for _ in range(n):
        runs = [Measured(Sums({})) for _ in range(2)]
        for run, first in zip(runs, (0, 60 - shared), strict=True):
            run.grams = said(rng, range(first, first + 60), 0.0)
        found = estimate_diversity(runs)[1][1]["distinct_1"]
        wrong += not found.low <= 0 <= found.high
    assert wrong <= 0.11 * n
    poor = Measured(Sums({}))
    poor.grams = said(rng, range(60), 1.0)
    found = estimate_diversity([runs[0], poor])[1][1]["distinct_1"]
    assert found.high < 0
