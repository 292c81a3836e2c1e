"""Intervals: they hold the truth as often as they say, whatever is drawn at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics import intervals
from augesc_builder.metrics.intervals import bootstrap, distinct, number_grams

MEAN = {"mean": lambda sums: sums[:, 0] / sums[:, 1]}


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for i in range(200):
        sizes = rng.integers(1, 9, 60)
        shift = rng.normal(0, 1, 60)  # what is said in one session is alike
        sums = np.array([[rng.normal(s, 1, n).sum(), n] for s, n in zip(shift, sizes, strict=True)])
        found = bootstrap(sums, MEAN, 200, i)["mean"]
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 199


SUMS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=2, max_size=12)


@given(SUMS, st.integers(0, 99))
def test_what_is_drawn_at_a_time_changes_nothing(sums, seed):
    given = np.array(sums, float)
    whole = bootstrap(given, MEAN, 40, seed)["mean"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_AT_ONCE", 7 * len(sums))
        in_parts = bootstrap(given, MEAN, 40, seed)["mean"]
    assert in_parts == whole
    assert whole.value == pytest.approx(given[:, 0].sum() / given[:, 1].sum())
    ratios = given[:, 0] / given[:, 1]
    assert min(ratios) - 1e-9 <= whole.low <= whole.high <= max(ratios) + 1e-9


def test_equal_sessions_leave_no_doubt_and_one_session_tells_nothing():
    assert bootstrap(np.array([[2.0, 4.0]] * 5), MEAN, 50, 1)["mean"] == intervals.Estimate(
        0.5, 0.5, 0.5
    )
    assert bootstrap(np.array([[2.0, 4.0]]), MEAN, 50, 1)["mean"] == intervals.Estimate(0.5)
    with np.errstate(invalid="ignore"):
        assert bootstrap(np.zeros((3, 2)), MEAN, 50, 1)["mean"] == intervals.Estimate(None)


WORDS = st.lists(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=5), min_size=1, max_size=3),
    min_size=2,
    max_size=5,
)


@given(WORDS, st.integers(1, 3))
def test_distinct_and_its_jackknife_are_those_of_the_definition(sessions, n):
    def share(some):
        grams = [tuple(r[i : i + n]) for s in some for r in s for i in range(len(r) - n + 1)]
        return (len(set(grams)) / len(grams)) if grams else None

    found = distinct(number_grams(sessions, n, {}), len(sessions))
    assert found.value == pytest.approx(share(sessions)) if found.value else not share(sessions)
    left = [share(sessions[:i] + sessions[i + 1 :]) for i in range(len(sessions))]
    if None in left or found.value is None:
        assert found.low is None
        return
    k = len(sessions)
    error = math.sqrt((k - 1) / k * sum((x - sum(left) / k) ** 2 for x in left))
    assert found.high == pytest.approx(min(1, found.value + 1.959964 * error))
    assert found.low == pytest.approx(max(0, found.value - 1.959964 * error))
