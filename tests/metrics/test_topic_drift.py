"""Ranks of turns among those of other sessions, and where a talk leaves its topic."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.metrics.topic_drift import topic_drift
from augesc_builder.metrics.topic_drift.change_point import change_point
from augesc_builder.metrics.topic_drift.counts import DriftCounts
from augesc_builder.metrics.topic_drift.distractors import Distractors, Turn, TurnSample, trigger_of
from augesc_builder.metrics.topic_drift.measure import CHANGE, N, TopicDrift
from augesc_builder.metrics.topic_drift.scorers.base import Question
from augesc_builder.metrics.topic_drift.scorers.words import Words
from augesc_builder.text.words import count
from tests.conftest import often


def session(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


DOG = session("My dog died.", "Your dog was a friend.", "She was old.", "An old dog is a friend.")
JOB = session("I lost my job.", "Was the job a good one?", "My boss was bad.", "A bad boss is bad.")
EXAM = session("My exam is soon.", "Exams are hard to sit.", "I fear it.", "Do you fear exams?")
CORPUS = [DOG, JOB, EXAM]
SESSIONS = st.lists(
    st.lists(st.text("ab d.\u00e9", max_size=9), max_size=6).map(lambda texts: session(*texts)),
    max_size=5,
)


def drift_of(corpus, **settings):
    pool = Distractors.from_sessions(corpus)
    return TopicDrift(Words(pool.texts), pool, **settings)


# -- ranks ----------------------------------------------------------------------------------------


def test_a_turn_that_shares_the_seekers_words_ranks_first():
    for scored in drift_of(CORPUS).score(CORPUS):
        assert scored.scores == (None, 0.0, None, 0.0)
        assert scored.session == {"drift": 0.0, "drifted": 0.0, "change_point": None}
        assert scored.findings == ()


def test_a_turn_of_another_topic_ranks_last_and_is_pointed_at():
    strayed = session("I lost my job, and my boss was bad.", "Your dog was a friend.")
    scored = drift_of(CORPUS).score([strayed])[0]
    # Of the five others in the pool two share words with the seeker, three none, as the turn.
    assert scored.scores[1] == (2 + 3 / 2) / 5
    finding = drift_of([JOB], n=2).score([strayed])[0].findings[0]
    assert (finding.kind, finding.utterance, finding.score) == ("off_topic", 1, 1.0)
    assert (finding.start, finding.end) == (0, len(strayed[1]["content"]))
    assert finding.reason == "of 2 turns of other sessions 2 fit better"


@pytest.mark.parametrize(("threshold", "drifted"), [(0.5, 1.0), (0.51, 0.0)])
def test_both_sides_of_the_threshold(threshold, drifted):
    none_fits = session("Hello.", "Yes, certainly so.")
    scored = drift_of(CORPUS, threshold=threshold).score([none_fits])[0]
    assert scored.scores == (None, 0.5)  # nothing is shared: all are equal
    assert scored.session["drifted"] == drifted
    assert len(scored.findings) == drifted


def test_what_has_no_rank():
    odd = [
        [],
        session("Only one."),
        session("A trigger.", ""),
        session("A trigger.", " ... "),
        [{"role": "assistant", "content": "Nobody has spoken before."}],
    ]
    for said, scored in zip(odd, drift_of(CORPUS).score(odd), strict=True):
        assert scored.scores == (None,) * len(said)
        assert scored.session == {"drift": None, "drifted": None, "change_point": None}
    alone = drift_of([DOG]).score([DOG])[0]  # the pool is of the session itself
    assert alone.session["drift"] is None
    assert drift_of([]).score([DOG])[0].session["drift"] is None


def test_five_hundred_utterances_and_other_languages():
    long = session(
        *["Mein Hund ist krank", "\u6211\u7684\u72d7", "\u0645\u0631\u062d\u0628\u0627"] * 167
    )
    scored = drift_of(CORPUS).score([long])[0]
    assert sum(score is not None for score in scored.scores) == 250


@settings(max_examples=often(60))
@given(SESSIONS, st.integers(1, 4))
def test_any_session_is_scored_as_it_would_be_alone(sessions, n):
    drift = drift_of([*sessions, *CORPUS], n=n)
    together = drift.score(sessions)
    assert together == [drift.score([said])[0] for said in sessions]
    for said, scored in zip(sessions, together, strict=True):
        assert len(scored.scores) == len(said)
        assert all(score is None or 0 <= score <= 1 for score in scored.scores)


def test_what_comes_after_a_turn_does_not_change_its_rank():
    drift = drift_of([session("It is", f"turn {n} of words") for n in range(50)])
    long = session(*(f"the word {n} of it" for n in range(20)))
    assert drift.score([long[:8]])[0].scores == drift.score([long])[0].scores[:8]


def test_sessions_that_begin_with_a_greeting_are_not_of_one_query():
    dog, job = (session("Hi!", "Hello.", *(m["content"] for m in said)) for said in (DOG, JOB))
    assert trigger_of(dog) != trigger_of(job)
    assert trigger_of(dog) == trigger_of(session("Hi!", "Yes?", "My dog died.", "Oh.", "It did."))
    assert trigger_of(DOG) == trigger_of(session("My dog died.", "When?", "Today."))
    answers = [
        Words(["x", "y"]).fit([Question(said, {5: ["dog"]})])[0][5] for said in (DOG + dog[4:], dog)
    ]
    assert answers[0] == answers[1]


def test_no_turn_of_the_session_itself_is_drawn():
    pool = Distractors(Turn(m["content"], 7) for said in CORPUS for m in said)  # of no trigger
    question = TopicDrift(Words(pool.texts), pool, n=20)._question(DOG)
    own = {m["content"] for m in DOG}
    assert [len(texts) for texts in question.candidates.values()] == [9, 9]
    assert all(own.isdisjoint(texts[1:]) for texts in question.candidates.values())


def test_by_chance_the_mean_is_a_half():
    rng = random.Random(1)
    words = [f"word{n}" for n in range(30)]
    corpus = [session(*(" ".join(rng.sample(words, 6)) for _ in range(6))) for _ in range(200)]
    found = [scored.session["drift"] for scored in drift_of(corpus).score(corpus)]
    assert 0.46 < sum(found) / len(found) < 0.54


def test_the_trigger_counts_twice():
    pool = [f"filler{n}" for n in range(9)]
    said = session("My dog.", "So?", "My cat.", "?")
    answer = Words(pool).fit([Question(said, {3: ["dog", "cat", "cat dog", "bird"]})])[0][3]
    assert answer[0] == pytest.approx(2 * answer[1])
    assert answer[2] > answer[0] > answer[3] == 0


def test_settings_say_what_the_numbers_depend_on():
    settings = drift_of(CORPUS, n=3).settings()
    assert settings["scorer"] == "words"
    assert settings["per_turn"] == 3
    assert settings["distractors"]["turns"] == 6
    assert settings == drift_of(CORPUS[::-1], n=3).settings()
    assert settings != drift_of(CORPUS[1:], n=3).settings()


# -- distractors ----------------------------------------------------------------------------------

TURNS = [Turn("word " * n + f"{kind}", kind) for n in range(1, 30) for kind in range(8)]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**64 - 1), st.integers(0, 7))
def test_distractors_are_of_other_sessions_and_about_as_long(words, n, seed, trigger):
    text = " ".join(["said"] * words)
    drawn = Distractors(TURNS).draw(text, n, trigger=trigger, seed=seed)
    assert len(set(drawn)) == len(drawn) == n
    assert all(turn.split()[-1] != str(trigger) for turn in drawn)
    # Eight turns of each length, of which one is the session's own.
    assert all(abs(count(turn) - words) <= max(words // 5, 3) for turn in drawn)
    assert drawn == Distractors(TURNS[::-1]).draw(text, n, trigger=trigger, seed=seed)


def test_every_turn_of_that_length_is_drawn_for_some_seed():
    pool = Distractors(Turn(f"a turn number {n}", n) for n in range(40))
    drawn = {t for seed in range(60) for t in pool.draw("a b c d", 3, trigger=99, seed=seed)}
    assert len(drawn) == 40


def test_a_pool_that_has_too_few_gives_what_it_has():
    pool = Distractors([Turn("yes", 1), Turn("a longer turn than that", 2), Turn("yes", 3)])
    assert len(pool) == 2  # one of those that say the same
    assert pool.draw("no", 5, trigger=2, seed=0) == ["yes"]
    assert pool.draw("yes", 5, trigger=1, seed=0) == ["a longer turn than that"]


@given(SESSIONS, st.integers(0, 5), st.integers(1, 6), st.randoms())
def test_a_sample_of_turns_is_bounded_and_merges_in_any_order(sessions, cut, size, rng):
    whole = TurnSample(size)
    parts = [TurnSample(size), TurnSample(size)]
    for said in sessions:
        whole.add(said)
    mixed = rng.sample(sessions, len(sessions))
    for n, said in enumerate(mixed):
        parts[n < cut].add(said)
    parts[0].merge(parts[1])
    assert parts[0].turns() == whole.turns()
    assert len(whole.turns()) <= size


# -- a change of topic ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "where"),
    [
        ([1, 1, 1, 0, 0, 0], 3),
        ([0, 0, 0, 1, 1, 1], None),
        ([1, 1, 1, 1, 1, 0], None),  # one turn that strays
        ([1, 1, 1, 0, 1, 1], None),
        ([1, 0], None),
        ([], None),
        ([0.5] * 20, None),
        ([0.9, 1, 0.8, 0.9, 0.2, 0.1, 0.3], 4),
    ],
)
def test_where_ranks_begin_to_be_lower(ranks, where):
    assert change_point(ranks, N, CHANGE) == where


def test_both_sides_of_the_change():
    ranks = [1.0] * 4 + [0.5] * 4
    spread = np.std([0, 0.25, 0.5, 0.75, 1])  # of a rank among four others
    z = 0.5 / (spread * math.sqrt(1 / 4 + 1 / 4))
    assert change_point(ranks, 4, z - 1e-9) == 4
    assert change_point(ranks, 4, z + 1e-9) is None


def test_by_chance_one_session_in_twenty_changes():
    rng = np.random.default_rng(0)
    found = [change_point([*(rng.integers(0, N + 1, 12) / N)], N, CHANGE) for _ in range(2000)]
    assert 0.03 < np.mean([where is not None for where in found]) < 0.08


def test_a_change_is_pointed_at():
    turns = ["My dog died.", "Your dog died."] * 4 + ["My dog died.", "Is a boss bad?"] * 4
    said = [{**m, "content": f"{m['content']}"} for m in session(*turns)]
    pool = Distractors([Turn(f"a dog died number {n}", n) for n in range(9)])
    scored = TopicDrift(Words(["x", "y", "z"]), pool).score([said])[0]
    assert scored.session["change_point"] == 9
    assert [f.utterance for f in scored.findings if f.kind == "change_of_topic"] == [9]


# -- a corpus -------------------------------------------------------------------------------------


@settings(max_examples=often(40))
@given(SESSIONS, st.integers(0, 5), st.randoms())
def test_counts_merge_in_any_order(sessions, cut, rng):
    measured = list(zip(sessions, drift_of(CORPUS).score(sessions), strict=True))
    whole, parts = DriftCounts(), [DriftCounts(), DriftCounts()]
    for said, scored in measured:
        whole.add(said, scored)
    rng.shuffle(measured)
    for n, (said, scored) in enumerate(measured):
        parts[n < cut].add(said, scored)
    parts[0].merge(parts[1])
    assert parts[0].statistics() == whole.statistics()


def test_the_corpus(tmp_path):
    found = topic_drift.TopicDrift(cache_dir=str(tmp_path)).compute(messages=CORPUS)
    assert found == {
        "sessions": 3,
        "scored_sessions": 3,
        "drift": 0.0,
        "drifted_share": 0.0,
        "change_share": 0.0,
        "change_place": None,
        "scored_turns": 6,
        "by_progress": [None, 0.0, None, 0.0, None],
    }
