"""Agreement: published examples, coefficients by hand, and what is missing or the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats import inter_rater

from augesc_builder.human_evaluation.agreement import (
    MEASURES,
    agreement,
    fleiss_kappa,
    krippendorff_alpha,
    weighted_kappa,
    within_one,
)
from augesc_builder.metrics.intervals import Estimate

_ = None
KRIPPENDORFF = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3),
    (_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _),
)
"""Four observers and twelve units (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability", part C)."""

UNITS = [[v for v in unit if v is not None] for unit in zip(*KRIPPENDORFF, strict=True)]

FLEISS = (
    *((0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1)),
    *((7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7)),
)
"""Fourteen raters put ten subjects into five categories: an example that textbooks share."""


def test_alpha_is_as_krippendorff_printed_it():
    assert krippendorff_alpha(UNITS, "nominal") == pytest.approx(0.743, abs=0.0005)
    assert krippendorff_alpha(UNITS, "ordinal") == pytest.approx(0.815, abs=0.0005)


def test_kappa_is_as_the_textbook_has_it():
    items = [[k for k, n in enumerate(row) for _ in range(n)] for row in FLEISS]
    assert fleiss_kappa(items) == pytest.approx(0.210, abs=0.0005)


def test_coefficients_by_hand():
    """Two people, four items: (0 0), (0 1), (1 1), (2 0).

    Coincidences: 00 twice, 01 once each way, 11 twice, 02 once each way; 8 values: 0 four times,
    1 three times, 2 once. Seen disagreement: 4 of 8. By chance, values put back: 1 - (16 + 9 + 1) /
    64 = 38/64; not put back: 38/56. Squares: seen 1 + 1 + 4 + 4 = 10 of 8; by chance 2 (4*3*1 +
    4*1*4 + 3*1*1) / 64 = 62/64. Ranks of 0, 1, 2: 2, 5.5, 7.5; squares seen 2 (12.25 + 30.25) = 85;
    by chance 2 (12 * 12.25 + 4 * 30.25 + 3 * 4) / 7 = 560/7.
    """
    items = [[0, 0], [0, 1], [1, 1], [2, 0]]
    assert within_one(items) == 0.75
    assert fleiss_kappa(items) == pytest.approx(1 - (4 / 8) / (38 / 64))
    assert krippendorff_alpha(items, "nominal") == pytest.approx(1 - (4 / 8) / (38 / 56))
    assert weighted_kappa(items) == pytest.approx(1 - (10 / 8) / (62 / 64))
    assert krippendorff_alpha(items, "ordinal") == pytest.approx(1 - 85 / (560 / 7))


RATINGS = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=12)


@given(RATINGS)
def test_kappa_is_that_of_statsmodels_where_nothing_is_missing(items):
    if len({value for item in items for value in item}) == 1:
        assert math.isnan(fleiss_kappa(items))
        return
    counts = np.array([np.bincount(item, minlength=4) for item in items])
    assert fleiss_kappa(items) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)


@given(RATINGS)
def test_the_weighted_kappa_of_two_values_is_the_plain_one(items):
    two = [[min(value, 1) for value in item] for item in items]
    assert weighted_kappa(two) == pytest.approx(fleiss_kappa(two), abs=1e-9, nan_ok=True)


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=10), st.permutations(range(4)))
def test_order_counts_for_nothing_and_names_of_values_not_for_the_nominal(items, names):
    turned = [list(reversed(item)) for item in reversed(items)]
    for scale in ("nominal", "ordinal"):
        assert krippendorff_alpha(turned, scale) == pytest.approx(
            krippendorff_alpha(items, scale), abs=1e-9, nan_ok=True
        )
    renamed = [[names[value] for value in item] for item in items]
    assert krippendorff_alpha(renamed, "nominal") == pytest.approx(
        krippendorff_alpha(items, "nominal"), abs=1e-9, nan_ok=True
    )


@given(RATINGS)
def test_ratings_of_one_person_alone_change_nothing(items):
    more = [*items, [3], [], [0]]
    for scale in ("nominal", "ordinal"):
        assert krippendorff_alpha(more, scale) == pytest.approx(
            krippendorff_alpha(items, scale), nan_ok=True
        )
    assert within_one(more) == within_one(items)


def test_where_all_agree_it_is_one_and_where_all_is_the_same_there_is_none():
    items = [[0, 0, 0], [3, 3, 3], [1, 1]]
    assert krippendorff_alpha(items, "ordinal") == fleiss_kappa(items) == weighted_kappa(items) == 1
    assert math.isnan(krippendorff_alpha([[2, 2], [2, 2]], "ordinal"))
    assert within_one([[2, 2], [2, 2]]) == 1
    assert math.isnan(within_one([]))


@pytest.mark.parametrize(("item", "counts"), [([0, 1, 1], 1), ([0, 1, 2], 0), ([3, 3], 1)])
def test_within_one_looks_at_the_farthest_two(item, counts):
    assert within_one([item]) == counts


def test_all_measures_with_intervals_are_those_of_the_functions():
    rng = np.random.default_rng(1)
    quality = rng.integers(0, 3, 60)
    items = [[int(q + rng.integers(0, 2)) for _ in range(rng.integers(1, 4))] for q in quality]
    found = agreement([[item] for item in items], 400, 1)
    by_hand = {
        "within_one": within_one(items),
        "fleiss_kappa": fleiss_kappa(items),
        "weighted_kappa": weighted_kappa(items),
        "alpha_ordinal": krippendorff_alpha(items, "ordinal"),
        "alpha_nominal": krippendorff_alpha(items, "nominal"),
    }
    assert found.keys() == MEASURES.keys()
    for name, value in by_hand.items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low <= value <= found[name].high
    together = agreement([items], 400, 1)  # one session: nothing is known of others
    assert {name: e.value for name, e in together.items()} == pytest.approx(by_hand)
    assert {e.low for e in together.values()} == {None}


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)

    def study(n):
        quality = rng.normal(0, 1, (n, 1))
        return (
            np.clip(np.rint(1.5 + quality + rng.normal(0, 0.8, (n, 3))), 0, 3).astype(int).tolist()
        )

    truth = krippendorff_alpha(study(200_000), "ordinal")
    held = 0
    for i in range(200):
        found = agreement([[item] for item in study(60)], 200, i)["alpha_ordinal"]
        held += found.low <= truth <= found.high
    assert 176 <= held <= 199


@pytest.mark.parametrize("sessions", [[], [[]], [[[1]], [[2], []]]])
def test_nothing_shared_says_nothing(sessions):
    assert set(agreement(sessions, 100, 1).values()) == {Estimate(None)}
