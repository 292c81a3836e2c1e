"""``augesc study report`` from end to end: studies that were answered, in part, or not at all."""

from __future__ import annotations

import json
import random
import sys

import pytest

from augesc_builder.human_evaluation import figures, pairwise
from augesc_builder.human_evaluation.form import load_form
from augesc_builder.human_evaluation.report import columns_of
from augesc_builder.human_evaluation.store import IMPORT, JUDGE, Store
from augesc_builder.human_evaluation.study import Study

SETS = {"ESConv": 3, "Blender (ED)": 1, "50% |<b>": 2}
"""The sets of a study, and the option-wise score that people tend to give to each."""


def corpus(path, name, sessions):
    rows = [
        [
            {"role": "user", "content": f"I feel low, {name} {i}."},
            {"role": "assistant", "content": "I am sorry to hear that. What happened?"},
        ]
        for i in range(sessions)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


@pytest.fixture
def study(augesc, tmp_path):
    """Make a quality study of three sets, four sessions each, rated by three people."""
    places = [f"{name}={corpus(tmp_path / f'{i}.jsonl', name, 6)}" for i, name in enumerate(SETS)]
    out = tmp_path / "study"
    options = ("--sessions", 4, "--ratings", 3, "--per-person", 12)
    code, _, err = augesc("study", "create", *places, "--out", out, *options)
    assert code == 0, err
    return Study.open(out)


def answer(study, annotator, via=IMPORT, items=None, seed=1):
    """Let somebody answer items, by the set they are from."""
    dice = random.Random(f"{seed}/{annotator}")
    with Store.open(study) as store:
        store.arrive(annotator, via)
        for name in items if items is not None else study.items:
            given = {}
            for question in study.form.questions:
                score = min(3, max(0, SETS[study.items[name].set] + dice.choice((-1, 0, 0, 1))))
                given[question.name] = 4 - score
            assert store.answer(annotator, name, given)


def test_a_study_is_reported_as_tables_figures_and_numbers(augesc, study, tmp_path):
    for annotator in ("p1", "p2", "p3"):
        answer(study, annotator)
    answer(study, "a|judge", JUDGE)
    out = tmp_path / "report"
    options = ("--paper", "--reference", "ESConv", "--resamples", 100)
    code, said, err = augesc("study", "report", study.folder, "--out", out, *options)
    assert code == 0, err
    found = json.loads((out / "report.json").read_text())
    assert list(found["sets"]) == list(SETS)
    assert found["sets"]["ESConv"] == {"sessions": 4, "ratings": 12}
    assert found["best"]["empathy"] == "ESConv"
    assert found["judges"]["a|judge"]["beside_people"]["logic"]["shared"] == 12
    text = (out / "report.md").read_text()
    assert text.strip() in said
    assert "36 of 36 sessions rated" in text
    assert "| paper: ESConv" in text
    assert "uncalibrated" in text
    assert "<b>" not in text
    latex = (out / "report.tex").read_text()
    assert r"50\% " in latex
    assert r"\\%" not in latex
    assert {path.name for path in (out / "figures").iterdir()} == {"ratings.png", "ratings.svg"}
    code, said, _ = augesc("study", "report", study.folder, "--out", out, *options)
    assert code == 0
    assert "nothing to do" in said
    code, said, _ = augesc("status", out)
    assert (code, "Complete." in said) == (0, True)


def test_without_a_folder_it_is_printed_alone(augesc, study, tmp_path):
    before = sorted(tmp_path.rglob("*.json"))
    code, said, err = augesc("study", "report", study.folder, "--resamples", 100)
    assert code == 0, err
    assert "0 of 36 sessions rated" in said
    assert "ESConv: 0 sessions, 0 ratings" in said
    assert sorted(tmp_path.rglob("*.json")) == before


def test_a_half_done_study_says_how_far_it_is_and_another_answer_is_another_report(
    augesc, refused, study, tmp_path
):
    answer(study, "p1", items=list(study.items)[:5])
    out = tmp_path / "report"
    call = ("study", "report", study.folder, "--out", out, "--resamples", 100)
    code, said, err = augesc(*call)
    assert code == 0, err
    assert "5 of 36 sessions rated" in said
    assert "by 1 person." in said
    answer(study, "p2")
    assert "answers" in refused(*call)


def test_a_corpus_that_changed_is_named(augesc, study, tmp_path):
    corpus(tmp_path / "0.jsonl", "changed", 6)
    code, said, err = augesc("study", "report", study.folder, "--resamples", 100)
    assert code == 0, err
    assert "ESConv" in said.split("##")[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--test", "anova"), "student, welch, mann-whitney, paired"),
        (("--unit", "word"), "session, rating"),
        (("--reference", "nope"), "no set 'nope' in this study; there are ESConv, Blender (ED), "),
    ],
)
def test_what_cannot_be_reported_is_one_line(refused, study, options, says):
    assert says in refused("study", "report", study.folder, *options)


