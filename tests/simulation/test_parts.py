"""Role cards, what models are told, what is taken of what they write, and the numbers."""

from __future__ import annotations

import asyncio
import itertools
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from augesc_builder.errors import InputError, RecipeError
from augesc_builder.metrics.scored import Scored
from augesc_builder.simulation.cards import UNKNOWN, Card, read_cards
from augesc_builder.simulation.measure import TALK, differences, estimates, numbers_of
from augesc_builder.simulation.parties import LocalSpeaker, legible
from augesc_builder.simulation.roles import SeekerRole, own_words
from augesc_builder.simulation.settings import (
    Cards,
    given_seeker,
    given_systems,
    load_simulation,
)
from augesc_builder.simulation.talk import Dialog, talk_about_all

PARTIES = ("seeker.folder=x", "systems={a: {folder: y}}")


def cards_of(path, limit=None, seed=1):
    where = Cards(path=str(path), esconv_folder=None, esconv_revision="main", limit=limit)
    return read_cards(where, seed)


def write(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


# -- cards ----------------------------------------------------------------------------------------


def test_cards_are_read_of_esconvs_form_and_of_plain_lines(tmp_path):
    path = write(
        tmp_path / "cards.jsonl",
        {"situation": " I lost\n my job ", "problem_type": "Job crisis", "emotion_type": "Fear"},
        {"card_id": "mine", "situation": "Nobody calls."},
    )
    assert cards_of(path) == [
        Card("cards-1", "I lost my job", "job crisis", "fear"),
        Card("mine", "Nobody calls."),
    ]
    bundled = cards_of("sample:test")
    assert len(bundled) == 13
    assert all(card.situation and card.emotion and card.problem_type for card in bundled)
    assert not {c.card_id for c in bundled} & {c.card_id for c in cards_of("sample:train")}


def test_a_limit_draws_by_the_seed_and_keeps_the_order():
    every = cards_of("sample:test")
    drawn = cards_of("sample:test", limit=5)
    assert drawn == [card for card in every if card in drawn]
    assert len(drawn) == 5
    assert cards_of("sample:test", limit=5) == drawn
    assert any(cards_of("sample:test", limit=5, seed=n) != drawn for n in range(2, 6))
    assert cards_of("sample:test", limit=99) == every


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"problem_type": "x"}, "a role card without a situation; give 'situation' a text"),
        ({"situation": " \n "}, "a role card without a situation"),
        ({"situation": 3}, "'situation' must be a text"),
        ({"situation": "x", "card_id": 7}, "'card_id' must be a text"),
        ([1], "expected an object with a situation"),
    ],
)
def test_cards_that_are_none_are_told_with_file_and_line(value, said, tmp_path, refused):
    path = write(tmp_path / "cards.jsonl", {"situation": "fine"}, value)
    with pytest.raises(InputError) as error:
        cards_of(path)
    assert error.value.line == 2
    assert said in str(error.value)
    line = refused(
        *("simulate", "--seeker", "x", "--system", "a=y", "--cards", path),
        *("--out", tmp_path / "out"),
    )
    assert f"{path}, line 2: " in line
    assert not (tmp_path / "out").exists()


def test_two_cards_of_one_name_and_none_at_all(tmp_path):
    one = {"situation": "x", "card_id": "a"}
    with pytest.raises(InputError, match="two cards are called 'a'"):
        cards_of(write(tmp_path / "two.jsonl", one, one))
    with pytest.raises(InputError, match="no role card"):
        cards_of(write(tmp_path / "none.jsonl"))


words = st.text(st.sampled_from("{}ab situation_emotion problem_type"), max_size=60)


@given(words, words, words)
def test_a_cards_words_are_text_wherever_they_stand(situation, emotion, problem):
    card = Card("c", situation, problem or None, emotion or None)
    filled = card.fill("1 {situation} 2 {emotion} 3 {problem_type} 4 {other}")
    assert filled == f"1 {situation} 2 {emotion or UNKNOWN} 3 {problem or UNKNOWN} 4 {{other}}"


# -- what is told, and what is taken --------------------------------------------------------------


class Template(LocalSpeaker):
    """A speaker with a template alone."""

    def __init__(self, takes_system):
        self._takes = takes_system

    takes_system = property(lambda self: self._takes)


def role(takes_system):
    settings = load_simulation("simulation", PARTIES).seeker
    made = SeekerRole.__new__(SeekerRole)
    made._speaker, made._settings = Template(takes_system), settings
    made.is_told, made._takes_system = True, takes_system
    return made


@pytest.mark.parametrize("takes_system", [True, False])
def test_a_seeker_is_told_of_the_card_first_and_speaks_as_the_assistant(takes_system):
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    told = role(takes_system).told(Card("c", "The cat is gone."), history)
    assert "The cat is gone." in told[0]["content"]
    assert told[-2:] == [
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "hello"},
    ]
    roles = [message["role"] for message in told]
    assert roles == ["system", "user", "assistant", "user"][0 if takes_system else 1 :]


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("I am sad.", "I am sad."),
        ("Seeker: I am sad.", "I am sad."),
        ('"I am sad."', "I am sad."),
        ("I am sad. Supporter: I hear you. Seeker: Yes", "I am sad."),
        ("**Me:** I am sad.", "I am sad."),
        ("I asked my therapist, and she left.", "I asked my therapist, and she left."),
        ('He said "no" and "never"', 'He said "no" and "never"'),
        ("Supporter: I hear you.", ""),
        ("", ""),
    ],
)
def test_what_a_model_writes_for_the_other_side_is_not_the_seekers(text, own):
    assert own_words(text) == own
    assert own_words(own) == own


@given(st.text(max_size=80))
@example("0 \x00 0")
def test_what_is_legible_is_a_line_of_text_that_shows(text):
    found = legible(text)
    assert found == legible(found)
    assert "\n" not in found
    found.encode()


