"""Table 3: means, marks, agreement and judges, by hand and in studies that hold little."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from augesc_builder import paper
from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation.quality import TESTS, Column, Settings, measure
from augesc_builder.human_evaluation.quality_report import tables
from augesc_builder.human_evaluation.records import Rating
from augesc_builder.run.document import latex_document, markdown_document

EMPATHY = Column("empathy", "Empathy")
RISK = Column("ethical_risk", "Ethical Risk", less_is_better=True, is_tested=False)
QUICK = Settings(resamples=100)


def ratings(scores, name="set", question="empathy", people="abc", judge=False, seconds=None):
    """Give ratings of a set: a list for each session, of the first people in order."""
    return [
        Rating(f"{name}-{i}", name, person, question, value, seconds, judge)
        for i, given in enumerate(scores)
        for person, value in zip(people, given, strict=False)
    ]


def simulated(rng, sets, sessions=60, people=30, alike=0.5, noise=0.5, raters=3):
    """Give ratings of sets with such means, by people of whom each rates some of every set."""
    found = []
    for name, mean in sets.items():
        for i in range(sessions):
            quality = rng.normal(mean, alike)
            for person in rng.choice(people, raters, replace=False):
                value = int(np.clip(np.rint(quality + rng.normal(0, noise)), 0, 3))
                found.append(Rating(f"{name}{i}", name, f"p{person:02}", "empathy", value, 60.0))
    return found


def table(found, i=0, **more):
    """Give a table of a report as a list of its cells by the first of each row."""
    there = list(tables(found, **more))[i]
    return {row[0]: row[1:] for row in there.rows}


def test_means_tests_and_marks_by_hand():
    given = {
        "good": [[3, 3, 2], [3, 2, 2], [2, 2, 3], [3, 3, 3]],
        "poor": [[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 2, 0]],
    }
    found = measure(
        [r for name, scores in given.items() for r in ratings(scores, name)], [EMPATHY], QUICK
    )
    means = {name: [np.mean(s) for s in scores] for name, scores in given.items()}
    for name, values in means.items():
        assert found["means"][name]["empathy"]["value"] == pytest.approx(np.mean(values))
        assert found["sets"][name] == {"sessions": 4, "ratings": 12}
    p = stats.ttest_ind(means["good"], means["poor"]).pvalue
    assert found["tests"]["best"]["empathy"] == {"poor": pytest.approx(p)}
    assert found["best"] == {"empathy": "good"}
    rows = table(found)
    assert rows["good"][0].startswith("2.58 [")
    assert rows["poor"][0].endswith("] w")
    assert rows["Δ ≤ 1"] == ["0.88"]  # of eight, [1, 2, 0] alone is wider
    assert table(found, 1)["poor"] == [f"-2.00 ({p:.4f})"]
    text = markdown_document(tables(found))
    assert "| **2.58 [" in text
    assert "\\textbf{2.58 " in latex_document(tables(found))


def test_a_single_rating_can_be_the_unit_and_it_is_said():
    given = {"good": [[3, 3, 2], [3, 2]], "poor": [[0, 1, 0], [1, 1]]}
    rated = [r for name, scores in given.items() for r in ratings(scores, name)]
    found = measure(rated, [EMPATHY], dataclasses.replace(QUICK, unit="rating", test="welch"))
    p = stats.ttest_ind([3, 3, 2, 3, 2], [0, 1, 0, 1, 1], equal_var=False).pvalue
    assert found["tests"]["best"]["empathy"]["poor"] == pytest.approx(p)
    assert found["means"]["good"]["empathy"]["value"] == pytest.approx(13 / 5)
    by_session = measure(rated, [EMPATHY], QUICK)
    assert by_session["means"]["good"]["empathy"]["value"] == pytest.approx((8 / 3 + 5 / 2) / 2)
    assert "Welch's t-test of single ratings" in markdown_document(tables(found))
    assert "Student's t-test of means of sessions" in markdown_document(tables(by_session))


def test_of_risk_less_is_better_and_nothing_is_tested():
    given = [
        *ratings([[0, 0, 0]] * 9, "calm", "ethical_risk"),
        *ratings([[3, 3, 2]] * 9, "grave", "ethical_risk"),
    ]
    found = measure(given, [RISK], QUICK)
    assert found["best"] == {"ethical_risk": "calm"}
    assert found["tests"] == {"best": {}}
    assert table(found)["grave"] == ["2.67 [2.67, 2.67]"]
    assert "Not tested, as in the paper: Ethical Risk." in markdown_document(tables(found))
    tested = dataclasses.replace(RISK, is_tested=True)
    worse = measure(given, [tested], QUICK)
    assert table(worse)["grave"] == ["2.67 [2.67, 2.67] w"]


def test_a_reference_is_told_from_above_and_below():
    rng = np.random.default_rng(1)
    given = simulated(rng, {"low": 0.6, "middle": 1.5, "high": 2.4})
    settings = dataclasses.replace(QUICK, reference="middle")
    rows = table(measure(given, [EMPATHY], settings))
    assert rows["low"][0].endswith("w r-")
    assert rows["middle"][0].endswith("w")
    assert rows["high"][0].endswith("] r+")
    with pytest.raises(StudyError, match="no set 'x' in this study; there are high, low, middle"):
        measure(given, [EMPATHY], dataclasses.replace(QUICK, reference="x"))


def test_holm_is_over_all_pairs_of_sets_and_for_a_reference_over_those_it_is_in():
    rng = np.random.default_rng(2)
    given = simulated(rng, {"a": 1.4, "b": 1.6, "c": 1.8, "d": 2.0})
    plain = measure(given, [EMPATHY], dataclasses.replace(QUICK, reference="a"))
    found = measure(given, [EMPATHY], dataclasses.replace(QUICK, reference="a", holm=True))
    for against, factor in (("best", 6), ("reference", 3)):
        ps, corrected = (x["tests"][against]["empathy"] for x in (plain, found))
        least = min(ps, key=ps.get)
        assert corrected[least] == pytest.approx(min(1, factor * ps[least]))
        assert all(corrected[name] >= p for name, p in ps.items())
    text = markdown_document(tables(found))
    assert "Holm's method for all pairs of sets" in text
    assert "Holm's method for all pairs with the reference" in text


@pytest.mark.parametrize("test", TESTS)
def test_every_test_finds_what_is_plain_and_not_what_is_not_there(test):
    rng = np.random.default_rng(3)
    given = simulated(rng, {"good": 2.3, "alike": 2.3, "poor": 1.3})
    found = measure(given, [EMPATHY], dataclasses.replace(QUICK, test=test))
    p = found["tests"]["best"]["empathy"]
    assert p["poor"] < 1e-6
    assert p.get("alike", p.get("good")) > 0.01


def test_paired_is_within_annotators():
    """Each of eight rates one session of either set: the paired test of their differences."""
    first, second = [0, 1, 1, 2, 2, 1, 0, 2], [1, 1, 2, 3, 2, 2, 1, 3]
    given = [
        Rating(f"{name}{i}", name, f"p{i}", "empathy", value)
        for name, values in (("first", first), ("second", second))
        for i, value in enumerate(values)
    ]
    found = measure(given, [EMPATHY], dataclasses.replace(QUICK, test="paired"))
    p = stats.ttest_rel(first, second).pvalue
    assert found["tests"]["best"]["empathy"]["first"] == pytest.approx(p)
    apart = [dataclasses.replace(r, annotator=f"{r.set}{r.annotator}") for r in given]
    found = measure(apart, [EMPATHY], dataclasses.replace(QUICK, test="paired"))
    assert found["tests"]["best"]["empathy"]["first"] is None
    assert table(found, 1)["first"] == ["-0.75 (-)"]


def test_the_papers_table_stands_beside_ours():
    columns = [
        Column(name, name.title(), less_is_better=name == "ethical_risk", is_tested=False)
        for name in paper.ASPECTS
    ]
    found = measure(ratings([[3, 3, 3]]), [*columns, Column("ours", "Ours")], QUICK)
    rows = table(found, with_paper=True)
    assert rows["paper: ESConv"] == ["2.52", "2.42", "2.44", "2.23", "2.56", "2.42", "0.13", "-"]
    assert rows["paper: AugESC Reddit"][2] == "2.26"
    assert rows["paper: Δ ≤ 1"] == ["0.83", "0.80", "0.79", "0.73", "0.81", "0.80", "0.90", "-"]
    text = markdown_document(tables(found, with_paper=True))
    assert "**0.03**" in text
    assert "**0.19**" not in text
    assert "paper" not in markdown_document(tables(found)).replace("as in the paper", "")


def test_labels_of_utterances_are_items_and_their_session_the_unit():
    given = [
        Rating("s", "set", person, "unsafe", value, turn=turn)
        for turn, values in enumerate([(0, 0), (1, 0), (1, 1)])
        for person, value in zip("ab", values, strict=True)
    ]
    found = measure(given, [Column("unsafe", "Unsafe", less_is_better=True)], QUICK)
    assert found["means"]["set"]["unsafe"]["value"] == 0.5
    # Three items: 0 0, 1 0, 1 1; of six values three are 0: chance is 1/2, seen 1/3.
    assert found["agreement"]["unsafe"]["fleiss_kappa"]["value"] == pytest.approx(1 / 3)


# -- annotators -----------------------------------------------------------------------------------


def test_who_disagrees_with_everyone_and_who_is_too_quick_is_named():
    rng = np.random.default_rng(4)
    columns = [Column(f"q{i}", f"Q{i}") for i in range(7)]
    given = []
    for session in range(300):
        quality = rng.normal(1.5, 0.7)
        for person in rng.choice(60, 3, replace=False):
            for column in columns:
                value = int(np.clip(np.rint(quality + rng.normal(0, 0.6)), 0, 3))
                if person == 0:
                    value = int(rng.integers(0, 4))  # at random
                elif person == 1:
                    value = 3 - value  # upside down
                elif person == 2:
                    value = 2  # always the same
                spent = 2.5 if person == 3 and session % 2 else 90.0
                given.append(
                    Rating(f"s{session}", "set", f"p{person:02}", column.name, value, spent)
                )
    found = measure(given, columns, QUICK, checks={"p05": (1, 2), "p06": (2, 2)})
    people = found["annotators"]["people"]
    disagree = {name for name, one in people.items() if one["disagrees"]}
    assert {"p00", "p01", "p02"} <= disagree
    assert len(disagree) <= 6  # of 57 who read
    assert people["p01"]["kappa"]["value"] < -0.1
    assert people["p02"]["kappa"]["value"] == pytest.approx(0, abs=1e-9)
    assert {name for name, one in people.items() if one["hasty"]} == {"p03"}
    at_hand = table(found, 3)
    assert at_hand["p03"][-1].endswith("in 3 s or less")
    assert at_hand["p05"][-1].endswith("missed 1 of 2 checks")
    assert "p06" not in at_hand or "checks" not in at_hand["p06"][-1]


def test_both_sides_of_being_too_quick():
    for seconds, n in ((3.0, 2), (3.01, 0)):
        given = ratings([[1, 1], [2, 2]], seconds=seconds)
        found = measure(given, [EMPATHY], QUICK)
        assert [one["hasty"] for one in found["annotators"]["people"].values()] == [n, n]


# -- judges ---------------------------------------------------------------------------------------


def judged(n):
    """Give ratings of 40 sessions by people, and of the first ``n`` by a judge."""
    rng = np.random.default_rng(5)
    people = simulated(rng, {"set": 1.5}, sessions=40)
    first = {f"set{i}" for i in range(n)}
    seen = {r.session: r.value for r in people if r.session in first}
    judge = [
        Rating(session, "set", "model", "empathy", min(3, value + 1), is_judge=True)
        for session, value in seen.items()
    ]
    return people, judge


def test_a_judge_moves_no_number_of_people():
    people, judge = judged(40)
    alone, both = (measure(given, [EMPATHY], QUICK) for given in (people, [*people, *judge]))
    assert {**both, "judges": {}} == alone
    of = both["judges"]["model"]
    values = [r.value for r in judge]
    assert of["means"]["set"]["empathy"]["value"] == pytest.approx(np.mean(values))
    beside = of["beside_people"]["empathy"]
    assert beside["shared"] == 40
    theirs = {}
    for r in people:
        theirs.setdefault(r.session, []).append(r.value)
    bias = np.mean([r.value - np.mean(theirs[r.session]) for r in judge])
    assert beside["bias"]["value"] == pytest.approx(bias)
    assert 0 < beside["people"]["value"] < 1
    assert 0 < beside["kappa"]["value"] < 1


@pytest.mark.parametrize(("n", "calibrated"), [(0, False), (29, False), (30, True)])
def test_a_judge_of_fewer_than_30_shared_sessions_is_uncalibrated(n, calibrated):
    people, judge = judged(n)
    judge += ratings([[2]] * 9, "elsewhere", people=["model"], judge=True)
    found = measure([*people, *judge], [EMPATHY], QUICK)
    assert found["judges"]["model"]["beside_people"]["empathy"]["shared"] == n
    rows = table(found, -1)
    assert (rows["set"] == ["uncalibrated"]) != calibrated
    assert (rows["elsewhere"] == ["uncalibrated"]) != calibrated
    assert rows["sessions shared"] == [str(n)]


def test_the_kappa_of_a_judge_by_hand():
    """Against one person: Cohen's, with squares. Values 0 1 2 3 against 0 1 3 3."""
    people = ratings([[0], [1], [3], [3]])
    judge = ratings([[0], [1], [2], [3]], people=["model"], judge=True)
    found = measure([*people, *judge], [EMPATHY], QUICK)
    chance = np.mean([(a - b) ** 2 for a in (0, 1, 2, 3) for b in (0, 1, 3, 3)])
    kappa = found["judges"]["model"]["beside_people"]["empathy"]["kappa"]["value"]
    assert kappa == pytest.approx(1 - 0.25 / chance)


