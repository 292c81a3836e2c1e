"""Classifiers judged: numbers counted by hand, units, tests, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.evaluation.classification import MAJORITY, metrics_of
from augesc_builder.run.progress import Progress
from augesc_builder.training.run import train
from tests import classifiers

LABELS = ("a", "b", "c")


def of_matrix(matrix):
    sums = np.array(matrix, float).reshape(1, -1)
    return {name: metric(sums)[0] for name, metric in metrics_of(LABELS).items()}


def test_accuracy_and_f1_of_a_matrix_counted_by_hand():
    """Rows are right labels, columns what was told."""
    found = of_matrix([[4, 1, 0], [2, 3, 0], [0, 0, 0]])
    assert found["accuracy"] == pytest.approx(70)
    assert found["f1 a"] == pytest.approx(100 * 2 * 4 / (2 * 4 + 2 + 1))
    assert found["f1 b"] == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))
    assert np.isnan(found["f1 c"])  # neither right nor told anywhere
    assert found["macro_f1"] == pytest.approx((found["f1 a"] + found["f1 b"]) / 2)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1))
def test_metrics_are_those_of_precision_and_recall(pairs):
    matrix = [[sum(pair == (a, b) for pair in pairs) for b in LABELS] for a in LABELS]
    found, f1s = of_matrix(matrix), []
    for label in LABELS:
        right = [p for p in pairs if p[0] == label]
        told = [p for p in pairs if p[1] == label]
        if not right and not told:
            continue
        hits = sum(p == (label, label) for p in pairs)
        precision = hits / len(told) if told else 0
        recall = hits / len(right) if right else 0
        f1s.append(2 * precision * recall / (precision + recall) if hits else 0)
        assert found[f"f1 {label}"] == pytest.approx(100 * f1s[-1])
    assert found["macro_f1"] == pytest.approx(100 * sum(f1s) / len(f1s))
    assert found["accuracy"] == pytest.approx(100 * sum(a == b for a, b in pairs) / len(pairs))


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return classifiers.moods(tmp_path_factory.mktemp("moods") / "moods.tsv", n=41)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, moods):
    from augesc_builder.config.training import load_config

    folder = tmp_path_factory.mktemp("evaluated")
    backbone = classifiers.causal_backbone(folder / "backbone")
    config = load_config("strategies", classifiers.small(backbone, moods))
    train(config, folder / "run", Progress(quiet=True))
    return folder / "run"


def evaluated(augesc, out, *arguments):
    code, text, err = augesc("evaluate-model", *arguments, "--out", out, "--resamples", 200)
    assert code == 0, err
    assert (out / "evaluation.md").read_text().strip() == text.strip()
    return json.loads((out / "evaluation.json").read_text()), text


def test_one_is_tested_against_the_majority_class(augesc, trained, moods, tmp_path):
    report, text = evaluated(augesc, tmp_path / "out", trained, "--sessions", moods)
    lines = (tmp_path / "out" / "responses.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    whole = report["groups"]["all"]
    assert report["models"] == [MAJORITY, str(trained)]
    assert report["unit"] == "group of rows"
    assert report["labels"] == {"glad": 21, "sad": 20}
    assert report["majority"]["label"] == "glad"
    assert report["majority"]["accuracy"] == pytest.approx(100 * 21 / 41)
    assert report["majority"]["macro_f1"] == pytest.approx(100 * (2 * 21 / (21 + 41)) / 2)
    right = sum(row["label"] == row["told"][0] for row in rows)
    assert whole["estimates"][1]["accuracy"]["value"] == pytest.approx(100 * right / 41)
    assert whole["estimates"][0]["accuracy"]["value"] == pytest.approx(100 * 21 / 41)
    assert whole["tests"][0]["accuracy"]["difference"] == pytest.approx(100 * (right - 21) / 41)
    assert whole["tests"][0]["accuracy"]["p"] < 0.05
    assert whole["units"] == whole["examples"] == 41
    assert "each a group of rows" in text
    assert "Whoever always says glad" in text
    assert "| f1 sad " in text


def test_two_are_tested_against_each_other(augesc, trained, moods, tmp_path):
    other = classifiers.classifier(tmp_path / "other", ["sad", "glad"])  # in another order
    report, _ = evaluated(
        *(augesc, tmp_path / "out", trained, "--against", other, "--sessions", moods)
    )
    (tests,), estimates = (report["groups"]["all"][key] for key in ("tests", "estimates"))
    assert len(estimates) == 2
    difference = estimates[1]["accuracy"]["value"] - estimates[0]["accuracy"]["value"]
    assert tests["accuracy"]["difference"] == pytest.approx(difference)
    assert difference < -10
    assert tests["accuracy"]["p"] < 0.05
    same, _ = evaluated(
        *(augesc, tmp_path / "same", trained, "--against", trained, "--sessions", moods)
    )
    assert {test["p"] for test in same["groups"]["all"]["tests"][0].values()} == {1}


def test_rows_of_a_group_are_one_unit(augesc, trained, tmp_path):
    path = tmp_path / "x.tsv"
    rows = [f"my dog\twonderful day\tglad\tg{i // 5}" for i in range(10)]
    path.write_text("text\ttext_pair\tlabel\tgroup\n" + "\n".join([*rows, "a\tb\tsad\tg9"]) + "\n")
    report, _ = evaluated(augesc, tmp_path / "out", trained, "--sessions", path)
    assert (report["groups"]["all"]["units"], report["examples"]) == (3, 11)
    limited, _ = evaluated(augesc, tmp_path / "l", trained, "--sessions", path, "--limit", 1)
    assert limited["examples"] in {1, 5}


def test_what_cannot_be_judged_is_refused(trained, moods, tmp_path, refused):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": "angry"}\n')
    said = refused("evaluate-model", trained, "--sessions", path)
    assert "has the label 'angry', which the classifier does not; it has glad, sad" in said
    other = classifiers.classifier(tmp_path / "other", ["x", "y"])
    said = refused("evaluate-model", trained, "--against", other, "--sessions", moods)
    assert "compare classifiers of the same labels" in said
    said = refused("evaluate-model", trained, "--sessions", "sample:test")
    assert "no supporter's turn there has a strategy" in said
    said = refused("evaluate-model", trained, "--sessions", moods, "--out", tmp_path)
    assert "is not empty" in said
