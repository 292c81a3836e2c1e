"""Typed facts that cannot both be so, and those that can."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.consistency.vocabulary import TENS, UNITS
from tests.metrics.consistency.said import by_seeker, findings, kinds, session


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("age", "My dog is 14 years old.", "You know, my dog is thirteen."),
        ("age", "I'm 45.", "Look, I am 54 years old and tired."),
        ("age", "My 6-year-old son cries a lot.", "It hurts that my son is 9 years old now."),
        ("duration", "We have been married for ten years.", "So we have been married for 2 years."),
        ("duration", "He died 2 years ago.", "It still hurts, he died six months ago."),
        ("count", "I have two kids at home.", "It is hard to feed my 3 kids."),
        ("kinship", "I am an only child.", "Yesterday my sister called."),
        ("kinship", "My husband shouts.", "I have never been married."),
        ("kinship", "I don't have any kids.", "My daughter is ill today."),
        ("kinship", "My husband never talks.", "Yesterday my wife shouted."),
        ("life", "My father died last year.", "Each day my father calls me."),
        ("name", "Thank you, David.", "Well, thank you, Robert."),
        ("negation", "I am a librarian.", "Look, I'm not a librarian."),
        ("negation", "I have a beard.", "He laughs as I don't have a beard."),
        ("name", "My name is Lauren.", "People call, and my name is Debra."),
        ("gender", "I'm a good man.", "She says I am a bad girl."),
        ("gender", "I told my husband about it.", "Then she laughed at me."),
        ("work", "I'm a plumber.", "It is hard as I am a doctor."),
        ("place", "I live in Ohio.", "Nice weather, I live in Texas."),
        ("negation", "I love horror movies.", "To be fair, I hate movies of horror."),
        ("negation", "I eat pork sometimes.", "Well, I have never eaten pork."),
        ("negation", "I took the medicine.", "You see, I did not take any medicine."),
    ],
)  # fmt: skip
def test_a_clash_is_named(kind, before, after):
    assert kind in kinds(before, after)
    one_way = before.startswith("I told my husband") or kind == "life"
    assert one_way or kind in kinds(after, before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("My dog is 14 years old.", "You know, my dog is fourteen."),
        ("My dog is 14 years old.", "You know, my cat is 13 years old."),
        ("I am 30 minutes late.", "I am 45 years old."),
        ("We have been married for a year.", "We have been married for twelve months."),
        ("We have been married for 12 months.", "So we have been married for one year."),
        ("He died 2 years ago.", "She died 3 years ago."),
        ("I have two kids.", "I have three dogs."),
        ("I have two questions.", "I have three questions for you."),
        ("I don't have kids yet.", "If I have kids, I will be happy."),
        ("I don't have any kids.", "My sister called."),
        ("I have no girlfriend.", "My ex girlfriend called."),
        ("I told my husband about it.", "Then he laughed at me."),
        ("I told my husband and my teacher.", "Then she laughed at me."),
        ("I told my husband and Anna.", "Then she laughed at me."),
        ("Each day my father calls me.", "My father died last year."),
        ("My father's dog died.", "Each day my father calls me."),
        ("My husband shouts.", "My spouse shouts."),
        ("I don't have kids.", "I have a friend who has kids."),
        ("Hello, hello.", "Hi Bob."),
        ("I live in Ohio.", "I live in a small house."),
        ("I love horror movies.", "I hate cold soup."),
        ("I love movies.", "Do I hate movies?"),
        ("I love movies.", 'He said, "I hate movies."'),
        ("I love movies.", "I would hate movies if they were long."),
        ("I took the medicine.", "I do not take medicine."),
    ],
)
def test_what_can_both_be_so_is_no_clash(before, after):
    assert kinds(before, after) == []


def test_only_what_one_speaker_says_clashes():
    assert findings(session("I have two kids.", "I have three kids.")) == ()
    found = findings(session("Hi.", "I have two kids.", "Oh?", "I have three kids."))
    assert [(f.utterance, f.other) for f in found if f.kind == "count"] == [(3, 1)]


def test_a_clash_keeps_both_spans_and_says_why():
    before, after = "My old dog barks. My dog is 14.", "Poor thing: my dog is 13."
    [found] = findings(by_seeker(before, after))
    assert after[found.start : found.end] == "my dog is 13"
    assert before[found.other_start : found.other_end] == "My dog is 14"
    assert found.reason == 'age: "my dog is 13", and before "my dog is 14"'


def in_words(number):
    if number < 20:
        return next(word for word, value in UNITS.items() if value == number)
    ten = next(word for word, value in TENS.items() if value == number // 10 * 10)
    return f"{ten}-{in_words(number % 10)}" if number % 10 else ten


@given(st.integers(1, 99), st.integers(1, 99))
def test_numbers_clash_where_they_differ_however_they_are_spelled(one, other):
    text = "Now my dog is {} years old."
    written = kinds(text.format(one), text.format(in_words(other)))
    assert bool(written) == (one != other)