def test_without_scipy_it_is_said_what_to_install(refused, study, monkeypatch):
    answer(study, "p1")
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "pip install -e '.[app]' in the clone of augesc" in refused(
        "study", "report", study.folder
    )


def test_the_settings_are_those_that_were_given(augesc, study, tmp_path):
    for annotator in ("p1", "p2", "p3"):
        answer(study, annotator)
    options = {"test": "paired", "unit": "rating", "level": 0.05, "hasty": 7, "seed": 3}
    call = [part for key, value in options.items() for part in (f"--{key}", value)]
    out = tmp_path / "report"
    code, said, err = augesc(
        *("study", "report", study.folder, "--holm", "--out", out, "--resamples", 100, *call)
    )
    assert code == 0, err
    assert options.items() <= json.loads((out / "report.json").read_text())["settings"].items()
    assert "a paired t-test" in said
    assert "Holm's" in said


@pytest.fixture
def talks(augesc, tmp_path):
    """Make an interactive study of two systems."""
    out = tmp_path / "talks"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    systems = [f"--system={name}={tmp_path / name}" for name in ("one", "two")]
    options = ("--config", "interactive", "--set", "interactive.pairs=6")
    code, _, err = augesc("study", "create", "--out", out, *options, *systems)
    assert code == 0, err
    return Study.open(out)


def test_an_interactive_study_is_reported(augesc, refused, talks, tmp_path):
    with Store.open(talks) as store:
        for i, (name, item) in enumerate(talks.items.items()):
            store.arrive(f"p{i}", IMPORT)
            option = 3 if i == 0 else 1 if item.left == "one" else 2
            store.answer(f"p{i}", name, {q.name: option for q in talks.form.questions})
    out = tmp_path / "report"
    code, said, err = augesc("study", "report", talks.folder, "--out", out, "--paper")
    assert code == 0, err
    found = json.loads((out / "report.json").read_text())
    overall = found["comparisons"][0]["outcomes"]["overall"]
    assert (overall["wins"], overall["ties"], overall["losses"]) == (5, 1, 0)
    assert "83% (5)" in said
    assert "6 of 6 pairs of conversations" in said
    assert "The paper's preferences" in said
    assert (out / "figures" / "preferences.svg").exists()
    call = ("study", "report", talks.folder)
    assert "test: of quality studies alone" in refused(*call, "--test", "welch")
    assert "no system" in refused(*call, "--reference", "x")


@pytest.mark.parametrize("names", [[], ["a", "b"], ["_a<b>", "\u202e$x$", "c" * 90]])
def test_figures_are_drawn_of_nothing_and_of_any_names(names, tmp_path):
    figures.draw_pairwise(pairwise.measure([], {"overall": "Overall"}, names), tmp_path)
    drawn = len(list(tmp_path.glob("*.png")))
    assert drawn == (1 if len(names) == 2 else 0)


def test_the_form_says_which_columns_are_better_lower_and_which_are_not_tested():
    paper = {column.name: column for column in columns_of(load_form("paper"))}
    assert {name for name, c in paper.items() if c.less_is_better} == {"ethical_risk"}
    assert {name for name, c in paper.items() if not c.is_tested} == {"ethical_risk"}
    behaviours = columns_of(load_form("behaviours"))
    assert all(column.less_is_better and column.is_tested for column in behaviours)
