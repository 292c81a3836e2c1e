"""Preferences: the paper's Table 4, win rates, many systems, judges beside people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder import paper
from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation.pairwise import measure, outcome, strengths
from augesc_builder.human_evaluation.pairwise_report import papers_counts, tables
from augesc_builder.human_evaluation.records import Preference
from augesc_builder.run.document import latex_document, markdown_document

TITLES = {question: question.title() for question in paper.TABLE_4}


def preferences(counts, first="AugESC", second="ESConv", judge=False, start=0, who="p"):
    """Give answers on pairs, wins first, then ties, then losses; on each question from the top."""
    found = []
    for question, (wins, ties, losses) in counts.items():
        winners = [first] * wins + [None] * ties + [second] * losses
        for i, winner in enumerate(winners, start):
            found.append(
                Preference(
                    f"pair{i}",
                    "a judge" if judge else f"{who}{i}",
                    question,
                    (second, first) if i % 2 else (first, second),
                    winner,
                    is_judge=judge,
                )
            )
    return found


def rows(text, title):
    """Give the cells of every row of tables with that title."""
    lines = (line.replace("\\", "") for line in text.splitlines())
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [cells[1:] for cells in found if cells[0] == title]


def test_the_papers_table_from_its_counts():
    counts = papers_counts()
    assert {q: (w, n) for q, (w, _, n) in counts.items()} == {
        **{"fluency": (28, 8), "identification": (41, 13), "comforting": (33, 13)},
        **{"suggestion": (35, 9), "overall": (35, 17)},
    }
    found = measure(preferences(counts), TITLES, ["AugESC", "ESConv"])
    assert (found["pairs"], found["people"]) == (60, 60)
    outcomes = found["comparisons"][0]["outcomes"]
    wanted = [0.0012, 0.0002, 0.0045, 0.0001, 0.018]
    for of, p in zip(outcomes.values(), wanted, strict=True):
        assert float(f"{of['p']:.{3 if p > 0.01 else 4}f}") == p
    text = markdown_document(tables(found, with_paper=True))
    ours, papers = rows(text, "Fluency")
    assert ours == papers == ["47% (28)", "40% (24)", "13% (8)", "0.0012 **", "0.78 [0.62, 0.88]"]
    ours, papers = rows(text, "Overall")
    assert ours == papers == ["58% (35)", "13% (8)", "28% (17)", "0.0175 *", "0.67 [0.54, 0.78]"]
    assert "The paper's preferences" in text
    assert "The paper's" not in markdown_document(tables(found))


def test_a_win_rate_and_its_interval_by_hand():
    """Of no answers the posterior is the prior; of 1 win it is x squared: .025 at the root."""
    one = outcome(1, 5, 0)
    assert one["rate"]["value"] == 1
    assert one["rate"]["low"] == pytest.approx(math.sqrt(0.025))
    assert one["rate"]["high"] == pytest.approx(math.sqrt(0.975))
    assert one["p"] == 1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_turned_around_a_comparison_says_the_same(wins, ties, losses):
    one, other = outcome(wins, ties, losses), outcome(losses, ties, wins)
    assert one["p"] == other["p"]
    assert one["rate"]["low"] == pytest.approx(1 - other["rate"]["high"])
    assert one["rate"]["low"] < (wins + 1) / (wins + losses + 2) < one["rate"]["high"]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """With the prior that it takes for granted: rates are drawn evenly."""
    rng = np.random.default_rng(1)
    rates = rng.random(1_000)
    held = 0
    for rate, wins in zip(rates, rng.binomial(50, rates), strict=True):
        found = outcome(int(wins), 0, 50 - int(wins))["rate"]
        held += found["low"] <= rate <= found["high"]
    assert 925 <= held <= 973


def test_ties_only_decide_nothing():
    found = measure(preferences({"overall": (0, 9, 0)}), {"overall": "Overall"})
    of = found["comparisons"][0]["outcomes"]["overall"]
    assert (of["p"], of["rate"]["value"], of["ties"]) == (None, None, 9)
    text = markdown_document(tables(found))
    assert rows(text, "Overall") == [["0% (0)", "100% (9)", "0% (0)", "-", "-"]]


def test_no_answers_are_a_table_without_numbers():
    found = measure([], TITLES, ["a", "b"])
    assert found["comparisons"][0]["outcomes"]["overall"]["p"] is None
    assert "a against b" in markdown_document(tables(found))
    assert measure([], TITLES)["comparisons"] == []


def test_the_last_of_two_answers_counts():
    first, second = (
        Preference("pair", "p", "overall", ("a", "b"), winner) for winner in ("a", "b")
    )
    of = measure([first, second], {"overall": "O"})["comparisons"][0]["outcomes"]["overall"]
    assert (of["wins"], of["losses"]) == (0, 1)


def test_the_reference_is_what_others_are_against():
    found = measure(preferences({"overall": (3, 0, 1)}), {"overall": "O"}, reference="AugESC")
    assert found["comparisons"][0]["first"] == "ESConv"
    assert found["comparisons"][0]["outcomes"]["overall"]["wins"] == 1
    with pytest.raises(StudyError, match="no system 'x' in this study; there are a, b"):
        measure([], {}, ["a", "b"], reference="x")


def rounds(*results):
    """Give answers by winner and loser, so many times; a tie has no winner."""
    found = []
    for first, second, wins, ties, losses in results:
        given = preferences({"overall": (wins, ties, losses)}, first, second, start=len(found))
        found += given
    return found


def test_two_strengths_are_the_odds_of_winning():
    found = strengths(rounds(("a", "b", 30, 0, 10)), ["a", "b"])
    assert found["a"]["value"] - found["b"]["value"] == pytest.approx(math.log(3))
    # Of two the error is that of a logarithm of odds, half of it on each side.
    error = 1.959964 * math.sqrt(1 / 30 + 1 / 10) / 2
    assert found["a"]["high"] - found["a"]["value"] == pytest.approx(error, rel=1e-4)
    ties = strengths(rounds(("a", "b", 20, 20, 0)), ["a", "b"])
    assert ties["a"]["value"] == pytest.approx(found["a"]["value"])


def test_strengths_of_three_systems_are_found_again():
    rng = np.random.default_rng(3)
    truth = {"a": 0.6, "b": 0.0, "c": -0.6}
    held = 0
    for _ in range(100):
        given = []
        for first, second in (("a", "b"), ("b", "c"), ("a", "c")):
            wins = rng.binomial(40, 1 / (1 + math.exp(truth[second] - truth[first])))
            given.append((first, second, int(wins), 0, 40 - int(wins)))
        found = strengths(rounds(*given), list(truth))
        assert sum(of["value"] for of in found.values()) == pytest.approx(0, abs=1e-9)
        held += sum(found[n]["low"] <= truth[n] <= found[n]["high"] for n in truth)
    assert 270 <= held <= 297


def test_strengths_that_would_be_infinite_are_none():
    never_lost = rounds(("a", "b", 5, 0, 0), ("b", "c", 3, 0, 2))
    found = measure(never_lost, {"overall": "Overall"}, ["a", "b", "c"])
    assert {of["value"] for of in found["strengths"]["overall"].values()} == {None}
    text = markdown_document(tables(found))
    assert text.count("Preferences (Table 4)") == 2  # a and c were never compared
    assert "won or lost everything" in text


def test_a_judge_stands_beside_people_and_never_among_them():
    people = preferences({"overall": (20, 5, 5)})
    alone = measure(people, {"overall": "Overall"})
    judge = preferences({"overall": (25, 0, 5)}, judge=True)
    found = measure([*people, *judge], {"overall": "Overall"})
    assert found["comparisons"] == alone["comparisons"]
    assert (found["pairs"], found["people"]) == (30, 30)
    of = found["judges"]["a judge"]
    assert of["comparisons"][0]["outcomes"]["overall"]["wins"] == 25
    beside = of["beside_people"]["overall"]
    assert (beside["shared"], beside["judge"], beside["people"]) == (30, 25 / 30, None)


def test_a_judge_of_29_pairs_is_uncalibrated_and_one_of_30_is_not():
    people = preferences({"overall": (20, 5, 5)})
    for n, calibrated in ((29, False), (30, True)):
        judge = preferences({"overall": (n, 0, 0)}, judge=True)
        found = measure([*people, *judge], {"overall": "Overall"})
        text = markdown_document(tables(found))
        assert ("Preferences of a judge" in text) == calibrated
        assert text.count("uncalibrated") == (1 if calibrated else 2)


def test_people_who_shared_pairs_are_what_a_judge_is_compared_with():
    people = preferences({"overall": (20, 0, 20)})
    others = preferences({"overall": (15, 0, 25)}, who="q")
    judge = preferences({"overall": (20, 0, 20)}, judge=True)
    of = measure([*people, *others, *judge], {"overall": "O"})["judges"]["a judge"]
    beside = of["beside_people"]["overall"]
    assert beside["people"] == pytest.approx(35 / 40)
    assert beside["judge"] == pytest.approx((40 + 35) / 80)
    # Of people 35 of 80 answers are for one: by chance they are alike in (35² + 45²) / 80².
    chance = (35**2 + 45**2) / 80**2
    assert beside["people_kappa"] == pytest.approx(1 - (5 / 40) / (1 - chance))


def test_names_of_strangers_stay_text():
    evil = "50% |\\input{x}<b>*"
    found = measure(preferences({"overall": (3, 0, 1)}, evil, "_b"), {"overall": "O"})
    text = markdown_document(tables(found))
    assert "<b>" not in text
    latex = latex_document(tables(found))
    assert "\\input" not in latex
    assert "\\\\%" not in latex
    assert "50\\% " in latex
