"""The effective number of sessions in a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.vendi.counts import VendiCounts
from augesc_builder.metrics.vendi.score import held_by, vendi_moves, vendi_score
from tests.conftest import often


def say(*texts):
    return [spoken([{"role": "user", "content": text}]) for text in texts]


def test_alike_are_one_and_strangers_are_as_many_as_they_are():
    assert vendi_score(say(*["we are all the same"] * 5)) == pytest.approx(1)
    assert vendi_score(say("a b", "c d", "e f")) == pytest.approx(3)
    assert vendi_score(say("a b", "a b", "c d", "c d")) == pytest.approx(2)
    assert vendi_score(say("a b")) == pytest.approx(1)
    assert vendi_score([]) is None
    assert vendi_score(say("", "")) is None


def test_it_is_the_entropy_of_the_eigenvalues_of_the_cosines():
    # Words and pairs: {a, b, c, ab, bc}, {a, b, d, ab, bd}: 3 of 5 are shared.
    alike = np.array([[1, 3 / 5], [3 / 5, 1]])
    shares = np.linalg.eigvalsh(alike) / 2
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert vendi_score(say("a b c", "a b d")) == pytest.approx(expected)


@settings(max_examples=often(40))
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5).map(" ".join), max_size=7))
def test_it_is_between_one_and_the_number_of_sessions(texts):
    found = vendi_score(say(*texts))
    said = [text for text in texts if text]
    assert (found is None) == (not said)
    if found is not None:
        assert 1 - 1e-6 <= found <= len(said) + 1e-6
        assert vendi_score(say(*reversed(texts))) == pytest.approx(found)
        assert vendi_score(say(*texts, *texts)) == pytest.approx(found)


def test_how_it_moves_is_told_from_the_eigenvectors():
    """Against the score without each session, worked out anew."""
    rng = np.random.default_rng(1)
    texts = [" ".join(map(str, rng.zipf(1.4, rng.integers(5, 40)) % 90)) for _ in range(60)]
    held = held_by(say(*texts))
    value, moves = vendi_moves(held)
    without = np.array([vendi_moves(held[:i] + held[i + 1 :])[0] for i in range(60)])
    assert value == pytest.approx(vendi_score(say(*texts)))
    assert moves.sum() == pytest.approx(0, abs=1e-9)
    exact = without - without.mean()
    assert np.corrcoef(moves, exact)[0, 1] > 0.99
    assert np.sqrt((moves**2).sum() / (exact**2).sum()) == pytest.approx(1, abs=0.1)
    silent = [*held, np.empty(0, np.uint64)]
    assert vendi_moves(silent)[0] == pytest.approx(value)
    assert vendi_moves(silent)[1][-1] == 0
    assert vendi_moves([]) is vendi_moves(silent[-1:]) is None


TEXTS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=5).map(" ".join), max_size=9)


@settings(max_examples=often(40))
@given(TEXTS, st.integers(0, 9), st.integers(1, 9), st.randoms())
def test_a_sample_is_the_same_of_any_pieces(texts, cut, size, rng):
    whole = VendiCounts(3, size)
    whole.add(say(*texts))
    rng.shuffle(texts)
    parts = [VendiCounts(3, size), VendiCounts(3, size)]
    parts[0].add(say(*texts[:cut]))
    parts[1].add(say(*texts[cut:]))
    parts[0].merge(parts[1])
    found, expected = parts[0].statistics(), whole.statistics()
    assert found.pop("vendi") == pytest.approx(expected.pop("vendi"))
    assert found == expected == {"compared": min(size, len(texts)), "sessions": len(texts)}


def test_another_seed_draws_others():
    texts = [f"{'a b c d'[: 2 * (i % 4) + 1]} {i}" for i in range(40)]
    scores = set()
    for seed in range(4):
        counts = VendiCounts(seed, 10)
        counts.add(say(*texts))
        scores.add(round(counts.statistics()["vendi"], 6))
    assert len(scores) > 1
