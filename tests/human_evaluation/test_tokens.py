"""Tokens: nobody's but one person's, and in no file that others may read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import AugescError, DiskError, StudyError
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.tokens import Tokens, read_tokens, write_tokens
from tests.human_evaluation.studies import make_study

TOKENS = Tokens.draw(20)


def test_every_link_is_of_one_person():
    assert len(set(TOKENS.links.values())) == len(TOKENS.links) == 20
    for annotator, token in TOKENS.links.items():
        assert TOKENS.annotator(token) == annotator
        assert TOKENS.token_of(annotator) == token
        assert len(token) >= 32  # 192 bits
        assert annotator not in token


@given(st.text(max_size=300))
def test_what_is_no_token_is_nobodys(guess):
    assert guess in TOKENS.links.values() or TOKENS.annotator(guess) is None


@given(st.sampled_from(sorted(TOKENS.links.values())), st.data())
def test_a_token_that_is_almost_right_is_wrong(token, data):
    cut = data.draw(st.integers(0, len(token) - 1))
    assert TOKENS.annotator(token[:cut]) is None
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != token[cut]))
    assert TOKENS.annotator(token[:cut] + other + token[cut + 1 :]) is None
    assert TOKENS.annotator(token + other) is None


def test_the_token_of_a_platforms_person_is_of_this_study_alone():
    name = TOKENS.crowd_name("5f0c")
    assert name == TOKENS.crowd_name("5f0c") != TOKENS.crowd_name("5f0d")
    token = TOKENS.token_of(name)
    assert TOKENS.annotator(token) == name
    assert Tokens.draw(1).annotator(token) is None
    other = TOKENS.token_of(TOKENS.crowd_name("5f0d"))
    mac = other.partition(".")[2]
    assert TOKENS.annotator(f"{name}.{mac}") is None
    assert TOKENS.annotator(f"{name}.") is None
    # Whoever holds a link has no name that a digest could be asked for.
    link = next(iter(TOKENS.links))
    assert TOKENS.annotator(f"{link}.{mac}") is None


def test_tokens_are_read_as_they_were_written(tmp_path):
    write_tokens(tmp_path, TOKENS)
    assert read_tokens(tmp_path) == TOKENS
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(DiskError, match="File exists"):
        write_tokens(tmp_path, TOKENS)
    (tmp_path / "tokens.json").chmod(0o640)
    with pytest.raises(AugescError, match="others may read"):
        read_tokens(tmp_path)


# -- a platform's people ---------------------------------------------------------------------------


@pytest.fixture
def crowd(tmp_path, clock):
    overrides = ("crowd.enabled=true", "crowd.study_id=study1", "links=0")
    with Store.open(make_study(tmp_path / "study", *overrides), clock) as store:
        yield store


def test_a_person_is_one_annotator_however_often_they_come(crowd):
    name = crowd.enter("pid1", "study1", "visit1")
    assert crowd.enter("pid1", "study1", "visit1") == name
    assert crowd.enter("pid2", "study1", "visit2") != name
    arrived = [e.body for e in crowd.events() if e.kind == "arrived"]
    assert [body["person"] for body in arrived] == ["pid1", "pid2"]
    assert crowd.progress(name).via == "crowd"
    assert "pid1" not in name


@pytest.mark.parametrize(
    "wrong",
    [
        ("pid1", "study2", "visit1"),  # of another study
        ("pid1", "", "visit1"),
        ("pid1", "study1", "visit9"),  # somebody who knows the id, and not the visit
        ("", "study1", "visit1"),
        ("a b", "study1", "visit1"),
        ("<script>", "study1", "visit1"),
        ("p" * 65, "study1", "visit1"),
        ("pid3", "study1", "../x"),
    ],
)
def test_who_is_not_sent_rightly_is_not_let_in(crowd, wrong):
    crowd.enter("pid1", "study1", "visit1")
    with pytest.raises(StudyError) as raised:
        crowd.enter(*wrong)
    assert raised.value.reason == "bad_entry"
    assert len([event for event in crowd.events() if event.kind == "arrived"]) == 1


def test_a_study_by_links_takes_nobody_from_a_platform(store):
    with pytest.raises(StudyError, match="personal links alone"):
        store.enter("pid1", "study1", "visit1")