# -- parties --------------------------------------------------------------------------------------


def test_parties_are_folders_or_addresses():
    assert given_seeker("models/x") == ['seeker.folder="models/x"']
    assert given_systems(["a=m", "b=http://h:1/v1#n/m"]) == [
        'systems.a.folder="m"',
        'systems.b.base_url="http://h:1/v1"',
        'systems.b.model="n/m"',
    ]
    for wrong in (["m"], ["=m"], ["a="], ["a.b=m"], ["a=http://h/v1"], ["a=m", "a=n"]):
        with pytest.raises(RecipeError, match="--system"):
            given_systems(wrong)
    with pytest.raises(RecipeError, match="--seeker"):
        given_seeker("http://h:1/v1")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeker.folder=null", "expected either folder or base_url"),
        ("seeker.base_url=http://h/v1", "expected either folder or base_url"),
        ("systems={}", "at least 1 item"),
        ("systems={a/b: {folder: x}}", "systems.a/b"),
        ("systems.a.model=m", "both base_url and model"),
        ("seeker.prompt=Play.", "expected {situation}"),
        ("turns=0", "greater than or equal to 1"),
        ("turn=3", "did you mean turns?"),
        ("endpoints.extra_body={seed: 1}", "unused"),
    ],
)
def test_settings_that_cannot_be(override, said):
    more = ["systems.b={base_url: 'http://h/v1', model: m}"] if said == "unused" else []
    said = "extra_body holds seed" if said == "unused" else said
    with pytest.raises(RecipeError) as error:
        load_simulation("simulation", [*PARTIES, *more, override])
    assert said in str(error.value)


def test_the_shipped_settings_have_a_comment_on_every_key():
    from augesc_builder.simulation import settings

    text = (settings._LOADER.folder / "simulation.yaml").read_text()
    shipped = load_simulation("simulation", PARTIES)
    assert shipped.turns == 8  # as the paper's people at least (section 7.2)
    assert shipped.quality.measures == ["consistency", "topic_drift", "informativeness"]
    for key in (*shipped.model_dump(), *shipped.replies.model_dump(), "concurrency", "first_words"):
        assert f"{key}:" in text
    assert load_simulation("simulation", PARTIES).fixed()["seeker"].keys() >= {"prompt", "folder"}


# -- numbers --------------------------------------------------------------------------------------


class Counting:
    """A measure of nothing but letters."""

    name = "letters"

    def settings(self):
        return {}

    def score(self, sessions):
        return [
            Scored((None,) * len(s), {"n": float(sum(len(m["content"]) for m in s)), "none": None})
            for s in sessions
        ]


def dialog(card, *texts, ended="turns"):
    roles = itertools.cycle(("user", "assistant"))
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return Dialog(Card(card, "x"), "s", said, ended)


def test_numbers_of_a_conversation():
    dialogs = [
        dialog("a", "I am sad", "Tell me more.", "bye now", ended="seeker"),
        dialog("b", "I am very sad", "Tell me more.", "ok", "I see."),
        dialog("c"),
    ]
    found = numbers_of(dialogs, [Counting()], 2)
    talk = [{name: v for (m, name), v in one.items() if m == TALK} for one in found]
    assert talk[0] == {
        **{"replies": 1, "seeker_words": 2.5, "supporter_words": 4, "repeated_replies": 1},
        **{"ended_by_seeker": 1, "danger": 0, "flagged_reply": 0},
    }
    assert talk[1]["repeated_replies"] == 0.5
    assert found[0]["letters", "n"] == 28
    assert found[0]["letters", "none"] is None
    assert found[2] == {}


def test_estimates_and_differences_are_of_the_cards_that_both_have():
    of = (TALK, "x")
    first = [{of: 1.0}, {of: 2.0}, {of: None}, {of: 5.0}, {}]
    second = [{of: 4.0}, {of: 4.0}, {of: 9.0}, {of: None}, {of: 1.0}]
    assert estimates(first, 200, 1)[of]["mean"] == pytest.approx(8 / 3)
    assert estimates(first, 200, 1)[of]["cards"] == 3
    test = differences({"a": first, "b": second}, 200, 1)["b"][of]
    assert test["difference"] == pytest.approx(2.5)
    assert test["cards"] == 2
    assert 2 <= test["low"] <= test["high"] <= 3


def test_a_difference_that_is_there_is_found_and_one_that_is_not_is_not():
    rng = np.random.default_rng(1)
    base = rng.normal(size=60)
    of = (TALK, "x")
    first = [{of: float(x)} for x in base]
    better = [{of: float(x)} for x in base + rng.normal(0.5, 0.3, 60)]
    alike = [{of: float(x)} for x in base + rng.normal(0, 0.3, 60)]
    tests = differences({"a": first, "b": better, "c": alike}, 2000, 1)
    assert tests["b"][of]["p_holm"] < 0.01 < tests["c"][of]["p_holm"]
    assert tests["b"][of]["low"] > 0
    assert tests["c"][of]["low"] < 0 < tests["c"][of]["high"]


def test_the_first_error_is_raised_once_the_conversations_under_way_have_ended():
    heard = []

    class Speaker:
        def stop(self):
            heard.append("stop")

        async def close(self):
            heard.append("close")

    class Talk:
        async def about(self, number, on_done):
            if number == 0:
                raise RecipeError("no more")
            for _ in range(5):
                await asyncio.sleep(0)
            heard.append(f"ended {number}")
            return []

    with pytest.raises(RecipeError, match="no more"):
        asyncio.run(talk_about_all([0, 1], Talk(), [Speaker()], 2, lambda _: None))
    assert heard == ["stop", "ended 1", "close"]
