"""Both sides of every threshold, with the paper's recipe."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.config.recipe import make_recipe
from augesc_builder.pipeline.filter.functions import measure
from augesc_builder.pipeline.filter.requirements import active, decide

QUERY = " ".join(["pain"] * 12)


def violations_of(recipe, text, *, query=QUERY, n_prompt_tokens=100, n_tokens=400):
    batch = {
        "query": [query],
        "text": [text],
        "n_prompt_tokens": [n_prompt_tokens],
        "n_tokens": [n_tokens],
    }
    measured = measure(batch, recipe.requirements)
    return decide(measured, recipe.requirements.settings())["violations"][0]


def text_of(roles, lengths=None):
    """Write the continuation of ``Human: QUERY`` + ``AI:`` with so many words an utterance."""
    assert roles[0] == "AI"
    lines = [
        f"{role}: " + " ".join(["word"] * n)
        for role, n in zip(roles, lengths or [12] * len(roles), strict=True)
    ]
    return "\n".join(lines).removeprefix("AI:")


def alternating(n):
    """Give the roles behind the query for ``n`` utterances in all."""
    return list(islice(cycle(["AI", "Human"]), n - 1))


def changed(recipe, **sections):
    settings = recipe.settings()
    settings["requirements"] = {**settings["requirements"], **sections}
    return make_recipe(settings)


def test_what_is_measured_of_one_conversation(paper):
    text = "AI: one two three\nAI: four\nHuman: five six\nAI: AI, Human and AI-made"
    batch = {"query": ["a b c d"], "text": [text.removeprefix("AI:")]}
    tokens = {"n_prompt_tokens": [7], "n_tokens": [30]}
    measured = {
        name: values[0] for name, values in measure({**batch, **tokens}, paper.requirements).items()
    }
    assert measured == {
        "total_tokens": 37,
        "n_utterances": 5,
        "longest_run": 2,
        "utterance_ratio": 3 / 2,
        "n_role_words": 3,
        "seeker_words": [4, 2],
        "supporter_words": [3, 1, 5],
        "seeker_mean_words": 3.0,
        "supporter_mean_words": 3.0,
    }


def test_who_says_nothing_has_no_mean(paper):
    batch = {"query": ["a b"], "text": ["\nHuman: c"], "n_prompt_tokens": [1], "n_tokens": [None]}
    measured = {name: values[0] for name, values in measure(batch, paper.requirements).items()}
    assert measured["seeker_mean_words"] == 1.5
    assert measured["supporter_mean_words"] is None
    assert measured["utterance_ratio"] is None
    assert measured["total_tokens"] is None


def test_the_requirements_are_the_papers_in_its_order(paper):
    assert [requirement.name for requirement in active(paper.requirements)] == [
        "format",
        "session_length",
        "total_utterances",
        "continuous_utterances",
        "balanced_utterances",
        "role_words",
        "seeker_utterance_length",
        "supporter_utterance_length",
    ]
    assert violations_of(paper, text_of(alternating(20))) == []


def test_format_and_session_length_alone_judge_what_cannot_be_parsed(paper):
    broken = text_of(alternating(20)) + "\nBob: hello"
    assert violations_of(paper, broken) == ["format"]
    assert violations_of(paper, broken, n_tokens=9000) == ["format", "session_length"]
    assert violations_of(paper, " yes\nno role here AI Human") == ["format"]


@pytest.mark.parametrize(("n", "bad"), [(1349, False), (1350, False), (1351, True)])
def test_session_length_counts_prompt_and_text(paper, n, bad):
    found = violations_of(paper, text_of(alternating(20)), n_prompt_tokens=100, n_tokens=n)
    assert found == (["session_length"] if bad else [])


@pytest.mark.parametrize(("n", "bad"), [(9, True), (10, False), (50, False), (51, True)])
def test_total_utterances_count_the_query(paper, n, bad):
    assert violations_of(paper, text_of(alternating(n))) == (["total_utterances"] if bad else [])


@pytest.mark.parametrize(("run", "bad"), [(3, False), (4, True)])
@pytest.mark.parametrize("role", ["AI", "Human"])
def test_continuous_utterances(paper, role, run, bad):
    roles = ["AI", "Human", "AI", "Human", *["AI", "Human"] * 4]
    at = 3 if role == "Human" else 4
    roles[at : at + 1] = [role] * run
    assert violations_of(paper, text_of(roles)) == (["continuous_utterances"] if bad else [])


def test_the_query_begins_the_first_run(paper):
    roles = ["AI", "Human", "AI", "Human", "AI", "Human", "AI", "Human", "AI", "Human", "AI"]
    opening = text_of(roles)
    # "AI:" without words is no utterance, so these stand right behind the query.
    two = "\nHuman: " + " ".join(["word"] * 12)
    assert violations_of(paper, two * 2 + "\nAI:" + opening) == []
    assert violations_of(paper, two * 3 + "\nAI:" + opening) == ["continuous_utterances"]


@pytest.mark.parametrize(
    ("n_seeker", "n_supporter", "bad"),
    [(10, 4, False), (11, 4, True), (4, 10, False), (4, 11, True), (5, 12, False), (5, 13, True)],
)
def test_balanced_utterances(paper, n_seeker, n_supporter, bad):
    recipe = changed(paper, continuous_utterances={"max": 99})
    roles = ["AI"] * n_supporter + ["Human"] * (n_seeker - 1)
    assert violations_of(recipe, text_of(roles)) == (["balanced_utterances"] if bad else [])


def test_one_speaker_alone_is_not_balanced(paper):
    recipe = changed(paper, continuous_utterances={"max": 99})
    text = "\n" + "\n".join(["Human: " + " ".join(["word"] * 12)] * 11)
    assert violations_of(recipe, text) == ["balanced_utterances", "supporter_utterance_length"]


@pytest.mark.parametrize(
    ("words", "bad"),
    [
        ("AI", True),
        ("Human", True),
        ("AI-made", True),
        ("Human.", True),
        ("Humans", False),
        ("human", False),
        ("ai", False),
        ("AIM", False),
        ("SAID", False),
        ("Human_kind", False),
    ],
)
@pytest.mark.parametrize("place", [1, 2])
def test_role_words(paper, words, bad, place):
    lines = text_of(alternating(20)).split("\n")
    lines[place] += f" {words} said so"
    assert violations_of(paper, "\n".join(lines)) == (["role_words"] if bad else [])


def test_a_role_word_in_the_query_counts(paper):
    assert violations_of(paper, text_of(alternating(20)), query=f"{QUERY} AI") == ["role_words"]


def lengths_for(role, others, own):
    """Give roles and lengths of 2 x len(own) utterances where ``role`` has the lengths ``own``."""
    roles = alternating(2 * len(own))
    mine = iter(own if role == "AI" else own[1:])
    return roles, [next(mine) if r == role else others for r in roles]


@pytest.mark.parametrize(
    ("role", "name", "short"),
    [("Human", "seeker_utterance_length", 7), ("AI", "supporter_utterance_length", 9)],
)
class TestUtteranceLength:
    def check(self, recipe, role, own):
        query = " ".join(["pain"] * own[0]) if role == "Human" else QUERY
        return violations_of(recipe, text_of(*lengths_for(role, 12, own)), query=query)

    def test_mean_at_its_lower_bound(self, paper, role, name, short):
        assert self.check(paper, role, [short] * 8) == []
        assert self.check(paper, role, [short] * 7 + [short - 1]) == [name]

    def test_mean_at_its_upper_bound(self, paper, role, name, short):
        assert self.check(paper, role, [50] * 8) == []
        assert self.check(paper, role, [50] * 7 + [51]) == [name]

    def test_share_of_short_utterances(self, paper, role, name, short):
        assert self.check(paper, role, [20] * 6 + [short - 1] * 2) == []
        assert self.check(paper, role, [20] * 5 + [short - 1] * 3) == [name]
        assert self.check(paper, role, [20] * 5 + [short] * 3) == []

    def test_longest_utterance(self, paper, role, name, short):
        assert self.check(paper, role, [20] * 7 + [100]) == []
        assert self.check(paper, role, [20] * 7 + [101]) == [name]


def test_thresholds_are_the_recipes(paper):
    assert (
        violations_of(changed(paper, session_length={"max": 500}), text_of(alternating(20))) == []
    )
    assert violations_of(changed(paper, session_length={"max": 499}), text_of(alternating(20))) == [
        "session_length"
    ]


def test_a_share_that_binary_fractions_miss_is_still_exact(paper):
    limits = paper.settings()["requirements"]["seeker_utterance_length"]
    recipe = changed(paper, seeker_utterance_length={**limits, "max_short_share": 0.3})
    query = " ".join(["pain"] * 20)
    texts = text_of(*lengths_for("Human", 12, [20] * 7 + [6] * 3))
    assert violations_of(recipe, texts, query=query) == []


def test_several_violations_are_all_named(paper):
    assert violations_of(paper, " no", n_tokens=2000) == [
        "session_length",
        "total_utterances",
        "supporter_utterance_length",
    ]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_any_text_is_judged(texts):
    from augesc_builder.config.recipe import load_recipe

    recipe = load_recipe("paper")
    batch = {
        "query": [QUERY] * len(texts),
        "text": texts,
        "n_prompt_tokens": [100] * len(texts),
        "n_tokens": [5] * len(texts),
    }
    judged = decide(measure(batch, recipe.requirements), recipe.requirements.settings())
    assert len(judged["violations"]) == len(texts)
    for one, text in zip(judged["violations"], texts, strict=True):
        assert one == violations_of(recipe, text, n_tokens=5)  # neighbours change nothing
