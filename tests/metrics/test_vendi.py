"""The effective number of sessions in a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.metrics.tokenized import spoken
from augesc_builder.metrics.vendi import vendi_score


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


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=5).map(" ".join), max_size=7))
def test_it_is_between_one_and_the_number_of_sessions(texts):
    found = vendi_score(say(*texts))
    said = [text for text in texts if text]
    assert (found is None) == (not said)
    if found is not None:
        assert 1 - 1e-6 <= found <= len(said) + 1e-6
        assert vendi_score(say(*reversed(texts))) == pytest.approx(found)
        assert vendi_score(say(*texts, *texts)) == pytest.approx(found)
