"""Prompts that share their prefill: the same rows to the last bit, and nothing computed twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augesc_builder.engine import Prompt, Sampling, continuous, cpu_kernels, generate
from augesc_builder.engine.cache import SlotCache
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.cuda_graphs import CudaGraphDecoder
from augesc_builder.engine.prefill import _WORTH, CALL
from tests.conftest import often
from tests.engine.test_continuous import QUIET, traced
from tests.engine.test_cpu_kernels import without_compiler
from tests.engine.test_static import EOS, VOCABULARY, model_of

SAMPLING = Sampling(max_tokens=2 * CALL, top_p=0.9, temperature=0.9, repetition_penalty=1.05)
COMPILED = [("gptj", torch.float32), ("llama", torch.bfloat16)]
"""Any common beginning is copied, and no call is filled up."""

compiled_only = pytest.mark.skipif(
    cpu_kernels.library() is None, reason="there is no C++ compiler on this machine"
)


def engine_of(family, dtype=torch.float32, slots=3, **how):
    return ContinuousBatchingEngine(model_of(family).to(dtype), EOS, SAMPLING, slots, **how)


def some_tokens(n, seed=1):
    torch.manual_seed(seed)
    return torch.randint(1, VOCABULARY, (n,)).tolist()


def prompts_of(*token_ids, n_new=2):
    return [Prompt(tuple(ids), n, len(ids) + n_new) for n, ids in enumerate(token_ids)]


def computed(engine, some):
    """Decode some prompts; give how many of their tokens were computed."""
    before = engine.n_prefilled
    generate(engine, some, *QUIET)
    return engine.n_prefilled - before


# -- reproducible rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("compiles", [pytest.param(True, marks=compiled_only), False])
@pytest.mark.parametrize(
    ("family", "dtype"), [*COMPILED, ("gpt_neox", torch.float32), ("qwen2", torch.float16)]
)
def test_a_row_is_the_same_with_and_without_what_others_hold(family, dtype, compiles, monkeypatch):
    """To the last bit: all logits of a row beside others, and alone, where nothing is copied."""
    if not compiles:
        without_compiler(monkeypatch)
    engines = [engine_of(family, dtype, slots) for slots in (1, 3)]
    stems = [some_tokens(CALL + 12), some_tokens(40, seed=2)]

    @settings(max_examples=often(10))
    @given(data=st.data())
    def check(data):
        lengths = st.sampled_from([0, 1, 15, 16, 17, 33, CALL - 1, CALL, CALL + 1, CALL + 12])
        tails = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=4)
        rows = st.tuples(st.sampled_from(stems), lengths, tails, st.integers(1, 4))
        some = [
            Prompt((*stem[:n], *tail), key, n + len(tail) + n_new)
            for key, (stem, n, tail, n_new) in enumerate(
                data.draw(st.lists(rows, min_size=1, max_size=7))
            )
        ]
        order = data.draw(st.permutations(range(len(some))))
        engine = data.draw(st.sampled_from(engines))
        together = traced(engine, some, order)
        for i in order:
            logits, result = traced(engine, some, [i])
            assert result[i] == together[1][i]
            for alone, beside in zip(logits[i], together[0][i], strict=True):
                assert torch.equal(alone, beside)

    check()


@compiled_only
@pytest.mark.parametrize(("family", "dtype"), COMPILED)
def test_out_of_memory_between_copies_changes_no_row(family, dtype):
    stem = some_tokens(40)
    some = prompts_of(*[[*stem[:n], n] for n in (40, 40, 3, 40, 20, 39, 1, 40)], n_new=5)
    expected = generate(engine_of(family, dtype, 4), some, *QUIET)
    for failing in range(1, 9):
        engine = engine_of(family, dtype, 4)
        hidden, calls = engine.network.hidden, iter(range(10**6))

        def sometimes_too_much(*given, hidden=hidden, calls=calls, failing=failing):
            if next(calls) == failing:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return hidden(*given)

        engine.network.hidden = sometimes_too_much
        assert generate(engine, some, *QUIET) == expected
        assert engine.n_slots == 2


def test_a_free_slot_that_ran_in_a_captured_step_holds_nothing(monkeypatch):
    """As on CUDA, where a step has a token for every slot, and a free one's is at position 0."""
    monkeypatch.setattr(continuous, "cache_of", lambda _, *size: SlotCache(*size))
    unchanged = ContinuousBatchingEngine._empty_slots

    def as_on_cuda(engine):
        made = unchanged(engine)
        made.decoder = CudaGraphDecoder(engine.network, made.cache, engine.device)
        return made

    monkeypatch.setattr(ContinuousBatchingEngine, "_empty_slots", as_on_cuda)
    # Two batches of static batching: the first row waits for the second, its slot free.
    stem = some_tokens(30)
    some = [Prompt((*stem, 1 + n), n, 31 + n_new) for n, n_new in enumerate([1, 9, 9, 9])]
    engine = engine_of("gptj", slots=2, refill=False)
    expected = [generate(engine, [prompt], *QUIET)[0] for prompt in some]
    assert generate(engine, some, *QUIET) == expected


