"""What is said again with something else in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.consistency.measure import THRESHOLD, Consistency
from tests.metrics.consistency.said import by_seeker, kinds


def surest(*texts):
    return Consistency().score([by_seeker(*texts)])[0].session["contradiction"]


COPY = "Well, I work in a pipe factory and it pays well."


@pytest.mark.parametrize(
    ("kind", "before", "again"),
    [
        ("negation", COPY, "Well, I do not work in a pipe factory and it pays well."),
        ("negation", COPY, "Well, I work in a pipe factory and it never pays well."),
        ("negation", "That sounds fine to me.", "That doesn't sound fine to me."),
        ("place", "hello, i am from ohio, how are you?", "hello, i am from texas, how are you?"),
        ("name", "hey, my name is debra, who are you?", "hey, my name is anne, who are you?"),
    ],
)
def test_a_copy_with_a_change_is_named(kind, before, again):
    assert kind in kinds(before, again)


@pytest.mark.parametrize(
    ("kind", "before", "again"),
    [
        ("number", "It took 3 weeks to pack the boxes.", "It took five weeks to pack the boxes."),
        ("gender", "I asked her whether she had seen it.", "I asked him whether she had seen it."),
        ("name", "Yesterday I met Anna at the river.", "Yesterday I met Robert at the river."),
        ("time", "My rent is due to be paid tomorrow.", "My rent is due to be paid on Friday."),
        ("opposite", "My old boss is always friendly.", "My old boss is never friendly."),
    ],
)  # fmt: skip
def test_an_exchange_is_named(kind, before, again):
    found = kinds(before, again)
    assert kind in found or (kind == "opposite" and "negation" in found)


def test_the_same_again_is_no_clash():
    assert surest(COPY, COPY) == 0
    assert surest(COPY, "Well, I worked in pipe factories and it paid well.") == 0
    assert surest("I don't know.", "I do not know.") == 0


def test_a_change_that_no_rule_knows_is_more_than_nothing_and_does_not_count():
    before = "Good morning, how are you today?"
    assert surest(before, "Good morning, how are you today?") == 0
    assert 0 < surest(before, "Good morning, how are you thirty years ago?") < THRESHOLD
    # Half of the words, and fewer: something else is said.
    assert surest(before, "How are you, did the long trip to your aunt go well?") == 0
    # Words that say nothing of what is told may come and go.
    assert surest("I went to the park and fed ducks.", "I just went to a park and fed ducks.") == 0


def test_a_copy_of_three_words_is_compared_by_their_stems():
    assert surest("Oh, breaktime flies.", "Oh, breaktime does not fly.") > 0


def test_what_says_little_is_below_the_threshold():
    assert 0 < surest("I know.", "I don't know.") < THRESHOLD
    assert surest("I know the way to the river.", "I don't know the way to the river.") > THRESHOLD


def test_more_that_is_kept_is_surer():
    less = surest("Oh, I love that river.", "Now then, I never loved that river in spring.")
    more = surest("I love that river in spring.", "I never loved that river in spring.")
    assert less < more <= 1


def test_four_words_are_not_said_twice_by_chance():
    four = surest("Rex was very old.", "Rex was not very old.")
    three = surest("Rex was old.", "Rex was not old.")
    assert three < 0.6 < four - 0.2


def test_no_more_than_four_words_are_put_in_place_of_others():
    around = "Well, every other day we walk down to {} in Leeds."
    four = surest(around.format("the old red barn"), around.format("a big new shop"))
    five = surest(around.format("the very old red barn"), around.format("a quite big new shop"))
    alone = Consistency().score([by_seeker(around.format("a big new shop"))])[0]
    assert alone.session["contradiction"] == 0
    assert 0 < five < four


NOUNS = ["river", "dog", "teacher", "paint", "garden", "green", "walk"]


@given(st.lists(st.sampled_from(NOUNS), min_size=4))
def test_a_negation_alone_is_enough_in_a_long_copy(words):
    text = " ".join(words[:30])
    assert surest(f"I like {text}.", f"I like {text}.") == 0
    assert surest(f"I like {text}.", f"I do not like {text}.") >= THRESHOLD
