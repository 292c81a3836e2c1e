"""Plain words of an utterance, and the places that they keep."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.consistency.clauses import LONGEST, read, stem_of


def stems(text):
    return [[word.stem for word in clause.bare] for clause in read(text).clauses]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("I don't like cats", "I do not like cats"),
        ("I don \u2019 t like cats", "I don't like cats"),
        ("I dont like cats", "I don't like cats"),
        ("she's 14", "she is fourteen"),
        ("thirty-seven kids", "37 kids"),
        ("two hundred euros", "200 euros"),
        ("3,000 euros", "3000 euros"),
        ("a dozen eggs", "a 12 eggs"),
        ("my mom", "my mother"),
        ("he took hikes", "he takes hike"),
        ("here it comes", "here it came"),
        ("we can't go", "we cannot go"),
        ("she won't go", "she will not go"),
    ],
)
def test_one_thing_is_read_one_way(text, same):
    assert stems(text) == stems(same)
    assert len(read(text).clauses[0].negators) == len(read(same).clauses[0].negators)


def test_numbers_side_by_side_are_two():
    assert stems("two three") == [["#2", "#3"]]
    assert stems("twenty three") == [["#23"]]
    assert stems("twenty, three") == [["#20"], ["#3"]]


def test_a_no_that_answers_denies_nothing():
    assert not read("No, my drive is easy to remove").clauses[1].negators
    assert not read("no i did").clauses[0].negators
    assert read("I have no drive").clauses[0].negators


def test_what_is_quoted_is_not_said_of_oneself():
    assert stems('You could say, "I am a doctor."') == [["you", "could", "say"]]
    assert stems('A screen of 24" is large') == [
        ["a", "screen", "of", "#24"],
        ["be", stem_of("large")],
    ]


def test_what_is_asked_is_not_claimed():
    def asks(text):
        return [clause.asks for clause in read(text).clauses]

    assert asks("Do you, if I may ask? I do.") == [True, True, False]
    assert asks("I am from Ohio, and you?") == [False, True]


def test_long_clauses_are_cut():
    assert [len(c.words) for c in read("word " * (2 * LONGEST + 1)).clauses] == [LONGEST] * 2 + [1]


@given(st.text("aT1 .,?'\"\u2019\u201cn\u00df\u0130\n", max_size=60))
def test_spans_lie_in_the_text_and_go_forward(text):
    words = [word for clause in read(text).clauses for word in clause.words]
    assert all(0 <= word.start < word.end <= len(text) for word in words)
    assert all(a.start <= b.start for a, b in itertools.pairwise(words))