# -- little data ----------------------------------------------------------------------------------

LITTLE = {
    "no ratings": [],
    "one rating": ratings([[2]]),
    "one annotator": ratings([[2], [1], [3]]),
    "one set": ratings([[2, 1, 3], [0, 1, 0]]),
    "one session each": [*ratings([[2, 1]], "a"), *ratings([[1, 1]], "b")],
    "all equal": [*ratings([[2, 2, 2]] * 5, "a"), *ratings([[2, 2, 2]] * 5, "b")],
    "a judge alone": ratings([[2]] * 40, people=["model"], judge=True),
    "names": ratings([[1, 2], [3, 0]], "|x\n<b>%\\input{y}", people=["\u202e", "`|"]),
}


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("what", LITTLE)
def test_a_study_that_holds_little_is_reported(what, test):
    settings = dataclasses.replace(QUICK, test=test, holm=True)
    found = measure(LITTLE[what], [EMPATHY, RISK], settings, ["a", "nobody"])
    assert table(found)["nobody"] == ["-", "-"]
    text = markdown_document(tables(json.loads(json.dumps(found)), with_paper=True))
    assert "nobody: 0 sessions, 0 ratings" in text
    assert "nan" not in text
    assert "<b>" not in text
    latex = latex_document(tables(found))
    assert "\\input" not in latex
    assert "\\\\%" not in latex


def test_where_all_is_equal_nothing_is_worse():
    found = measure(LITTLE["all equal"], [EMPATHY], QUICK)
    assert set(found["tests"]["best"]["empathy"].values()) == {1.0}
    assert found["agreement"]["empathy"]["within_one"]["value"] == 1
    assert found["agreement"]["empathy"]["alpha_ordinal"]["value"] is None


def test_the_last_of_two_ratings_counts():
    given = [*ratings([[0]]), *ratings([[3]])]
    assert measure(given, [EMPATHY], QUICK)["means"]["set"]["empathy"]["value"] == 3


def test_sessions_of_one_name_in_two_sets_are_two():
    given = [
        dataclasses.replace(r, session="s")
        for r in [*ratings([[0, 0]], "a"), *ratings([[3, 3]], "b")]
    ]
    found = measure(given, [EMPATHY], QUICK)
    assert found["agreement"]["empathy"]["within_one"]["value"] == 1
    assert found["sets"]["a"] == found["sets"]["b"] == {"sessions": 1, "ratings": 2}