# -- what is computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("compiles", [pytest.param(True, marks=compiled_only), False])
@pytest.mark.parametrize("slots", [1, 5, 16])
@pytest.mark.parametrize("n", [2, 30, CALL + 1, CALL + 30])
def test_the_samples_of_a_query_read_their_prompt_once(n, slots, compiles, monkeypatch):
    if not compiles:
        without_compiler(monkeypatch)
    queries = [[seed, *some_tokens(n - 1, seed)] for seed in (1, 2)]
    some = prompts_of(*[query for query in queries for _ in range(12)])
    for family in ("gptj", "llama"):
        assert computed(engine_of(family, slots=slots), some) == 2 * (n - 1)


@compiled_only
@pytest.mark.parametrize(("family", "dtype"), COMPILED)
@pytest.mark.parametrize("slots", [1, 4])
def test_an_instruction_is_read_once(family, dtype, slots):
    instruction = some_tokens(40)
    some = prompts_of(*[[*instruction, 1 + n, *some_tokens(n)] for n in range(9)])
    assert computed(engine_of(family, dtype, slots), some) == 40 + sum(range(9))


@compiled_only
@pytest.mark.parametrize(("n", "times"), [(_WORTH - 1, 2), (_WORTH, 1)])
def test_prompts_that_come_together_wait_for_what_is_worth_it(n, times):
    stem = some_tokens(n)
    some = prompts_of([*stem, 1, 1], [*stem, 2, 2])
    assert computed(engine_of("llama", slots=2), some) == times * n + 2


@pytest.mark.parametrize(
    ("n", "saved"), [(CALL - 1, 0), (CALL, CALL), (CALL + 9, CALL), (CALL + 10, CALL + 10)]
)
def test_where_shapes_count_whole_parts_are_copied(n, saved, monkeypatch):
    without_compiler(monkeypatch)
    stem = some_tokens(CALL + 10)
    some = prompts_of([*stem, 1], [*stem[:n], *[5] * (CALL + 10 - n), 2])
    assert computed(engine_of("gptj"), some) == 2 * (CALL + 10) - saved


@pytest.mark.parametrize("compiles", [pytest.param(True, marks=compiled_only), False])
def test_calls_are_filled_up_only_where_shapes_count(compiles, monkeypatch):
    if not compiles:
        without_compiler(monkeypatch)
    engine = engine_of("gptj", slots=2)
    hidden, sizes = engine.network.hidden, []

    def noting(tokens, *given):
        sizes.append(len(tokens))
        return hidden(tokens, *given)

    engine.network.hidden = noting
    some = prompts_of(some_tokens(CALL + 31), some_tokens(CALL + 11, seed=2), n_new=1)
    generate(engine, some, *QUIET)
    steps = [2]
    assert sizes == ([CALL, CALL, 40] if compiles else [CALL] * 4) + steps


@pytest.mark.parametrize("compiles", [pytest.param(True, marks=compiled_only), False])
def test_a_row_with_non_finite_logits_leaves_nothing_to_copy(compiles, monkeypatch):
    if not compiles:
        without_compiler(monkeypatch)
    model = model_of("gptj")
    model.transformer.wte.weight.data[96] = float("nan")
    engine = ContinuousBatchingEngine(model, EOS, SAMPLING, 1)
    bad, good = prompts_of([*some_tokens(30, 3), 96, 1], [*some_tokens(30, 3), 5, 1])
    expected = generate(engine, [good], *QUIET)
    results = generate(engine, [bad, bad, good, bad], *QUIET)
    reasons = [result.finish_reason for result in results]
    assert reasons == ["not_finite", "not_finite", expected[0].finish_reason, "not_finite"]
    assert results[2:3] == expected
