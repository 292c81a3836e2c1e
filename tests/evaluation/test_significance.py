"""Tests of significance: against their definitions, the paper, and simulated studies."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from augesc_builder.evaluation.significance import (
    TWO_SAMPLES,
    holm,
    sign_test,
    two_samples,
    within_blocks_test,
)
from augesc_builder.human_evaluation.power import Spread, sign_test_power, t_test_power
from augesc_builder.paper import TABLE_4, TABLE_4_PAIRS

STUDIES = 2_000


def rounded(x):
    """Give ratings as a form has them: whole points from 0 to 3."""
    return np.clip(np.rint(x), 0, 3)


def studies(rng, effect=0.0, sessions=60, raters=3, people=40, alike=0.5, strict=0.4, noise=0.6):
    """Simulate studies of two sets: ratings (2, studies, sessions, raters), and who rated (2, ...).

    Sessions differ by ``alike``, annotators by how ``strict`` they are; every annotator rates about
    as many sessions of one set as of the other.
    """
    given, who = [], []
    severity = rng.normal(0, strict, (STUDIES, people))
    for mean in (1.5, 1.5 + effect):
        slots = np.resize(rng.permutation(people), sessions * raters).reshape(sessions, raters)
        quality = rng.normal(mean, alike, (STUDIES, sessions, 1))
        seen = quality + severity[:, slots] + rng.normal(0, noise, (STUDIES, sessions, raters))
        given.append(rounded(seen))
        who.append(slots)
    return np.array(given), np.array(who)


def p_values(test, given, who, unit="session"):
    """Give the p-value of each simulated study, by the functions that reports call."""
    first, second = given if unit != "session" else given.mean(-1)
    if unit == "rating":
        first, second = (x.reshape(STUDIES, -1) for x in given)
    if test != "paired":
        return two_samples(test, first, second)
    slots = np.concatenate(who)
    shares = np.stack([np.bincount(s, minlength=who.max() + 1) for s in slots]) / slots.shape[1]
    is_second = np.repeat([False, True], first.shape[1])
    return within_blocks_test(np.concatenate([first, second], 1), is_second, shares)


def bounds(rate):
    """Give the counts of hits in :data:`STUDIES` that leave one in ten thousand on each side."""
    return stats.binom.ppf([1e-4, 1 - 1e-4], STUDIES, rate)


@pytest.mark.parametrize("level", [0.01, 0.05])
@pytest.mark.parametrize("test", [*TWO_SAMPLES, "paired"])
def test_what_is_not_there_is_found_as_often_as_the_level_says(test, level):
    given, who = studies(np.random.default_rng(1))
    hits = np.count_nonzero(p_values(test, given, who) < level)
    low, high = bounds(level)
    if test == "paired":
        assert low <= hits <= high
    else:  # how strict people are spreads sessions more than sets: these tests are careful
        assert hits <= high


@pytest.mark.parametrize("test", [*TWO_SAMPLES, "paired"])
def test_where_annotators_are_alike_every_test_keeps_its_level_on_both_sides(test):
    given, who = studies(np.random.default_rng(2), strict=0)
    low, high = bounds(0.05)
    assert low <= np.count_nonzero(p_values(test, given, who) < 0.05) <= high


def test_of_five_equal_sets_one_is_worse_than_the_best_as_seldom_as_holm_promises():
    """The best is found in the same ratings: without a correction for all pairs it is too often."""
    rng = np.random.default_rng(11)
    sets = [rounded(rng.normal(1.5, 0.8, (STUDIES, 60, 3))).mean(-1) for _ in range(5)]
    pairs = [two_samples("student", a, b) for a, b in combinations(sets, 2)]
    smallest = np.min(pairs, axis=0)
    corrected = [min(holm(list(p))) for p in np.transpose(pairs)]
    assert np.count_nonzero(smallest < 0.05) > 2 * bounds(0.05)[1]
    assert np.count_nonzero(np.array(corrected) < 0.05) <= bounds(0.05)[1]


def test_single_ratings_find_what_is_not_there():
    given, who = studies(np.random.default_rng(3), strict=0)
    assert np.count_nonzero(p_values("student", given, who, "rating") < 0.01) > 2 * bounds(0.01)[1]


def test_freed_from_annotators_more_is_found():
    given, who = studies(np.random.default_rng(4), effect=0.3, strict=0.8)
    plain, freed = (np.mean(p_values(t, given, who) < 0.01) for t in ("student", "paired"))
    assert freed > 1.5 * plain


def test_the_power_is_what_was_promised():
    rng = np.random.default_rng(5)
    spread = Spread(rating=0.8, correlation=0.4)
    between = spread.rating * spread.correlation**0.5
    within = spread.rating * (1 - spread.correlation) ** 0.5
    for effect in (0.2, 0.35):
        sets = [
            rng.normal(mean, between, (STUDIES, 60, 1)) + rng.normal(0, within, (STUDIES, 60, 3))
            for mean in (0, effect)
        ]
        found = two_samples("student", *(x.mean(-1) for x in sets)) < 0.01
        low, high = bounds(t_test_power(effect / spread.of_means(3), 60, 0.01))
        assert low <= np.count_nonzero(found) <= high


def test_the_power_holds_for_whole_points_too():
    given, who = studies(np.random.default_rng(6), effect=0.3, strict=0)
    means = given.mean(-1)
    apart = (means[1] - means[0]).mean() / np.sqrt(means.var(-1, ddof=1).mean())
    low, high = bounds(t_test_power(apart, 60, 0.01))
    assert low <= np.count_nonzero(p_values("student", given, who) < 0.01) <= high


def test_the_power_of_the_sign_test_is_that_of_its_studies():
    rng = np.random.default_rng(7)
    is_found = np.array([sign_test(n, 52 - n) < 0.05 for n in range(53)])
    found = np.count_nonzero(is_found[rng.binomial(52, 2 / 3, STUDIES)])
    low, high = bounds(sign_test_power(52))
    assert low <= found <= high


def test_the_papers_preferences_are_as_significant_as_it_says():
    said = {
        "fluency": (28, 8, 0.0012),
        "identification": (41, 13, 0.0002),
        "comforting": (33, 13, 0.0045),
        "suggestion": (35, 9, 0.0001),
        "overall": (35, 17, 0.018),
    }
    for question, (wins, losses, p) in said.items():
        shares = [round(100 * n / TABLE_4_PAIRS) for n in (wins, losses)]
        assert tuple(shares) == TABLE_4[question]
        assert sign_test(wins, losses) == pytest.approx(p, abs=0.5 * 10 ** -(4 if p < 0.01 else 3))
        assert sign_test(losses, wins) == sign_test(wins, losses)


@pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 1 / 16), (3, 3, 1)])
def test_the_sign_test_by_hand(wins, losses, p):
    assert sign_test(wins, losses) == pytest.approx(p)


def test_two_samples_by_definition():
    rng = np.random.default_rng(8)
    first, second = rng.integers(0, 4, 20).astype(float), rng.integers(1, 4, 25).astype(float)
    assert two_samples("student", first, second) == pytest.approx(
        stats.ttest_ind(first, second).pvalue
    )
    assert two_samples("welch", first, second) == pytest.approx(
        stats.ttest_ind(first, second, equal_var=False).pvalue
    )
    assert two_samples("mann-whitney", first, second) == pytest.approx(
        stats.mannwhitneyu(first, second).pvalue
    )


def test_one_of_each_sample_in_every_block_is_the_paired_test():
    rng = np.random.default_rng(9)
    block = rng.normal(0, 2, 12)
    first, second = block + rng.normal(0, 1, 12), block + rng.normal(0.5, 1, 12)
    is_second = np.repeat([False, True], 12)
    found = within_blocks_test(
        np.concatenate([first, second]), is_second, np.tile(np.eye(12), (2, 1))
    )
    assert found == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_without_blocks_it_is_students_test():
    rng = np.random.default_rng(10)
    values = rng.normal(0, 1, 30)
    is_second = np.arange(30) < 14
    found = within_blocks_test(values, is_second, np.ones((30, 1)))
    assert found == pytest.approx(stats.ttest_ind(values[~is_second], values[is_second]).pvalue)


@pytest.mark.parametrize("test", TWO_SAMPLES)
def test_samples_that_say_nothing(test):
    same = np.full(4, 7 / 3)
    assert two_samples(test, same, same) == 1
    assert np.isnan(two_samples(test, same[:1], same))
    assert two_samples(test, np.full(40, 1.0), np.full(40, 2.0)) < 1e-6


def test_blocks_that_say_nothing():
    is_second = np.array([False, False, True, True])
    values = np.array([1.0, 2, 2, 3])
    apart = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])  # everybody rated one set alone
    assert np.isnan(within_blocks_test(values, is_second, apart))
    assert np.isnan(within_blocks_test(values[1:3], is_second[1:3], np.ones((2, 1))))
    both = np.tile(np.eye(2), (2, 1))
    assert within_blocks_test(np.array([1.0, 2, 1, 2]), is_second, both) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []
