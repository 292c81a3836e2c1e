"""What a turn adds: words and facts that nobody has said before."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.informativeness import informativeness
from augesc_builder.metrics.informativeness.counts import InformativenessCounts
from augesc_builder.metrics.informativeness.facts import facts
from augesc_builder.metrics.informativeness.measure import Informativeness


def session(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


SESSIONS = st.lists(
    st.lists(st.text(max_size=30), max_size=6).map(lambda texts: session(*texts)), max_size=5
)


def test_content_words_are_stems_without_stop_words_numbers_and_marks():
    assert content_words("My dogs, 3 of them, don't like DOG food!") == [
        "dog",
        "like",
        "dog",
        "food",
    ]
    assert content_words("I don\u2019t") == []
    assert content_words("") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("My mom is 63.", [("kin", "mother"), ("number", "63")]),
        (
            "I have fourteen cats, 1,200 dollars",
            [("number", "14"), ("kin", "cat"), ("number", "1200")],
        ),
        ("That one thing.", []),
        ("Yes. He lives in Boston. Peter knows.", [("name", "boston")]),
        ("My kids and children", [("kin", "child"), ("kin", "child")]),
    ],
)
def test_facts(text, found):
    assert list(facts(text)) == found


def test_what_anyone_has_said_is_not_new():
    said = session("My dog is sick.", "A sick dog! Is it old?", "My dog is old, he is 14.", "Oh.")
    scored = Informativeness().score([said])[0]
    assert scored.scores == (2.0, 1.0, 0.0, 0.0)  # dog sick; old; nothing
    assert scored.session == {"new_words": 1.0, "new_facts": 1.0, "new_share": 2 / 4}


def test_a_session_without_the_seeker_has_no_rate():
    scored = Informativeness().score([[{"role": "assistant", "content": "Hello there"}], []])
    assert scored[0].session == dict.fromkeys(("new_words", "new_facts", "new_share"))
    assert scored[1].scores == ()


@given(SESSIONS)
def test_any_session_is_scored_as_it_would_be_alone(sessions):
    together = Informativeness().score(sessions)
    assert together == [Informativeness().score([s])[0] for s in sessions]
    for said, scored in zip(sessions, together, strict=True):
        assert len(scored.scores) == len(said)
        assert all(score >= 0 for score in scored.scores)
        share = scored.session["new_share"]
        assert share is None or 0 <= share <= 1


@given(SESSIONS, st.integers(0, 5), st.randoms())
def test_counts_merge_in_any_order(sessions, cut, rng: random.Random):
    whole = InformativenessCounts()
    parts = [InformativenessCounts(), InformativenessCounts()]
    measured = list(zip(sessions, Informativeness().score(sessions), strict=True))
    for said, scored in measured:
        whole.add(said, scored)
    rng.shuffle(measured)
    for n, (said, scored) in enumerate(measured):
        parts[n < cut].add(said, scored)
    parts[0].merge(parts[1])
    assert parts[0].statistics() == whole.statistics()


def test_the_corpus(tmp_path):
    said = session("My dog died.", "I am sorry about your dog.", "He was 14. A good dog.")
    found = informativeness.Informativeness(cache_dir=str(tmp_path)).compute(messages=[said])
    assert found["sessions"] == 1
    assert found["new_words"] == 1.5  # dog, died; good
    assert found["new_facts"] == 1.0  # dog; 14
    assert found["seeker"]["utterances"] == 2
    assert found["supporter"]["by_progress"] == [None, 1.0, None, None, None]
