"""The experiments on section 3: what is drawn for them, and what their numbers are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_sessions
from benchmarks import findings
from benchmarks.findings_chat import SAID
from benchmarks.findings_runs import (
    Experiments,
    _is_generic,
    _is_informative,
    tiny_backbone,
    write_lines,
    write_sessions,
)
from benchmarks.findings_tables import ratio


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    out = tmp_path_factory.mktemp("findings")
    backbone = tiny_backbone(out / "backbone")
    overrides = [f"backbone.name={backbone}"]
    overrides += [f"backbone.{key}=null" for key in ("gguf_file", "sha256", "base_model")]
    return Experiments(out, tuple(overrides), 4, 2, longest=2000, layers=1, tiny=True)


@pytest.fixture(scope="module")
def unseen(at):
    return write_sessions(at)


def test_topics_left_out_are_not_learned_from(at, unseen):
    learned = read_esconv(at.learned_from)
    topics = {session.problem_type for session in learned}
    assert len(topics) == 5
    assert {session.problem_type for session in unseen.seen} <= topics
    assert not {session.problem_type for session in unseen.left_out} & topics
    texts = [session.messages for session in learned]
    assert unseen.seen
    assert unseen.left_out
    assert not any(session.messages in texts for session in [*unseen.seen, *unseen.left_out])


@pytest.mark.usefixtures("unseen")
def test_a_cell_learns_from_what_its_recipe_draws(at):
    few, more = at.drawn("5x1"), at.drawn("10x3")
    assert (len(few), len(more)) == (5, 10)
    assert len({session.problem_type for session in few}) == 5


def test_written_sessions_are_read_as_they_were(tmp_path):
    sessions = read_sample_sessions()[:3]
    write_lines(tmp_path / "some.txt", sessions)
    again = read_esconv(tmp_path / "some.txt")
    assert [s.messages for s in again] == [s.messages for s in sessions]
    assert [s.problem_type for s in again] == [s.problem_type for s in sessions]


def test_the_upper_layers_alone_are_adapted(at):
    (said,) = at._low_rank()
    assert set(re.findall(r"layers\.(\d+)\.", said)) == {"1"}
    assert "layers.1.self_attn.q_proj" in said
    assert "layers.1.mlp.down_proj" in said


@pytest.mark.parametrize(
    ("text", "informative", "generic"),
    [
        ("my sister crashed grey car near muddy river bridge yesterday", True, False),
        ("someone crashed grey car near muddy river bridge yesterday", False, False),
        ("my sister crashed grey car near river yesterday", False, False),
        ("i feel so sad and lonely about everything", False, True),
        ("i feel sad about my mother", False, False),
        ("i feel sad tired cold hungry", False, False),
    ],
)
def test_what_is_informative_and_what_is_generic(text, informative, generic):
    assert _is_informative(text) is informative
    assert _is_generic(text) is generic


def test_a_ratio_is_that_of_the_sums_and_its_interval_is_over_rows():
    sums = np.array([[1, 10], [3, 10]], np.float64)
    assert ratio(sums) == "0.2 [0.1, 0.3]"
    assert ratio(sums, 100) == "20 [10, 30]"
    assert ratio(sums[:1], 1, np.exp) == "1.11"
    assert ratio(sums[:0]) == "-"


def test_the_first_words_of_a_text_are_behind_its_query():
    query = {"role": "user", "content": "q " * 500}
    long = {"role": "assistant", "content": "a " * 60}
    texts = [[query, long, long, long], [query, long]]
    (session,) = findings._first_words(texts)
    assert [len(said.words) for said in session] == [60, 40]
    assert {word for said in session for word in said.words} == {"a"}


def test_both_speakers_have_both_names():
    assert SAID["seeker"] == SAID["supporter"][::-1]
