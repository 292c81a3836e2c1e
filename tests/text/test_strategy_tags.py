from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.text.prompts import PLAIN, render, whole_text
from augesc_builder.text.strategy_tags import tagged, untagged, without_tags
from tests.text.test_prompts import CONTENT

NAME = st.text(st.characters(exclude_characters="[]\n"), min_size=1, max_size=40).filter(
    lambda name: name == name.strip() and "\n" not in name
)


@st.composite
def conversations(draw):
    """Give messages, and a strategy for some of the supporter's."""
    messages, strategies = [], []
    for _ in range(draw(st.integers(1, 6))):
        role = draw(st.sampled_from(["user", "assistant"]))
        message = {"role": role, "content": draw(CONTENT)}
        strategy = draw(st.none() | NAME) if role == "assistant" else None
        if strategy is None and role == "assistant" and untagged([message])[1] != [None]:
            continue  # looks tagged, and is refused
        messages.append(message)
        strategies.append(strategy)
    return messages, strategies


@given(conversations())
def test_untagged_is_the_inverse_of_tagged(conversation):
    messages, strategies = conversation
    assert untagged(tagged(messages, strategies)) == (messages, strategies)


@given(conversations(), CONTENT)
def test_a_continuation_loses_its_tags_and_keeps_its_messages(conversation, query):
    messages, strategies = conversation
    messages = [{"role": "assistant", "content": "Hm."}, *messages]
    with_tags = tagged(messages, ["Question", *strategies])
    asked = render([{"role": "user", "content": query}])
    text = render(with_tags).removeprefix("AI:")
    bare, found = without_tags(text)
    assert found == [None, "Question", *strategies]
    assert PLAIN.parse(f"{asked}\nAI:{bare}") == [{"role": "user", "content": query}, *messages]


@given(st.text())
def test_whatever_a_model_writes_has_a_strategy_a_message(text):
    bare, strategies = without_tags(text)
    messages = PLAIN.parse(whole_text("I am sad.", bare))
    if strategies is None:
        assert bare == text
        assert messages is None
    else:
        assert messages is not None
        assert len(messages) == len(strategies)


@pytest.mark.parametrize(
    ("messages", "strategies"),
    [
        ([{"role": "user", "content": "a"}], ["Question"]),
        ([{"role": "assistant", "content": "[a] b"}], [None]),
        ([{"role": "assistant", "content": "a"}], ["a]"]),
        ([{"role": "assistant", "content": "a"}], [" a"]),
        ([{"role": "assistant", "content": "a"}], [""]),
        ([{"role": "assistant", "content": "a"}], ["a", "b"]),
        ([{"role": "assistant", "content": "a"}], ["x" * 41]),
    ],
)
def test_what_would_not_come_back_is_refused(messages, strategies):
    with pytest.raises(ValueError, match=r"come back|zip\(\)"):
        tagged(messages, strategies)


def test_lines_that_only_look_like_tags_are_left():
    text = " [Question]\nHuman: [sighs] no\nAI: [laughs]well\nAI:[Others]  Hm."
    bare, strategies = without_tags(text)
    assert bare == " [Question]\nHuman: [sighs] no\nAI: [laughs]well\nAI:Hm."
    assert strategies == [None, None, None, None, "Others"]
    assert without_tags(" [Question] a\nand so on") == (" [Question] a\nand so on", None)
