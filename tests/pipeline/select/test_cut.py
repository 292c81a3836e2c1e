"""A session ends where its topic changes, if what stands before is a session still."""

from __future__ import annotations

import pytest

from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.select.cut import cut
from augesc_builder.text.prompts import PromptTemplate

TEMPLATE = PromptTemplate("Be kind.", background=True)


class Letters:
    """Counts letters in the place of tokens."""

    def count(self, texts):
        return [len(text) for text in texts]


@pytest.fixture(scope="module")
def limits():
    low = "{mean: {min: 0, max: 99}, short: 1, max_short_share: 1, max: 99}"
    given = ["total_utterances={min: 4, max: 8}", "session_length.max=82"]
    given += [f"{role}_utterance_length={low}" for role in ("seeker", "supporter")]
    return load_recipe("tiny", [f"requirements.{one}" for one in given]).requirements


def make(n):
    roles = ("user", "assistant")
    return {
        "session_id": "q-0",
        "messages": [{"role": roles[i % 2], "content": f"word {i}"} for i in range(n)],
        "n_tokens": 99,
        "background": None,
        "strategies": [None, "Question"] * (n // 2),
        "safety_flags": [{"flag": "x", "utterance": i, "start": 0, "end": 1} for i in (1, 4)],
    }


def test_what_stands_before_is_kept_with_its_own_tokens_and_flags(limits):
    session = make(6)
    found = cut(session, 4, limits, Letters(), TEMPLATE)
    assert found["messages"] == session["messages"][:4]
    assert found["n_tokens"] == len(TEMPLATE.for_session(session["messages"][:4]))
    assert [flag["utterance"] for flag in found["safety_flags"]] == [1]
    assert found["strategies"] == [None, "Question"] * 2
    assert found["session_id"] == "q-0"
    told = cut({**session, "background": "I am ill."}, 4, limits, Letters(), TEMPLATE)
    assert told["n_tokens"] == found["n_tokens"] + len("Background: I am ill.\n")
    assert len(session["messages"]) == 6
    assert cut(session, 4, limits, None, TEMPLATE)["n_tokens"] is None
    assert cut({**session, "safety_flags": None}, 4, limits, None, TEMPLATE)["safety_flags"] is None


@pytest.mark.parametrize("at", [0, 1, 3])
def test_what_would_fail_a_requirement_is_left_whole(limits, at):
    assert cut(make(6), at, limits, None, TEMPLATE) is None


def test_tokens_are_a_requirement_too(limits):
    # With the instruction, 58 of four utterances, and 83 of six.
    assert cut(make(8), 4, limits, Letters(), TEMPLATE) is not None
    assert cut(make(8), 6, limits, Letters(), TEMPLATE) is None
    assert cut(make(8), 6, limits, None, TEMPLATE) is not None
