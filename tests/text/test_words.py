"""The fast path gives NLTK's words, for every string."""

from __future__ import annotations

import json
import random

import nltk
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from augesc_builder.text import words
from tests.conftest import often, shared

PIECES = [
    *("'", '"', "''", "``", "`", ".", "..", "...", "!", "?", ",", ":", ";", "-", "--", "---"),
    *("(", ")", "[", "]", "{", "}", "<", ">", "$", "%", "&", "#", "@", "*"),
    *(" ", " ", " ", " ", " ", " ", "  ", "\n", "\t", "\u00a0", "\u2028", "\x1c", "\x85", "\u3000"),
    *("\u2019", "\u2018", "\u201c", "\u201d", "\u00ab", "\u00bb", "\u2014", "\u2013", "\u2026"),
    *("a", "b", "I", "The", "can", "cannot", "not", "n't", "N'T", "'s", "'S", "'m", "'d", "'ll"),
    *("'re", "'ve", "gimme", "gonna", "lemme", "wanna", "'tis", "'twas", "d'ye", "more'n", "t"),
    *("1", "2.5", "3,000", "5:30", "\u00e9", "\u4f60\u597d", "\U0001f642", "e.g.", "Mr.", "U.S."),
    *("http://x.y/z?a=b", "foo@bar.com", "\u0301", "\ud800", "\u200b", "\u0130"),
]


@settings(max_examples=often(600))
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
@example("")
@example('He left. "Why?" (Nobody knows.) \'')
@example("foo. ” )")
def test_pieces_that_the_rules_care_about(text):
    assert words.tokenize(text) == words.tokenize_with_nltk(text)


@settings(max_examples=often(400))
@given(st.text(max_size=60))
def test_any_text(text):
    assert words.tokenize(text) == words.tokenize_with_nltk(text)


def test_every_utterance_of_esconv():
    rng = random.Random(1)
    for split in ("train", "valid", "test"):
        lines = shared(f"esconv/{split}.txt").read_text().splitlines()
        said = [u["text"] for line in lines for u in json.loads(line)["dialog"]]
        for text in rng.sample(said, len(said) // 3):
            assert words.tokenize(text) == words.tokenize_with_nltk(text)


@settings(max_examples=often(400))
@given(
    st.lists(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(lambda p: "".join(p).strip()),
        min_size=1,
        max_size=8,
    ).map(" ".join)
)
@example('!"... wanna ...')  # two sentences may end in one chunk
@example(".'ve-! yes")
@example("Say it.) ")
@example('He said "no." Then he left (I think.) and "what?"')
@example("wow!! Really?! no")
@example("So... I went at 5. Then J. Smith came.")
def test_chunks_that_the_rules_care_about(text):
    assert words.tokenize(text) == words.tokenize_with_nltk(text)
    assert words.count(text) == len(words.tokenize_with_nltk(text))


def test_memory_is_bounded(monkeypatch):
    words.clear_caches()
    monkeypatch.setattr(words, "_CACHE_SIZE", 50)
    for i in range(300):
        words.tokenize(f"first{i} middle{i} last{i}. so{i}... go on{i}. {i}. Another{i} one!")
        for cache in (*words._CACHES, words._KINDS, words._ENDINGS):
            assert len(cache) <= 50
    words.clear_caches()
    assert not any(words._CACHES)


@pytest.mark.parametrize("broken", [True, False])
def test_another_nltk_is_checked_before_the_fast_path_is_trusted(monkeypatch, broken):
    monkeypatch.setattr(words, "_holds", None)
    if broken:
        monkeypatch.setattr(words, "_parts", lambda text: [tuple(text.split())])
    text = "Don't stop, now."
    assert words.tokenize(text) == ["Do", "n't", "stop", ",", "now", "."]
    assert words._holds is not broken


def test_the_fast_path_takes_nearly_all_of_esconv():
    lines = shared("esconv/test.txt").read_text().splitlines()
    said = [" ".join(u["text"].split()) for line in lines for u in json.loads(line)["dialog"]]
    assert sum(words._parts(text) is None for text in said) < 0.02 * len(said)


def test_the_version_it_was_proved_on_is_the_one_tested():
    assert nltk.__version__ == words.PROVED_ON
