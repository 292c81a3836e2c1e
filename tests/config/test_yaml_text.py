"""YAML that is valid, and yet not to be read as settings."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from augesc_builder.config import yaml_text
from augesc_builder.config.recipe import load_recipe
from augesc_builder.config.yaml_text import LimitError, load_yaml
from augesc_builder.errors import RecipeError

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{k}: &{k} [{','.join(['*' + chr(ord(k) - 1)] * 10)}]\n" for k in "bcdefghi"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "the key a stands in line 1 and again in line 3; remove one"),
        ("x:\n  a: 1\n  a: 1", "the key a stands in line 2 and again in line 3"),
        ("a: 1\n'a': 2", "the key a stands in line 1 and again in line 2"),
        ("9" * 5000, "a number of 5,000 characters in line 1"),
        ("x: 0x" + "f" * 5000, "a number of 5,002 characters in line 1"),
        ("[" * 5000, "nested too deep"),
        ("[" * 60 + "]" * 60, "more than 50 values in each other"),
        (LAUGHS, "more than 1,000,000 values"),
        ("&a [*a]", "the value in line 1 holds itself"),
        ("!!bool 3", "not what its tag says"),
        ("!!int ''", "not what its tag says"),
        ("!!timestamp x", "not what its tag says"),
        ('"\\uD800"', "half of a surrogate pair in line 1"),
    ],
)
def test_beyond_a_limit(text, says):
    with pytest.raises(LimitError, match=says):
        load_yaml(text)


def test_both_sides_of_the_limits():
    most = yaml_text._LONGEST_NUMBER
    assert load_yaml("9" * most) == int("9" * most)
    with pytest.raises(LimitError):
        load_yaml("9" * (most + 1))
    deepest = yaml_text._DEEPEST
    assert load_yaml("[" * deepest + "]" * deepest)
    with pytest.raises(LimitError):
        load_yaml("[" * (deepest + 2) + "]" * (deepest + 2))


def test_a_date_is_text():
    assert load_yaml("2020-13-45") == "2020-13-45"
    assert load_yaml("a: 2020-01-01") == {"a": "2020-01-01"}
    assert load_recipe("tiny", ["name=2020-13-45"]).name == "2020-13-45"


def test_what_is_shared_or_merged_is_no_repetition():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]"
    assert load_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": [{"x": 1, "y": 2}] * 2,
    }


@given(st.text(max_size=40) | st.text(alphabet="[]{}:,&*!?-#'\"|>%@`a1 \n\t<.", max_size=40))
@example("!!binary x")
@example("? [a]\n: 1")
@example("<<: 1")
def test_any_text_is_a_value_or_refused(text):
    with contextlib.suppress(yaml.YAMLError):
        load_yaml(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: [a]", r"extends: expected a name or a file, found \['a'\]"),
        ("extends: {a: b}", "extends: expected a name or a file"),
        ("extends: 3", "extends: expected a name or a file, found 3"),
        ('extends: "a\\0b"', "NUL character"),
        (f"extends: {'n' * 300}", "a name of 300 bytes"),
        ("extends: tiny\nseed: 1\nseed: 2", "line 2 and again in line 3"),
        ('extends: tiny\nfinetune: {sessions: "a\\0b"}', "finetune.sessions: .* NUL"),
        (f"extends: tiny\nfinetune: {{sessions: {'n' * 256}}}", "a name of 256 bytes"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_why(text, says, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"seed={'9' * 5000}", "a number of 5,000 characters"),
        (f"name={'[' * 3000}", "nested too deep"),
        ("generate.backend.type=[{}]", "generate.backend"),
        ("generate={a: 1, a: 2}", "the key a stands in line 1 and again in line 1"),
    ],
)
def test_an_override_that_cannot_be_read_says_why(override, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe("tiny", [override])
