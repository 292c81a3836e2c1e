"""What one says in the role of the other."""

from __future__ import annotations

import pytest

from tests.metrics.consistency.said import findings, session


@pytest.mark.parametrize(
    "text",
    [
        "How are you feeling about it? I'm here for you.",
        "I'm so sorry to hear that.",
        "That must be very hard for you.",
        "How can I help you?",
        "I would suggest that you rest.",
        "You are not alone.",
    ],
)
def test_a_seeker_who_supports(text):
    found = findings(session("Hello.", "Hello.", text))
    assert {f.kind for f in found} == {"seeker supports"}
    assert not findings(session("Hello.", text))


@pytest.mark.parametrize(
    "text",
    [
        "Can you help me?",
        "I really need your help.",
        "What should I do?",
        "I just don't know what to do.",
        "Thank you so much for your advice.",
        "I feel hopeless.",
    ],
)
def test_a_supporter_who_asks_for_help(text):
    found = findings(session("Hello.", text))
    assert {f.kind for f in found} == {"supporter asks"}
    assert not findings(session(text))


@pytest.mark.parametrize(
    "text",
    [
        "If you need help, call me.",
        "It is what I do when I need help.",
        "How can I help you?",
        "Can you help me understand that?",
        'You could say, "I need your help."',
        "Do you know what to do?",
    ],
)
def test_a_supporter_in_their_role(text):
    assert not findings(session("Hello.", text))


def test_a_supporter_who_tells_the_story_of_the_seeker():
    seeker = "It is sad. My husband lost his job last week."
    [found] = findings(session(seeker, "My husband lost his job last week. So sad!"))
    assert (found.kind, found.utterance, found.other) == ("story taken over", 1, 0)
    assert seeker[found.other_start : found.other_end] == "My husband lost his job last week"
    assert not findings(session(seeker, "Your husband lost his job last week?"))
    assert not findings(session("Hi.", "My husband lost his job last week."))
    assert not findings(session("I am.", "I am."))


def test_spans_are_those_of_the_words():
    text = "Oh no \u2014 I\u2019m so sorry to hear that, friend"
    [found] = findings(session(text))
    assert text[found.start : found.end] == "I\u2019m so sorry to hear"
