"""The measure as a whole: what holds for whatever is said."""

from __future__ import annotations

import time
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.metrics.consistency.counts import ConsistencyCounts
from augesc_builder.metrics.consistency.measure import PAIRS, THRESHOLD, Consistency
from tests.conftest import often, shared
from tests.metrics.consistency.said import by_seeker, session

PHRASES = (
    "I have two kids",
    "I have 3 kids",
    "my dog is 14",
    "my dog is 13.",
    "I don't like cats",
    "I like cats",
    "my husband",
    "she left",
    "I am an only child",
    "my sister",
    "how are you feeling?",
    "what should I do",
    '"',
    ",",
    "\u00e4\u4e2d",
    "",
)
TEXTS = st.lists(st.sampled_from(PHRASES), max_size=4).map(" ".join) | st.text(max_size=20)
SESSIONS = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "assistant"]),
        TEXTS,
    ),
    max_size=8,
)


@settings(max_examples=often(60))
@given(SESSIONS)
def test_findings_point_at_two_utterances_of_one_speaker(messages):
    [scored] = Consistency().score([messages])
    assert len(scored.scores) == len(messages)
    assert all(score is not None and 0 <= score <= 1 for score in scored.scores)
    for found in scored.findings:
        text = messages[found.utterance]["content"]
        assert 0 <= found.start < found.end <= len(text)
        if found.other is not None:
            other = messages[found.other]
            assert found.other < found.utterance
            assert 0 <= found.other_start < found.other_end <= len(other["content"])
            same = other["role"] == messages[found.utterance]["role"]
            assert same or found.kind == "story taken over"
    clashes = [f for f in scored.findings if f.other is not None and f.kind != "story taken over"]
    assert all(f.score >= THRESHOLD for f in clashes)
    assert scored.session == {
        "contradictions": len(clashes),
        "contradiction": max(scored.scores, default=0),
        "role_confusions": len(scored.findings) - len(clashes),
    }


@settings(max_examples=often(30))
@given(TEXTS, st.sampled_from(["user", "assistant"]))
def test_one_utterance_contradicts_nothing(text, role):
    [scored] = Consistency().score([[{"role": role, "content": text}]])
    assert scored.session["contradiction"] == 0


@settings(max_examples=often(30))
@given(SESSIONS, SESSIONS)
def test_each_session_is_scored_as_it_is_alone(one, other):
    measure = Consistency()
    assert measure.score([one, other]) == [*measure.score([one]), *measure.score([other])]


@settings(max_examples=often(30))
@given(SESSIONS)
def test_curly_apostrophes_change_no_decision(messages):
    curly = [{**m, "content": m["content"].replace("'", "\u2019")} for m in messages]
    first, second = Consistency().score([messages, curly])
    assert first.scores == second.scores


def test_other_languages_and_nothing():
    texts = (
        "",
        "   ",
        "\u6211\u6709\u4e24\u4e2a\u5b69\u5b50",
        "Je n'ai pas d'enfants.",
        "\U0001f600",
    )
    measure = Consistency()
    assert measure.score([]) == []
    assert measure.score([[]])[0].session["contradiction"] == 0
    assert measure.score([session(*texts)])[0].findings == ()


def test_a_threshold_has_two_sides():
    """Both a place and a liking clash; one is surer than the other, and both are counted."""
    place = Consistency().score([by_seeker("I live in Ohio.", "Now look, I live in Texas!")])[0]
    assert place.session["contradictions"] == 1
    assert place.session["contradiction"] == THRESHOLD
    unsure = Consistency().score([by_seeker("I know.", "I don't know.")])[0]
    assert unsure.session["contradictions"] == 0 < unsure.session["contradiction"] < THRESHOLD


