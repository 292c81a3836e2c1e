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
