"""Strategies of supporters: labels of turns, counts by progress, and distances from ESConv's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import CheckpointError
from augesc_builder.metrics.support_strategies import support_strategies
from augesc_builder.metrics.support_strategies.counts import (
    ESCONV,
    PARTS,
    StrategyCounts,
    strategies_table,
)
from augesc_builder.metrics.support_strategies.measure import SupportStrategies
from augesc_builder.models.sequence_classifier import SequenceClassifier
from augesc_builder.text.strategies import STRATEGIES, as_texts
from tests import classifiers
from tests.conftest import shared

SESSIONS = st.lists(st.lists(st.none() | st.sampled_from(STRATEGIES), max_size=15), max_size=8)


def said(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    labels = [strategy.upper() for strategy in sorted(STRATEGIES)]
    return classifiers.classifier(tmp_path_factory.mktemp("strategies") / "m", labels)


@pytest.fixture(scope="module")
def strategies(model):
    return SupportStrategies(str(model), batch_size=3)


TALK = [
    said("i lost my job", "how come?", "they closed", "that is hard", "yes", "try to rest"),
    said("hello"),
    said("", ""),
    [],
    said(*["words and more words"] * 500),
    said("je suis triste", "cela doit \u00eatre dur"),
]


def test_a_turn_has_the_likeliest_strategy_of_what_the_classifier_reads(model, strategies):
    classifier = SequenceClassifier(str(model))
    for session, found in zip(TALK, strategies.score(TALK), strict=True):
        assert len(found.scores) == len(found.labels) == len(session)
        for turn, message in enumerate(session[:20]):
            if message["role"] == "user":
                assert found.labels[turn] is found.scores[turn] is None
                continue
            texts = as_texts(session[max(0, turn - 3) : turn], message["content"])
            (numbers,) = classifier.probabilities([texts])
            assert found.labels[turn].upper() == classifier.labels[numbers.argmax()]
            assert found.labels[turn] in STRATEGIES
            assert found.scores[turn] == pytest.approx(numbers.max(), abs=1e-5)


def test_sessions_are_scored_together_as_alone(strategies):
    together = strategies.score(TALK)
    for session, found in zip(TALK, together, strict=True):
        (alone,) = strategies.score([session])
        assert alone.labels == found.labels
        assert alone.session == found.session
    assert len({label for found in together for label in found.labels}) > 2  # it does tell apart


def test_the_numbers_of_a_session_are_shares_of_its_turns(strategies):
    talk, alone = strategies.score(TALK[:2])
    shares = {name: n for name, n in talk.session.items() if name != "strategies"}
    assert set(shares) == {"asks", "reflects", "comforts", "suggests", "informs", "other"}
    assert sum(shares.values()) == pytest.approx(1)
    assert talk.session["strategies"] == len({label for label in talk.labels if label})
    assert {n for name, n in alone.session.items() if name != "strategies"} == {None}
    assert alone.session["strategies"] == 0


def test_settings_name_the_model_and_what_it_reads(model, strategies):
    assert strategies.settings() == {"model": str(model), "revision": None, "history_turns": 3}
    config = json.loads((model / "config.json").read_text())
    assert "history_turns" not in config  # three is what is read where the config does not say


def test_a_config_says_how_many_utterances_are_read(tmp_path):
    folder = classifiers.classifier(tmp_path / "m", STRATEGIES)
    config = json.loads((folder / "config.json").read_text())
    for value, read in ((1, 1), (None, None), ("x", 3), (-1, 3), (True, 3)):
        (folder / "config.json").write_text(json.dumps({**config, "history_turns": value}))
        assert SupportStrategies(str(folder)).settings()["history_turns"] == read


def test_other_labels_are_refused(tmp_path):
    folder = classifiers.classifier(tmp_path / "m", ["positive", "negative"])
    with pytest.raises(CheckpointError, match="its labels are positive, negative; expected ESConv"):
        SupportStrategies(str(folder))
    with pytest.raises(CheckpointError, match="no such folder"):
        SupportStrategies(str(tmp_path / "none" / "at" / "all"))


# -- corpora --------------------------------------------------------------------------------------


def counted(sessions):
    counts = StrategyCounts()
    for labels in sessions:
        counts.add(labels)
    return counts


@given(SESSIONS, st.integers(0, 8))
def test_counts_are_those_of_plain_loops_in_any_pieces(sessions, cut):
    whole = counted(sessions)
    pieces = counted(sessions[cut:])
    pieces.merge(counted(sessions[:cut]))
    found = whole.statistics()
    assert pieces.statistics() == found
    told = [label for labels in sessions for label in labels if label]
    assert found["supporter_turns"] == len(told)
    for part in range(PARTS):
        here = [
            label
            for labels in sessions
            for i, label in enumerate(labels)
            if label and part / PARTS <= i / len(labels) < (part + 1) / PARTS
        ]
        for strategy, share in found["by_progress"][part].items():
            assert share == (pytest.approx(here.count(strategy) / len(here)) if here else None)
    for distance in (found["distance"], *found["distance_by_progress"]):
        assert distance is None or 0 <= distance <= 1


def test_distances_are_of_total_variation():
    counts = counted([["Question"] * 6])
    found = counts.statistics()
    of_questions = ESCONV[:, 0] / ESCONV.sum(1)
    assert found["distance_by_progress"] == pytest.approx(list(1 - of_questions))
    assert found["distance"] == pytest.approx(1 - ESCONV[:, 0].sum() / ESCONV.sum())
    assert found["mean_distance_by_progress"] == pytest.approx(float((1 - of_questions).mean()))
    assert found["groups"] == {
        **dict.fromkeys(("reflects", "comforts", "suggests", "informs", "other"), 0),
        "asks": 1,
    }
    as_esconv = StrategyCounts()
    as_esconv.turns = ESCONV.copy()
    assert as_esconv.statistics()["distance"] == pytest.approx(0)


def test_esconvs_own_numbers_are_those_of_its_files():
    turns = np.zeros_like(ESCONV)
    for line in shared("esconv/train.txt").read_text().splitlines():
        dialog = json.loads(line)["dialog"]
        for i, utterance in enumerate(dialog):
            if strategy := utterance.get("strategy"):
                turns[6 * i // len(dialog), STRATEGIES.index(strategy)] += 1
    assert (turns == ESCONV).all()


def test_the_table_sets_each_strategy_beside_esconvs():
    header, rows = strategies_table(counted([["Question"] * 6]).statistics())
    assert len(header) == 2 + PARTS
    assert [row[0] for row in rows] == [*STRATEGIES, "distance (0 to 1)"]
    assert rows[0][1] == "100 / 21"
    assert strategies_table(StrategyCounts().statistics())[1][0][1] == "- / 21"


def test_the_measurement_counts_what_the_measure_says(model, strategies):
    measurement = support_strategies.SupportStrategies()
    found = measurement.compute(messages=TALK, model=str(model))
    expected = counted([scored.labels for scored in strategies.score(TALK)]).statistics()
    assert found == expected
    assert found["sessions"] == len(TALK)
