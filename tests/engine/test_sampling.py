"""The fast choice of a token against the one that sorts everything, and against transformers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from augesc_builder.engine import Sampling
from augesc_builder.engine import sampling as module
from augesc_builder.engine.sampling import NOT_FINITE, sample_tokens, sample_tokens_fast
from tests.conftest import often
from tests.engine.test_static import VOCABULARY

BIG = 5000


def marked(ids, n_tokens):
    return torch.zeros(len(ids), n_tokens, dtype=torch.bool).scatter(1, ids, value=True)


SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.just(99),
    top_p=st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999, 1.0]),
    temperature=st.floats(0.2, 3),
    repetition_penalty=st.sampled_from([1.0, 1.05, 1.5, 0.7]),
    top_k=st.sampled_from([None, None, 1, 7, 300, 10**6]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.3]),
    greedy=st.sampled_from([False, False, False, True]),
)


@pytest.mark.parametrize("on", ["compiled", "cpu", "cuda's way"])
@settings(max_examples=often(60))
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.0, 0.3, 2.0, 8.0]),
    steps=st.sampled_from([None, None, 4]),
    sampling=SAMPLINGS,
)
@example(seed=1, spread=0.0, steps=None, sampling=Sampling(99, top_p=0.9))
def test_the_fast_choice_is_the_slow_one(on, seed, spread, steps, sampling):
    torch.manual_seed(seed)
    logits = torch.randn(6, BIG) * torch.tensor([[spread], [8], [2], [1], [4], [spread]])
    if steps:  # logits of low precision: many are equal
        logits = (logits * steps).round() / steps
    ids = torch.randint(0, BIG, (6, 40))
    u = torch.rand(6, dtype=torch.float64)
    slow = sample_tokens(logits, marked(ids, BIG), u, sampling)
    with pytest.MonkeyPatch.context() as patch:
        if on != "compiled":
            patch.setattr(module, "library", lambda: None)
        if on == "cuda's way":
            patch.setattr(module, "_candidates_on_cpu", module.candidates_by_top_k)
        fast = sample_tokens_fast(logits.clone(), ids, u, sampling)
    # Both round, in float32 and in float64: a uniform at the edge of two tokens may fall to either.
    differ = (slow != fast).nonzero().flatten()
    for row in differ.tolist():
        nudged = [
            sample_tokens(
                logits[[row]], marked(ids[[row]], BIG), (u[[row]] + d).clamp(0, 1 - 1e-12), s
            )
            for d in (-3e-6, 3e-6)
            for s in (sampling, _nudged(sampling, 1e-6), _nudged(sampling, -1e-6))
        ]
        assert int(fast[row]) in {int(token) for token in nudged}


def _nudged(sampling, by):
    top_p = sampling.top_p if sampling.top_p == 1 else min(max(sampling.top_p + by, 1e-9), 1 - 1e-9)
    min_p = sampling.min_p and sampling.min_p * (1 + by)
    return Sampling(
        99, top_p, sampling.temperature, sampling.repetition_penalty, sampling.top_k, min_p
    )


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(99, top_p=0.9, temperature=0.9, repetition_penalty=1.05),
        Sampling(99, temperature=1.4),
        Sampling(99, top_k=12, top_p=0.8, repetition_penalty=1.3),
        Sampling(99, min_p=0.05, temperature=0.7),
        Sampling(99, top_k=40, top_p=0.95, min_p=0.02, temperature=1.2, repetition_penalty=0.8),
    ],
    ids=["paper", "temperature", "top-k", "min-p", "all"],
)
def test_the_distribution_is_that_of_transformers(sampling):
    torch.manual_seed(5)
    n = 20_000
    logits, ids = torch.randn(1, VOCABULARY) * 2, torch.randint(0, VOCABULARY, (1, 30))
    processors = [
        RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        TemperatureLogitsWarper(sampling.temperature),
    ]
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    theirs = torch.softmax(LogitsProcessorList(processors)(ids, logits.clone()).double(), -1)[0]
    u = torch.rand(n, dtype=torch.float64)
    chosen = sample_tokens_fast(logits.repeat(n, 1), ids.expand(n, -1), u, sampling)
    found = torch.bincount(chosen, minlength=VOCABULARY).double()
    assert not found[theirs == 0].any()
    expected = theirs[theirs > 0] * n
    statistic = float(((found[theirs > 0] - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    # Five standard deviations of chi-square: once in millions of seeds, and this one is fixed.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_rows_without_numbers_are_marked_and_the_others_chosen():
    torch.manual_seed(1)
    logits = torch.randn(5, BIG)
    logits[1, 7] = float("nan")
    logits[2] = float("-inf")
    logits[3, 9] = float("inf")
    ids, u = torch.zeros(5, 1, dtype=torch.long), torch.full((5,), 0.5)
    for sampling in (Sampling(9, top_p=0.9), Sampling(9), Sampling(9, top_k=3)):
        tokens = sample_tokens_fast(logits.clone(), ids, u, sampling)
        assert (tokens == NOT_FINITE).tolist() == [False, True, True, True, False]
        rest = [0, 4]
        assert torch.equal(
            tokens[rest], sample_tokens_fast(logits[rest], ids[rest], u[rest], sampling)
        )
    tokens = sample_tokens_fast(logits[[1, 0]], ids[:2], u[:2], Sampling(9, greedy=True))
    assert tokens.tolist() == [NOT_FINITE, int(logits[0].argmax())]


def test_a_token_that_cannot_be_is_never_chosen():
    logits = torch.full((3, BIG), float("-inf"))
    logits[:, :4] = 1.0
    u = torch.tensor([0.0, 0.6, 1 - 1e-12], dtype=torch.float64)
    for sampling in (Sampling(9), Sampling(9, top_p=0.9), Sampling(9, top_k=50)):
        tokens = sample_tokens_fast(
            logits.clone(), torch.zeros(3, 1, dtype=torch.long), u, sampling
        )
        assert tokens.tolist()[0] == 0
        assert int(tokens.max()) < 4