@pytest.mark.parametrize(
    "text",
    [
        "I do not have no dog and " * 8,
        "not " * 400,
        '"' * 800,
        "my dog is 14. " * 40,
        "1" * 5000 + " kids",
        "I have " + "1," * 600 + " kids",
        "a\u2019" * 500,
        "x" * 20_000,
        "he she " * 100,
    ],
)
def test_hostile_text_takes_time_as_it_grows(text):
    def seconds(n):
        start = time.thread_time()
        Consistency().score([session(*[text] * n)])
        return time.thread_time() - start

    seconds(1)
    few = min(seconds(4) for _ in range(2))
    assert seconds(32) < 60 * (few + 0.005)  # eight times as much; pairs would be 64 times


def test_long_sessions_grow_as_they_are_long():
    def seconds(n):
        texts = [f"I walk to house {i} by the river, and my dog likes it {i}." for i in range(n)]
        start = time.thread_time()
        Consistency().score([session(*texts)])
        return time.thread_time() - start

    seconds(10)
    few, many = (min(seconds(n) for _ in range(5)) for n in (50, 500))
    assert many < 30 * (few + 0.005)  # all pairs would be a hundred times as much


def test_people_hardly_ever_contradict_themselves():
    from augesc_builder.sources.sessions import iterate_sessions

    every = (messages for _, messages in iterate_sessions(shared("esconv/valid.txt")))
    sessions = list(islice(every, 100))
    scored = Consistency().score(sessions)
    assert sum(each.session["contradictions"] > 0 for each in scored) < 0.05 * len(sessions)


class Stubborn:
    """A classifier that finds a contradiction wherever a word is said in both texts."""

    name = "stubborn"

    def __init__(self, word):
        self.word, self.seen = word, []

    def settings(self):
        return {"model": self.name}

    def contradictions(self, pairs):
        self.seen += pairs
        return [
            0.9 if self.word in first and self.word in second else 0.1 for first, second in pairs
        ]


def test_a_classifier_sees_near_pairs_of_one_speaker_of_all_sessions_at_once():
    model = Stubborn("river")
    talk = by_seeker("The river is deep.", "I swam.", "We sat by the river.")
    first, second = Consistency(model).score([talk, talk[:1]])
    assert model.seen == [("The river is deep.", "We sat by the river.")]
    [found] = first.findings
    assert (found.kind, found.utterance, found.other, found.score) == ("model", 4, 0, 0.9)
    assert found.end == len("We sat by the river.")
    assert first.scores[4] == 0.9
    assert second.findings == ()
    assert Consistency(model).settings()["classifier"] == {"model": "stubborn"}


def test_a_classifier_sees_a_bounded_number_of_pairs():
    model = Stubborn("river")
    Consistency(model).score([by_seeker(*[f"The river is deep, {i}." for i in range(40)])])
    assert len(model.seen) <= 40 * PAIRS


@settings(max_examples=often(30))
@given(st.lists(SESSIONS, max_size=5), st.integers(0, 5))
def test_counts_merge(sessions, cut):
    scored = Consistency().score(sessions)
    whole, left, right = ConsistencyCounts(), ConsistencyCounts(), ConsistencyCounts()
    whole.add(sessions, scored)
    left.add(sessions[:cut], scored[:cut])
    right.add(sessions[cut:], scored[cut:])
    right.merge(left)
    assert right.statistics() == whole.statistics()


def test_counts_are_by_speaker_and_kind():
    talk = by_seeker("I have two kids.", "I am tired, I have 3 kids.", "How are you feeling?")
    counts = ConsistencyCounts()
    scored = Consistency().score([talk, session("Hi.")])
    counts.add([talk, session("Hi.")], scored)
    found = counts.statistics()
    assert found["by_speaker_and_kind"]["supporter"] == {}
    assert found["by_speaker_and_kind"]["seeker"]["count"] == 1
    assert found["by_speaker_and_kind"]["seeker"]["seeker supports"] == 1
    assert found["sessions"] == 2
    assert found["contradicting_share"] == found["confused_share"] == 0.5
    assert ConsistencyCounts().statistics()["contradicting_share"] is None
