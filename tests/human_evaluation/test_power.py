"""What a study can show: powers that are known, and what is said of them."""

from __future__ import annotations

import math
import re

import pytest
from statsmodels.stats.power import TTestIndPower

from augesc_builder.human_evaluation.power import (
    Spread,
    pairwise_power,
    quality_power,
    sign_test_power,
    smallest_effect,
    t_test_power,
)


def test_of_two_thirds_52_decided_pairs_are_few_and_100_are_enough():
    assert sign_test_power(52) == pytest.approx(0.64, abs=0.005)
    assert sign_test_power(100) == pytest.approx(0.90, abs=0.005)


def test_the_sign_test_finds_nothing_in_five_pairs_and_keeps_its_level():
    assert sign_test_power(5, 1.0) == 0
    assert sign_test_power(6, 1.0) == 1
    assert sign_test_power(6, 1.0, level=2 / 64) == 0  # p is 2/64, and not below it
    assert sign_test_power(0) == 0
    for n in (6, 20, 52, 100):
        assert sign_test_power(n, 0.5) < 0.05


@pytest.mark.parametrize("effect", [0, 0.2, 0.5, 1])
@pytest.mark.parametrize("sessions", [2, 10, 60])
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_the_power_of_the_t_test_is_that_of_statsmodels(effect, sessions, level):
    wanted = TTestIndPower().power(effect, sessions, level)
    assert t_test_power(effect, sessions, level) == pytest.approx(wanted, abs=1e-6)


def test_the_smallest_effect_is_found_with_the_power_that_was_wanted():
    effect = smallest_effect(60, 0.01, 0.8)
    assert t_test_power(effect, 60, 0.01) == pytest.approx(0.8, abs=1e-4)
    assert t_test_power(0.99 * effect, 60, 0.01) < 0.8
    assert smallest_effect(1) == math.inf


def test_more_ratings_spread_means_less_as_far_as_people_disagree():
    assert Spread(1, 1).of_means(9) == pytest.approx(1)
    assert Spread(1, 0).of_means(9) == pytest.approx(1 / 3)
    assert Spread(2, 0.5).of_means(1) == pytest.approx(2)


def test_what_a_quality_study_can_show_is_said_with_what_it_rests_on():
    said = quality_power(60, 3)
    powers = [float(p) for p in re.findall(r"(0\.\d\d|1\.00) for 0\.\d", said)]
    unit = Spread().of_means(3)
    assert powers == pytest.approx(
        [t_test_power(d / unit, 60) for d in (0.2, 0.3, 0.4, 0.5)], abs=0.005
    )
    assert f"80% of such studies find {smallest_effect(60) * unit:.2f} points" in said
    assert "0.8 points" in said
    assert "it finds nothing" in quality_power(1, 3)


def test_what_an_interactive_study_can_show_is_said_with_ties_and_without():
    said = pairwise_power(60)
    for n in (60, 51, 42):
        assert f"{sign_test_power(n):.2f} with {n}" in said
