"""Pairs that clash and pairs that look like them, and a classifier that is trained on a few."""

from __future__ import annotations

import random

import pytest

from augesc_builder.errors import CheckpointError
from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.models.pair_classifier import PairClassifier
from benchmarks import contradictions
from benchmarks.contradiction_pairs import (
    CLASH,
    PEACE,
    SHARES,
    Example,
    copied,
    halves,
    make_part,
    turned,
)
from benchmarks.contradiction_training import Plan, train
from tests.metrics.consistency.said import by_seeker

DECODE = [
    Example(f"I have {n} {thing}. We live near the {place}.", f"I never had any {thing}.", "decode")
    for n in range(2, 9)
    for thing in ("dogs", "cats", "cars", "boats")
    for place in ("river", "school", "market")
]


def test_half_of_the_pairs_clash():
    assert sum(SHARES.values()) == 100
    kinds = {kind: Example("", "", kind).label for kind in SHARES}
    clashing = {kind for kind, label in kinds.items() if label == CLASH}
    assert clashing == {"decode", "turned copy"}
    assert 40 < sum(SHARES[kind] for kind in clashing) < 60
    assert set(kinds.values()) == {CLASH, PEACE}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I was in the house.", "not never"),
        ("He saw my mother, Anna.", "never father she robert"),
        ("We have 3 boats.", "don't 5 4 7 2"),
    ],
)
def test_what_is_turned_differs_in_a_word_that_matters(text, words):
    for seed in range(20):
        found = turned(text, random.Random(seed), ["Robert"])
        assert found != text
        assert set(words.split()) & set(found.lower().strip(".").replace(",", "").split()), found


def test_a_question_is_not_turned():
    assert turned("Do you have 3 boats?", random.Random(1), ["Robert"]) is None


def test_a_copy_keeps_numbers_and_denials():
    text = "I never had 3 boats. We live near the river."
    for seed in range(50):
        found = copied(text, random.Random(seed)).lower()
        assert ("never" in found) == ("3" in found)


def test_halves_are_of_one_utterance():
    found = list(halves(DECODE, random.Random(1), 40))
    assert found
    whole = {pair.first for pair in DECODE}
    assert all(f"{pair.first} {pair.second}" in whole for pair in found)


def test_pairs_are_the_same_for_a_seed():
    sessions = [Example("I lost my job at the market.", "The market gave me a job.", "session")]
    part = make_part(100, DECODE, sessions, "part")
    assert part == make_part(100, DECODE, sessions, "part") != make_part(100, DECODE, [], "other")
    assert {pair.kind for pair in part} >= {"decode", "turned copy", "halves", "session", "copy"}


@pytest.mark.slow
def test_what_is_trained_is_a_classifier_of_pairs(tmp_path):
    _, _, start = contradictions.stand_ins(tmp_path)
    pairs = make_part(160, DECODE, [], "part")
    out = tmp_path / "classifier"
    trained = train(start, pairs, pairs[:20], out, Plan(5, trainable_layers=1))
    assert trained.pairs == len(pairs)
    measure = Consistency(PairClassifier(str(out)))
    scored = measure.score([by_seeker("I have 3 boats at the river.", "I never had boats.")])[0]
    assert 0 < scored.session["contradiction"] < 1
    none = train(start, pairs, pairs[:20], tmp_path / "none", Plan(1e-9, trainable_layers=1))
    assert none.pairs == 0


def test_layers_that_are_not_there_are_refused(tmp_path):
    _, _, start = contradictions.stand_ins(tmp_path)
    with pytest.raises(CheckpointError, match="has no 9 layers to keep"):
        train(start, DECODE, DECODE, tmp_path / "out", Plan(1, layers=9))
