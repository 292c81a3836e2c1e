from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.text.prompts import PromptTemplate, collapse, parse, render

CONTENT = st.text(st.characters(exclude_characters="\n"), min_size=1).map(str.strip).filter(bool)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": CONTENT})
)


@given(MESSAGES)
def test_parse_is_the_inverse_of_render(messages):
    assert parse(render(messages)) == messages


@given(MESSAGES, st.none() | CONTENT, st.sampled_from(["", "Be kind.", "Be kind.\nAnd calm."]))
def test_a_background_comes_back_with_its_conversation(messages, background, instruction):
    template = PromptTemplate(instruction, background=True)
    text = template.for_session(messages, background)
    assert template.parse_background(text) == background
    assert template.parse(text) == messages
    assert text.startswith(template.opening(background))


def test_the_steps_of_a_grounded_conversation():
    template = PromptTemplate("Be kind.", background=True)
    asked = "Be kind.\nHuman: I lost my job.\nBackground:"
    assert template.for_background("I lost my job.") == asked
    assert template.for_background("I lost my job.", "I am a cook.") == f"{asked} I am a cook."
    assert template.for_query("I lost my job.", "I was a cook.") == (
        "Be kind.\nBackground: I was a cook.\nHuman: I lost my job.\nAI:"
    )
    assert template.for_query("I lost my job.") == PromptTemplate("Be kind.").for_query(
        "I lost my job."
    )


@pytest.mark.parametrize("background", ["", " a", "a\nb", "a "])
def test_a_background_that_would_not_come_back_is_refused(background):
    with pytest.raises(ValueError, match="trimmed text"):
        PromptTemplate(background=True).opening(background)
    with pytest.raises(ValueError, match="no background"):
        PromptTemplate().opening("a")


def test_a_line_of_background_is_no_utterance():
    for template in (PromptTemplate("Be kind."), PromptTemplate("Be kind.", background=True)):
        assert template.parse("Be kind.\nHuman: a\nBackground: b\nAI: c") is None
    text = "Be kind.\nBackground: b\nHuman: a"
    assert PromptTemplate("Be kind.").parse(text) is None
    assert PromptTemplate("Be kind.").parse_background(text) is None
    assert PromptTemplate("Be kind.", background=True).parse(text.replace(" b", " ")) is None


@given(st.text())
def test_collapsed_text_can_be_rendered(text):
    if collapse(text):
        assert parse(render([{"role": "user", "content": collapse(text)}])) == [
            {"role": "user", "content": collapse(text)}
        ]


@given(st.text())
def test_whatever_parses_renders_to_the_same_messages(text):
    messages = parse(text)
    if messages is not None:
        assert parse(render(messages)) == messages


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], ""),
        ([{"role": "user", "content": "Human: hi"}], "Human: Human: hi"),
        (
            [
                {"role": "user", "content": "...well"},
                {"role": "assistant", "content": "I see."},
                {"role": "assistant", "content": "Go on: please"},
            ],
            "Human: ...well\nAI: I see.\nAI: Go on: please",
        ),
    ],
)
def test_lines_as_in_figure_2(messages, text):
    assert render(messages) == text
    assert parse(text) == messages


@pytest.mark.parametrize("content", ["", " x", "x ", "a\nb", "\u3000x"])
def test_render_refuses_what_would_not_come_back(content):
    with pytest.raises(ValueError, match="collapse"):
        render([{"role": "user", "content": content}])


def test_the_generation_prompt_ends_with_the_supporters_cue():
    prompt = PromptTemplate("Be kind.").for_query("I lost my job today.")
    assert prompt == "Be kind.\nHuman: I lost my job today.\nAI:"


@pytest.mark.parametrize(
    "line",
    [
        "- Human: yes",
        ' "Human: yes',
        "\t*** Human: yes",
        "「Human: yes",
        ">> Human:yes",
        "¿Human: yes",
    ],
)
def test_punctuation_and_white_space_before_a_role_are_ignored(line):
    assert parse(line) == [{"role": "user", "content": "yes"}]


@pytest.mark.parametrize(
    "line",
    ["human: yes", "Humans: yes", "Human yes", "1. Human: yes", "...", "€ AI: yes", "Bob: hi"],
)
def test_a_line_without_a_role_breaks_the_format(line):
    assert parse(f"Human: a\n{line}\nAI: b") is None


def test_blank_lines_and_roles_without_words_are_skipped():
    assert parse("\n  \nHuman: a\n\nAI:\nAI: b\nHuman:  ") == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
