"""The statistics by hand, the readers on good and bad files, and the fit."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from augesc_builder.errors import InputError
from augesc_builder.metrics.scored import Scored
from benchmarks import quality_calibration
from benchmarks import quality_made as made
from benchmarks.quality_data import (
    DEVELOPMENT,
    PLANTED,
    TEST,
    Judged,
    parts_of,
    read_abceval,
    read_fed,
    read_lend_an_ear,
    read_planted,
    read_scored,
    read_survey,
)
from benchmarks.quality_fit import Calibration, fit
from benchmarks.quality_judges import judge_table, quadratic_kappa, with_judge
from benchmarks.quality_numbers import (
    auc,
    best_threshold,
    f1,
    interval,
    kappa,
    left_out,
    partial_spearman,
    spearman,
)
from benchmarks.quality_plain import OVERLAP, POSITION, REPEATED, WORDS
from benchmarks.quality_signals import (
    GAIN,
    INFORMS,
    LEAST,
    LIKELIHOOD,
    Scores,
    Signal,
    baselines,
    number,
    readings,
)
from benchmarks.quality_tasks import (
    ADDS,
    FITTED,
    NOTHING_MORE,
    ONLY_SYSTEMS,
    PEOPLE,
    SYSTEM,
    Table,
    answered,
)
from tests.benchmarks.test_benchmarks import table_of
from tests.conftest import shared


def test_auc_by_hand():
    # Pairs of one with and one without: (3, 1) (3, 2) right, (2, 1) right, (2, 2) half.
    assert auc([3, 2, 1, 2], [1, 1, 0, 0]) == 3.5 / 4
    assert auc([1, 2], [1, 0]) == 0
    assert math.isnan(auc([1, 2], [1, 1]))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=20))
def test_auc_is_the_share_of_pairs(items):
    above = [x for x, label in items if label]
    below = [x for x, label in items if not label]
    pairs = [(a > b) + (a == b) / 2 for a in above for b in below]
    found = auc(*zip(*items, strict=True))
    assert found == pytest.approx(sum(pairs) / len(pairs)) if pairs else math.isnan(found)


def test_f1_and_kappa_by_hand():
    said, true = [1, 1, 0, 0, 1], [1, 0, 1, 0, 1]
    assert f1(said, true) == pytest.approx(2 * 2 / (3 + 3))
    # They agree on 3 of 5; by chance 0.6 * 0.6 + 0.4 * 0.4.
    assert kappa(said, true) == pytest.approx((0.6 - 0.52) / (1 - 0.52))
    assert math.isnan(f1([0, 0], [0, 0]))
    assert math.isnan(kappa([1, 1], [1, 1]))
    assert kappa([0, 1], [1, 0]) == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=15))
def test_no_threshold_is_better_than_the_best(items):
    scores, labels = (np.array(x) for x in zip(*items, strict=True))
    best = best_threshold(scores, labels)
    found = f1(scores >= best, labels)
    assert all(f1(scores >= t, labels) <= found + 1e-12 for t in set(scores.tolist()))


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=30
    )
)
def test_rank_correlations_are_those_of_scipy(items):
    a, b, c = (np.array(x, float) for x in zip(*items, strict=True))
    if min(map(np.ptp, (a, b, c))) == 0:
        return
    ab, ac, bc = (spearmanr(x, y).statistic for x, y in ((a, b), (a, c), (b, c)))
    assert spearman(a, b) == pytest.approx(ab)
    if max(abs(ac), abs(bc)) < 0.99:
        expected = (ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2))
        assert partial_spearman(a, b, c) == pytest.approx(expected)


def test_what_only_follows_length_is_nothing_after_it():
    rng = np.random.default_rng(1)
    length = rng.random(3000)
    a, b = length + rng.normal(size=3000), length + rng.normal(size=3000)
    assert spearman(a, b) > 0.05
    assert abs(partial_spearman(a, b, length)) < 0.05
    assert partial_spearman(a, b, np.ones(3000)) == spearman(a, b)


def test_each_rater_is_held_against_the_mean_of_the_others():
    ratings = np.array([[1, 2, 3], [2, 1, np.nan], [3, 3, 3], [0, 0, 0]], float)
    by_hand = [
        spearmanr([1, 2, 3, 0], [2.5, 1, 3, 0]).statistic,
        spearmanr([2, 1, 3, 0], [2, 2, 3, 0]).statistic,
        spearmanr([3, 3, 0], [1.5, 3, 0]).statistic,
    ]
    assert left_out(ratings) == pytest.approx(np.mean(by_hand))


def test_dialogs_are_drawn_not_items():
    values = np.array([0.0, 0, 0, 0, 1, 1, 1, 1])
    apart = interval(lambda at: float(values[at].mean()), list("abcdefgh"), 400)
    together = interval(lambda at: float(values[at].mean()), list("aaaabbbb"), 400)
    assert apart.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1)
    assert 0 < apart.low < apart.high < 1
    assert interval(lambda at: 1.0, ["one", "one"], 10).low is None
    assert interval(lambda at: float("nan"), ["one", "two"], 10).value is None


def test_parts_are_of_dialogs_and_fixed_by_their_names():
    def items(names):
        return [Judged(name, (), i, {}) for name in names for i in (0, 1)]

    # sha256("a") ends in ...bb, sha256("b") in ...9d, sha256("d") in ...a4.
    assert parts_of(items("a")) == [DEVELOPMENT, DEVELOPMENT]
    assert parts_of(items("ad")) == [TEST, TEST, DEVELOPMENT, DEVELOPMENT]
    # All of one half: the next bit divides them. 0xbb is ...1011, 0x9d is ...1101.
    assert parts_of(items("ab")) == [TEST, TEST, DEVELOPMENT, DEVELOPMENT]


GOOD_TURN = {
    "user": "Hi",
    "system": "Hello",
    "behaviors": {"irrelevant": {"human": [0, 1], "gpt": 1}},
}


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        (read_planted, "original\ta\tHi\tHo\ncopied\ta\tHi\tHo\n", ["line 2", '"copied"']),
        (read_planted, "original\ta\n", ["line 1", "utterances"]),
        (read_planted, "", ["empty"]),
        (read_abceval, "[]", ["object of dialogs", "[]"]),
        (read_abceval, '{"a": 3}', ['"a"', "3"]),
        (read_abceval, '{"a": [{"user": "Hi"}]}', ['"a", turn 1', "'system'"]),
        (
            read_abceval,
            json.dumps({"a": [GOOD_TURN, {**GOOD_TURN, "behaviors": {"x": {"human": [2, 0]}}}]}),
            ["turn 2", "'x'", "2"],
        ),
        (read_abceval, json.dumps({"a": [{**GOOD_TURN, "behaviors": {"x": {}}}]}), ["'human'"]),
        (read_abceval, json.dumps({"a": [{**GOOD_TURN, "behaviors": 1}]}), ["'behaviors'"]),
        (read_fed, "{}", ["a list"]),
        (read_fed, '[{"context": 1}]', ["line 1", "'context'"]),
        (read_fed, '[{"context": "Hi there", "annotations": {"a": [1]}}]', ["Hi there"]),
        (read_fed, '[{"context": "User: Hi", "annotations": {"a": [true]}}]', ["'a'", "true"]),
        (read_lend_an_ear, '[{"conversation_id": "a"}]', ["line 1", "'conversation'"]),
        (
            read_lend_an_ear,
            '[{"conversation_id": "a", "conversation": "Seeker: Hi", "annotations": [3]}]',
            ["one rater", "3"],
        ),
        (read_scored, "3\n", ["line 1", "object"]),
        (read_scored, '{"messages": []}\n', ["no messages"]),
        (read_scored, '{"messages": [{"role": "cat", "content": ""}]}', ["cat"]),
        (
            read_scored,
            '{"messages": [{"role": "user", "content": "Hi"}], "scores": {"a": "x"}}',
            ["line 1", "'a'", '"x"'],
        ),
        (
            read_scored,
            '{"messages": [{"role": "user", "content": "Hi"}], "scores": {"a": NaN}}',
            ["'a'", "NaN"],
        ),
        (
            read_scored,
            '{"messages": [{"role": "user", "content": "Hi"}], "scores": {"a": []}}',
            ["'a'", "[]"],
        ),
        (
            read_scored,
            '{"messages": [{"role": "user", "content": "Hi"}], "turn": 1, "scores": {"a": 1}}',
            ["'turn'", "0 to 0"],
        ),
        (
            read_scored,
            '{"messages": [{"role": "user", "content": "Hi"}], "id": 1, "scores": {"a": 1}}',
            ["'id'"],
        ),
        (read_scored, '{"messages": [{"role": "user", "content": "Hi"}]}', ["'scores'", "null"]),
        (read_survey, '{"dialog": []}', ["line 1", "'dialog'"]),
    ],
)
def test_a_bad_file_ends_in_one_line(tmp_path, reader, text, said):
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        reader(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in said:
        assert part in message


def test_a_file_that_is_not_there_is_told_of(tmp_path):
    for reader in (read_planted, read_abceval, read_fed, read_scored):
        with pytest.raises(InputError):
            reader(tmp_path / "none")


def test_what_is_read(tmp_path):
    made.make(tmp_path, 6)
    planted = read_planted(tmp_path / made.PLANTED_FILE)
    assert [one.ratings[PLANTED] for one in planted[:2]] == [(0.0,), (1.0,)]
    assert planted[0].dialog == planted[1].dialog == "made-0"
    assert planted[0].turn == len(planted[0].messages) - 1 == 4
    abceval = read_abceval(tmp_path / made.ABCEVAL_FILE)
    assert [one.turn for one in abceval[:4]] == [1, 3, 5, 7]
    assert {len(one.ratings["irrelevant"]) for one in abceval} == {2}
    assert set(abceval[0].others["irrelevant"]) == {"gpt"}
    turn, whole = read_fed(tmp_path / made.FED_FILE)[:2]
    assert turn.dialog == whole.dialog
    assert (turn.turn, whole.turn, len(turn.messages), len(whole.messages)) == (3, None, 4, 6)
    ear = read_lend_an_ear(tmp_path / made.LEND_AN_EAR_FILE)[0]
    assert len(ear.ratings["advice_giving"]) == 3
    assert set(ear.others["advice_giving"]) == {"crowd", "gpt"}
    survey = read_survey(tmp_path / made.ESCONV_FILE)[0]
    assert set(survey.ratings) == set(made.SURVEY)


def test_scores_of_raters_turns_and_ids(tmp_path):
    path = tmp_path / "scored.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    lines = [
        {"messages": messages, "scores": {"good": 4}},
        {"messages": messages, "turn": 1, "scores": {"good": [4, None, 5]}},
        {"messages": messages, "id": "x", "scores": {"good": 1}},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    whole, turn, other = read_scored(path)
    assert whole.dialog == turn.dialog != other.dialog == "x"
    assert (whole.turn, turn.turn) == (None, 1)
    assert turn.ratings["good"] == (4.0, None, 5.0)


def said(*texts):
    return tuple(
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)
    )


def test_what_takes_no_measure():
    judged = [
        Judged("a", said("My dog is old", "Is it a dog", "my DOG is not old"), 2, {}),
        Judged("a", said("My dog is old", "Is it a dog", "my DOG is not old"), None, {}),
    ]
    found = readings(judged, baselines(), Scores())
    assert found[WORDS].tolist() == [5, 4 + 4 + 5]
    assert found[POSITION].tolist() == [2, 3]
    assert found[OVERLAP].tolist() == [4, 4]
    assert found[REPEATED][0] == pytest.approx(4 / 5)


class Knowing:
    """Says how many times an utterance has the letter x; nothing of an empty one."""

    name = "knowing"

    def __init__(self):
        self.seen = 0

    def settings(self):
        return {}

    def score(self, sessions):
        self.seen += len(sessions)
        return [
            Scored(
                tuple(float(m["content"].count("x")) if m["content"] else None for m in session),
                {"x": float(sum(m["content"].count("x") for m in session))},
            )
            for session in sessions
        ]


def test_a_dialog_is_scored_once():
    knowing = Knowing()
    dialog = said("x", "xx", "", "xxx")
    judged = [Judged("a", dialog, i, {}) for i in range(4)] + [Judged("a", dialog, None, {})]
    two = [Signal(name, knowing, number("x")) for name in ("knowing", "again")]
    found = readings(judged, two, Scores())
    assert knowing.seen == 1
    assert found["knowing"].tolist()[:2] == [1, 2]
    assert math.isnan(found["knowing"][2])
    assert found["knowing"].tolist()[3:] == [3, 6]


def question(n=60, **how):
    """Of dialogs where the truth is the number of x, and words are noise."""
    rng = np.random.default_rng(1)
    judged = []
    for i in range(n):
        true = int(rng.integers(2))
        text = "x" * true + " word" * int(rng.integers(1, 9))
        judged.append(
            Judged(f"dialog {i}", said(text), 0, {"true": (float(true),) * 2}, {"true": {"ai": 1}})
        )
    return answered("Made", "true", judged, "contradiction", **how)


def rows_of(asked, calibration=None, n=50):
    signals = [*baselines(), Signal("knowing", Knowing(), number("x"), (), worse=True)]
    calibration = Calibration() if calibration is None else calibration
    table = Table(asked, readings(asked.judged, signals, Scores()), signals, calibration, n)
    rows = table.rows()
    assert {len(row) for row in rows} == {len(table.header)}
    return {row[0]: row for row in rows}


def test_a_measure_that_knows_adds_and_noise_does_not():
    rows = rows_of(question())
    assert list(rows)[:5] == [PEOPLE, "judge: ai", WORDS, POSITION, OVERLAP]
    assert list(rows)[-2:] == ["knowing", FITTED]
    assert rows["knowing"][1].startswith("1.00")
    assert rows["knowing"][-1] == rows[FITTED][-1] == ADDS
    assert rows["judge: ai"][-1] == NOTHING_MORE or rows["judge: ai"][-1] == "-"
    assert rows[FITTED][1] == "-"


def test_what_only_knows_the_system_says_so():
    rng = np.random.default_rng(4)
    judged = []
    for i in range(200):
        system = i % 2
        # The number of x is that of the system; within it, answers are noise.
        text = "x" * (1 + system) + " word" * int(rng.integers(1, 9))
        rating = system * 3 + rng.random()
        judged.append(
            Judged(f"dialog {i}", said(text), 0, {"a": (rating,)}, {}, f"system {system}")
        )
    rows = rows_of(answered("Made", "a", judged, "contradiction", better=True))
    assert float(rows[SYSTEM][1]) > 0.8
    assert rows["knowing"][-1] == NOTHING_MORE  # what is worse goes the other way
    rows = rows_of(answered("Made", "a", judged, "contradiction"))
    assert rows["knowing"][-1] == ONLY_SYSTEMS


def test_ranks_within_groups_by_hand():
    a, b = np.array([1, 2, 5, 6.0]), np.array([2, 1, 9, 8.0])
    assert spearman(a, b) > 0
    # Within each group the one rises as the other falls.
    assert partial_spearman(a, b, np.ones(4), list("xxyy")) == pytest.approx(-1)


def test_what_is_worse_goes_the_other_way_where_higher_is_better():
    rows = rows_of(question(better=True))
    assert rows["knowing"][1].startswith("0.00")
    assert rows["knowing"][-1] == NOTHING_MORE


def test_foreign_data_take_what_was_fitted_elsewhere(tmp_path):
    kept = Calibration()
    ours = rows_of(question(), kept)
    foreign = replace(question(), foreign=True)
    assert FITTED not in rows_of(foreign)  # nothing was fitted, and nothing is
    assert rows_of(foreign)["knowing"][3] == "-"
    kept.save(tmp_path / "kept.json", {"by": "a test"})
    again = Calibration.load(tmp_path / "kept.json")
    assert again == kept
    theirs = rows_of(foreign, again)
    assert list(theirs) == list(ours)
    assert again == kept  # nothing of them was fitted
    assert theirs["knowing"][3] == "1.00"


@pytest.mark.parametrize("text", ["", "[]", '{"models": 3}', '{"models": {}, "thresholds": 1}'])
def test_a_file_that_holds_no_calibration(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match="--save"):
        Calibration.load(path)


def test_the_fit_finds_probabilities():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20000, 2)) * [3, 1] + [5, 0]
    p = 1 / (1 + np.exp(-(0.5 * (x[:, 0] - 5) - 1)))
    model = fit(["a", "b"], x, (rng.random(20000) < p).astype(float))
    assert model.probability(x) == pytest.approx(p, abs=0.04)
    assert abs(model.weights[1]) < 0.06
    # One that says nothing counts as its mean.
    unknown = model.probability(np.array([[np.nan, 0.0]]))
    assert unknown == pytest.approx(model.probability(np.array([[model.mean[0], 0.0]])))


def test_the_fit_is_at_its_optimum_for_shares_too():
    rng = np.random.default_rng(3)
    x, shares = rng.normal(size=(40, 3)), rng.random(40)
    model = fit(["a", "b", "c"], x, shares)
    left = shares - model.probability(x)
    z = (x - np.array(model.mean)) / np.array(model.scale)
    assert left.sum() == pytest.approx(0, abs=1e-6)
    assert z.T @ left == pytest.approx(np.array(model.weights), abs=1e-6)


def test_signals_that_are_the_same_everywhere_do_no_harm():
    x = np.column_stack([np.ones(10), np.full(10, np.nan), np.arange(10)])
    model = fit(["a", "b", "c"], x, (np.arange(10) > 4).astype(float))
    assert np.isfinite(model.probability(x)).all()
    assert model.weights[2] > 0


def test_judges_by_hand(tmp_path):
    judged = [
        Judged(str(i), said("word " * n), None, {"kind": experts}, {"kind": {"ai": ai}})
        for i, (n, experts, ai) in enumerate([(1, (1, 2), 1), (2, (2, 2), 3), (3, (4, 5), 4)])
    ]
    header, rows = judge_table(judged, spearman, 20)
    assert header == ["judge", "kind", "mean"]
    cells = {row[0]: row[1] for row in rows}
    between = spearmanr([1, 2, 4], [2, 2, 5]).statistic
    assert cells["experts with experts"] == f"{between:.2f}"
    assert cells["ai"] == f"{(1 + between) / 2:.2f}"
    assert cells[WORDS] == f"{(1 + between) / 2:.2f}"
    # Quadratic, of 2 raters and values 1 to 3: seen (0 + 1 + 1) / 3, by chance by all six.
    pooled = [1, 2, 2, 1, 3, 3]
    chance = np.mean([(a - b) ** 2 for a in pooled for b in pooled])
    expected = 1 - (2 / 3) / chance
    assert quadratic_kappa(np.array([1, 2, 3]), np.array([2, 1, 3])) == pytest.approx(expected)
    path = tmp_path / "judge.jsonl"
    lines = [
        {"id": one.dialog, "messages": list(one.messages), "scores": {"kind": i}}
        for i, one in enumerate(judged)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    cells = {row[0]: row[1] for row in judge_table(with_judge(judged, path), spearman, 5)[1]}
    assert cells["yours"] == cells["ai"]
    path.write_text(json.dumps(lines[0]))
    with pytest.raises(InputError, match="'1'"):
        with_judge(judged, path)


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*options):
        monkeypatch.setattr("sys.argv", ["quality_calibration.py", *map(str, options)])
        quality_calibration.main()
        return capsys.readouterr().out

    return run


def test_other_data_are_read_by_options(tmp_path, run):
    made.make(tmp_path, 8)
    scored = tmp_path / "scored.jsonl"
    lines = [
        {"messages": list(said("One", "Two " * i, "Three")), "scores": {"depth": [i, i + 1, 3]}}
        for i in range(6)
    ]
    scored.write_text("\n".join(map(json.dumps, lines)))
    out = run(
        *("--planted", tmp_path / made.PLANTED_FILE, "--scored", scored, "--n", 10),
        *("--esconv", tmp_path, "--failed", tmp_path / made.ESCONV_FILE),
    )
    for title in ("Planted contradictions", "conversations: depth", "Sessions that did not fail"):
        assert title in out
    assert "ABC-Eval" not in out


def test_a_bad_file_of_an_option_is_one_line(tmp_path, run):
    bad = tmp_path / "bad.tsv"
    bad.write_text("nothing\n")
    with pytest.raises(SystemExit) as error:
        run("--planted", bad)
    assert isinstance(error.value.code, str)
    assert "\n" not in error.value.code
    assert error.value.code.startswith(f"{bad}, line 1")


def test_some_dialogs_are_whole_and_the_same_again():
    judged = [Judged(f"dialog {i // 3}", (), i, {}) for i in range(30)]
    some = quality_calibration.first_dialogs(judged, 4)
    assert len(some) == 12
    assert len({one.dialog for one in some}) == 4
    assert quality_calibration.first_dialogs(judged[::-1], 4) == some[::-1]
    assert quality_calibration.first_dialogs(judged, 0) == judged


def test_what_was_fitted_is_kept(tmp_path, run):
    made.make(tmp_path, 12)
    here = ("--data", tmp_path, "--esconv", tmp_path, "--n", 5, "--only", "planted")
    run(*here, "--calibration", tmp_path / "none.json", "--save", tmp_path / "fitted.json")
    assert len(Calibration.load(tmp_path / "fitted.json").models) == 2
    other = ("--planted", tmp_path / made.PLANTED_FILE, "--n", 5)
    assert FITTED not in run(*other, "--calibration", tmp_path / "none.json")
    assert FITTED in run(*other, "--calibration", tmp_path / "fitted.json")


def test_what_is_shipped_is_held_against_other_data(tmp_path, run):
    made.make(tmp_path, 6)
    files = {"planted": made.PLANTED_FILE, "abceval": made.ABCEVAL_FILE, "fed": made.FED_FILE}
    for option, file in files.items():
        out = run(f"--{option}", tmp_path / file, "--n", 2)
        assert out.count(FITTED) == out.count("are test")


def test_what_models_said_is_kept(tmp_path):
    knowing = Knowing()
    judged = [Judged("a", said("x", "xx"), i, {}) for i in (0, 1)]
    signal = Signal("knowing", knowing, number("x"))
    first = readings(judged, [signal], Scores(tmp_path / "kept"))
    again = readings(judged, [signal], Scores(tmp_path / "kept"))
    assert first["knowing"].tolist() == again["knowing"].tolist() == [1, 2]
    assert knowing.seen == 1
    readings([*judged, Judged("b", said("y"), 0, {})], [signal], Scores(tmp_path / "kept"))
    assert knowing.seen == 3


@pytest.mark.slow
def test_models_add_rows(tmp_path, run, smollm2):
    made.make(tmp_path, 8)
    here = ("--data", tmp_path, "--esconv", tmp_path, "--n", 5, "--only", "irrelevant")
    rows = table_of(run(*here, "--model", smollm2))
    assert {LIKELIHOOD, GAIN, INFORMS, LEAST} <= set(rows)
    assert re.match(r"\d", rows[GAIN][0])


def test_figures_of_the_real_data_that_others_found():
    file = shared("quality/abceval_dev.json")
    asked = {one.asked: one for one in quality_calibration.abceval(read_abceval(file))}
    a, b = asked["self contradiction"].ratings.T
    assert f1(a, b) == pytest.approx(0.43, abs=0.01)
    assert kappa(*asked["irrelevant"].ratings.T) == pytest.approx(0.45, abs=0.01)
    position = readings(asked["self contradiction"].judged, baselines(), Scores())[POSITION]
    assert auc(position, asked["self contradiction"].target) == pytest.approx(0.61, abs=0.01)
    whole = quality_calibration.planted(read_planted(file.parent / made.PLANTED_FILE))[1]
    words = readings(whole.judged, baselines(), Scores())[WORDS]
    assert auc(words, whole.target) == pytest.approx(0.51, abs=0.01)
    dialogs = {
        one.asked: one for one in quality_calibration.fed(read_fed(file.parent / made.FED_FILE))
    }
    assert left_out(dialogs["Consistent"].ratings) == pytest.approx(0.35, abs=0.01)
    assert left_out(dialogs["Informative"].ratings) == pytest.approx(0.40, abs=0.01)
