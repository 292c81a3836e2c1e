"""The engine with slots: against transformers, in other company, and under failure."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from augesc_builder.engine import Continuation, Prompt, Sampling, generate
from augesc_builder.engine.cache import GROWTH, Segment, SlotCache
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.cuda_graphs import CudaGraphDecoder
from augesc_builder.engine.llama import Llama
from augesc_builder.engine.models import Family, network_of
from augesc_builder.engine.prefill import CALL
from augesc_builder.engine.sampling import stream_key
from augesc_builder.engine.static import StaticBatchingEngine
from augesc_builder.errors import CheckpointError
from tests.conftest import often
from tests.engine.test_static import EOS, FAMILIES, VOCABULARY, llama_like, model_of, prompts

PAPER = Sampling(max_tokens=60, top_p=0.9, temperature=0.9, repetition_penalty=1.05)
QUIET = (lambda *_: None,)


@pytest.fixture(scope="module")
def model():
    return model_of("gptj")


def run(model, some, sampling=PAPER, slots=4, **how):
    steps = []
    engine = ContinuousBatchingEngine(model, EOS, sampling, slots, **how)
    results = generate(engine, some, lambda rows, tokens: steps.append((rows, tokens)))
    assert sum(rows for rows, _ in steps) == len(some)
    made = sum(len(r.token_ids) + (r.finish_reason == "eos") for r in results)
    assert sum(tokens for _, tokens in steps) == made == engine.n_tokens
    return results


def theirs(model, prompt, limit, **how):
    ids = torch.tensor([prompt.token_ids])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit - ids.shape[1],
        **how,
    )[0, ids.shape[1] :].tolist()
    return made[: made.index(EOS)] if EOS in made else made


# -- against transformers --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_equals_transformers(family):
    model = model_of(family)
    some = prompts(5, 9, 3, 12, 30, 1, 39)
    greedy = Sampling(max_tokens=40, greedy=True, repetition_penalty=1.3)
    expected = [theirs(model, prompt, 40, repetition_penalty=1.3) for prompt in some]
    for slots in (1, 3, 16):
        results = run(model, some, greedy, slots)
        assert [list(result.token_ids) for result in results] == expected


def test_grouped_heads_and_prompts_of_several_calls():
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config.pad_token_id = EOS
    some = prompts(2 * CALL + 9, 5, CALL + 1, CALL, GROWTH - 2, 77)
    greedy = Sampling(max_tokens=GROWTH + 20, greedy=True)
    for prompt, result in zip(some, run(model, some, greedy, 3), strict=True):
        assert list(result.token_ids) == theirs(model, prompt, GROWTH + 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_ragged_rows_are_those_of_a_row_alone(family):
    model = model_of(family)
    network = network_of(model, 64)
    if isinstance(network, Llama):  # its loops have a cache of their own: test_cpu_kernels.py
        network = Family(model)
    some = [list(prompt.token_ids) for prompt in prompts(7, 31, 1, 18, 11)]
    cache = SlotCache(len(some), 64)
    with torch.inference_mode():
        for together in (True, False):
            at, segments, flat, positions = 0, [], [], []
            for slot, ids in enumerate(some):
                if len(ids) > 1:
                    segments.append(Segment(slot, at, 0, len(ids) - 1))
                    at += len(ids) - 1
                    flat += ids[:-1]
                    positions += range(len(ids) - 1)
            cache.begin_prefill(segments)
            network.hidden(torch.tensor(flat), torch.tensor(positions), cache)
            last = torch.tensor([ids[-1] for ids in some])
            where = torch.tensor([len(ids) - 1 for ids in some])
            if together:  # as on CUDA: all slots behind one mask
                ours = CudaGraphDecoder(network, cache, torch.device("cpu"))(last, where, 31)
            else:
                segments = [Segment(i, i, n, 1) for i, n in enumerate(where.tolist())]
                cache.begin_step(segments, where.device)
                ours = network.logits(last, where, cache)
            for row, ids in zip(ours, some, strict=True):
                alone = model(input_ids=torch.tensor([ids])).logits[0, -1]
                assert (row - alone).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gptj", "llama"])
def test_half_precision(family, dtype):
    model = model_of(family).to(dtype)
    for result in run(model, prompts(5, 9, 3, 12, 30)):
        assert result.finish_reason in {"eos", "length"}
        assert result.token_ids or result.finish_reason == "eos"


def test_an_output_layer_in_bfloat16(model):
    some = prompts(5, 9, 3, 12)
    exact = network_of(model, 60)
    rounded = network_of(model, 60, bfloat16_head=True)
    logits = []
    for network in (exact, rounded):
        cache = SlotCache(1, 60)
        cache.begin_prefill([Segment(0, 0, 0, 9)])
        ids = torch.tensor(some[1].token_ids)
        with torch.inference_mode():
            logits.append(network.logits(ids, torch.arange(9), cache))
    assert logits[1].dtype == torch.float32
    off = (logits[0] - logits[1]).abs().max()
    assert 0 < off < 0.02 * (logits[0].max() - logits[0].min())
    assert len(run(model, some, bfloat16_head=True)) == 4
    with pytest.raises(CheckpointError, match="bfloat16_head is for GPT-J only"):
        ContinuousBatchingEngine(model_of("llama"), EOS, PAPER, 2, bfloat16_head=True)


def test_the_model_is_left_as_it_was(model):
    ids = torch.tensor([prompts(9)[0].token_ids])
    before = model_of("gptj")(input_ids=ids).logits
    run(model, prompts(5, 9))
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-6)
    llama = model_of("llama")
    before, chosen = llama(input_ids=ids).logits, llama.config._attn_implementation
    run(llama, prompts(5, 9))
    assert torch.equal(llama(input_ids=ids).logits, before)
    assert llama.config._attn_implementation == chosen


# -- reproducible rows -----------------------------------------------------------------------------


def traced(engine, some, order):
    """Decode some of the prompts in an order; give each row's logits at all steps, and its end."""
    rows: dict[int, list[torch.Tensor]] = {}
    logits_of = engine._logits

    def keeping(slots, at, longest):
        logits = logits_of(slots, at, longest)
        for slot, row in at.items():
            rows.setdefault(order[row.number], []).append(logits[slot].clone())
        return logits

    engine._logits = keeping
    results = generate(engine, [some[i] for i in order], *QUIET)
    engine._logits = logits_of
    return rows, dict(zip(order, results, strict=True))


@pytest.mark.parametrize("family", ["gptj", "qwen2"])
def test_a_row_is_the_same_in_any_company(family):
    """To the last bit, with the same number of slots: what the model computes is compared."""
    engine = ContinuousBatchingEngine(model_of(family), EOS, PAPER, 4)
    some = prompts(5, 9, 3, 12, 7, 7, 20, 31, 2)
    logits, results = traced(engine, some, range(9))
    others = [
        list(reversed(range(9))),  # another order
        [0, 2, 4, 6, 8],  # other neighbours: two shards
        [1, 3, 5, 7],
        [6, 7, 8],  # what a killed run had left
        [4],
    ]
    for order in others:
        again, same = traced(engine, some, order)
        assert same == {i: results[i] for i in order}
        for i in order:
            assert all(torch.equal(a, b) for a, b in zip(again[i], logits[i], strict=True))


def test_other_numbers_of_slots_and_static_batching_give_the_same_tokens(model):
    """Not to the last bit; on so small a model no token depends on that."""
    some = prompts(5, 9, 3, 12, 7, 7, 20)
    results = run(model, some)
    assert run(model, some, slots=1) == run(model, some, slots=32) == results
    assert run(model, some, refill=False) == results
    assert generate(StaticBatchingEngine(model, EOS, PAPER, 3), some, *QUIET) == results
    assert len({result.token_ids for result in results}) == len(some)


# -- slots -----------------------------------------------------------------------------------------


@settings(max_examples=often(40), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_prompt_comes_out_once_whatever_happens(model, data):
    lengths = data.draw(st.lists(st.integers(1, 14), max_size=9))
    limits = data.draw(st.lists(st.integers(1, 14), min_size=len(lengths), max_size=len(lengths)))
    slots = data.draw(st.integers(1, 6))
    failing = data.draw(st.sets(st.integers(0, 25), max_size=2))
    some = [
        Prompt(p.token_ids, p.stream, limit)
        for p, limit in zip(prompts(*lengths), limits, strict=True)
    ]
    engine = ContinuousBatchingEngine(model, EOS, Sampling(max_tokens=12), slots)
    calls = iter(range(10**6))
    hidden = engine.network.hidden

    def sometimes_too_much(*arguments):
        if slots > 3 and next(calls) in failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(*arguments)

    engine.network.hidden = sometimes_too_much  # both for prompts and, inside logits, for steps
    ended = list(engine.stream(some, *QUIET))
    assert sorted(number for number, _ in ended) == list(range(len(some)))
    for number, result in ended:
        prompt, limit = some[number], min(12, limits[number])
        total = len(prompt.token_ids) + len(result.token_ids)
        if len(prompt.token_ids) >= limit:
            assert result == Continuation((), "prompt_too_long")
        elif result.finish_reason == "length":
            assert total == limit
        else:
            assert result.finish_reason == "eos"
            assert total < limit
    # What ended is what a row alone gives, with and without failures.
    for number, result in ended[:2]:
        assert run(model, [some[number]], Sampling(max_tokens=12), slots=1) == [result]


@pytest.mark.parametrize("engine", ["continuous", "static"])
def test_a_stop_of_its_own_ends_a_row_and_stands_in_it(model, engine):
    some = prompts(5, 9, 3)
    sampling = Sampling(max_tokens=40)
    whole = run(model, some, sampling)
    stops = [frozenset({result.token_ids[4], VOCABULARY + 5}) for result in whole]
    stopped = [
        Prompt(p.token_ids, p.stream, stops=stop) for p, stop in zip(some, stops, strict=True)
    ]
    made = {
        "continuous": lambda: ContinuousBatchingEngine(model, EOS, sampling, 2),
        "static": lambda: StaticBatchingEngine(model, EOS, sampling, 2),
    }[engine]()
    for before, stop, result in zip(whole, stops, generate(made, stopped, *QUIET), strict=True):
        end = next(i for i, token in enumerate(before.token_ids) if token in stop)
        assert result == Continuation(before.token_ids[: end + 1], "eos")


@settings(max_examples=often(30), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_prompts_that_wait_for_rows_are_asked_for_again(model, data):
    """Every row is followed by another, whose prompt is what the first one became."""
    lengths = data.draw(st.lists(st.integers(1, 14), max_size=6))
    slots, batch = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    first = prompts(*lengths)
    sampling = Sampling(max_tokens=12)

    def followed(engine):
        ready, waiting, numbers, ended = [*range(len(first))], set(), {}, {}

        def coming():
            number = 0
            while ready or waiting:
                numbers[number] = one = ready.pop() if ready else None
                if one is None:
                    yield None
                elif one in ended:
                    row = ended[one]
                    yield Prompt((*first[one].token_ids, *row.token_ids, 1)[-9:], one)
                else:
                    waiting.add(one)
                    yield first[one]
                number += 1

        results = {}
        for number, result in engine.stream(coming(), *QUIET):
            one = numbers[number]
            if one in waiting:
                waiting.remove(one)
                ended[one] = result
                ready.append(one)
            else:
                results[one] = result
        return ended, results

    engine = ContinuousBatchingEngine(model, EOS, sampling, slots)
    ended, results = followed(engine)
    assert set(ended) == set(results) == set(range(len(first)))
    assert [ended[i] for i in range(len(first))] == run(model, first, sampling)
    assert followed(StaticBatchingEngine(model, EOS, sampling, batch)) == (ended, results)


def test_slots_are_refilled_and_static_batches_are_not(model):
    some = [
        Prompt(p.token_ids, p.stream, 5 + n)
        for p, n in zip(prompts(*[5] * 12), [2, 2, 2, 30] * 3, strict=True)
    ]
    never_ends = Sampling(max_tokens=60, greedy=True)
    engine, static = (
        ContinuousBatchingEngine(model, VOCABULARY - 1, never_ends, 4, refill=refill)
        for refill in (True, False)
    )
    assert generate(engine, some, *QUIET) == generate(static, some, *QUIET)
    assert static.n_slot_steps == 3 * 30 * 4
    assert engine.n_slot_steps < 0.6 * static.n_slot_steps


def test_prompts_are_read_only_as_slots_come_free(model):
    read = []

    def some():
        for number, prompt in enumerate(prompts(*[5] * 10)):
            read.append(number)
            yield prompt

    stream = ContinuousBatchingEngine(model, EOS, PAPER, 2).stream(some(), *QUIET)
    next(stream)
    assert len(read) <= 3


def test_a_prompt_that_is_too_long_is_told_before_another_is_asked_for(model):
    heard = []

    def some():
        for number, prompt in enumerate(prompts(60, 60, 60, 5)):
            assert heard == list(range(number))
            yield prompt

    for number, _ in ContinuousBatchingEngine(model, EOS, PAPER, 4).stream(some(), *QUIET):
        heard.append(number)
    assert heard == [0, 1, 2, 3]


def test_edges(model):
    assert run(model, []) == []
    first = run(model, prompts(5), slots=1)
    assert run(model, prompts(5), slots=30) == first
    too_long, fits = prompts(60, 59)
    results = run(model, [too_long, fits, too_long])
    assert [r.finish_reason for r in results][::2] == ["prompt_too_long"] * 2
    assert len(results[1].token_ids) <= 1
    with pytest.raises(ValueError, match="at least one token"):
        Prompt((), 1)


def test_end_of_sequence_as_first_token():
    model = model_of("gptj")
    model.lm_head.bias.data[EOS] = 1e4
    results = run(model, prompts(3, 9, 1, 4, 4), slots=2)
    assert results == [Continuation((), "eos")] * 5


# -- bad input -------------------------------------------------------------------------------------


def test_a_row_with_non_finite_logits_ends_and_the_others_continue(model):
    some = prompts(5, 9, 3, 12, 7, 7)
    expected = run(model, some)
    broken = model_of("gptj")
    cursed = 96
    broken.transformer.wte.weight.data[cursed] = float("nan")
    clean = [
        prompt
        for prompt, result in zip(some, expected, strict=True)
        if cursed not in (*prompt.token_ids, *result.token_ids)
    ]
    bad = Prompt((1, cursed, 2), stream_key(1, "bad", 0))
    mixed = [bad, *clean, bad]
    results = run_unchecked(broken, mixed)
    assert results[0] == results[-1] == Continuation((), "not_finite")
    assert results[1:-1] == run(model, clean)


def run_unchecked(model, some):
    return generate(ContinuousBatchingEngine(model, EOS, PAPER, 2), some, *QUIET)


@pytest.mark.parametrize("eos", [None, -1, VOCABULARY])
def test_an_end_of_sequence_token_that_is_none_of_the_models(model, eos):
    with pytest.raises(CheckpointError, match="end-of-sequence token"):
        ContinuousBatchingEngine(model, eos, PAPER, 2)


def test_prompts_of_another_vocabulary(model):
    with pytest.raises(CheckpointError, match=f"token {VOCABULARY}, and the model knows"):
        run(model, [Prompt((1, VOCABULARY), 1)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("top_p", 0), ("top_p", 1.01), ("top_p", float("nan")), ("temperature", 0)),
        *(("top_k", 0), ("min_p", -0.1), ("repetition_penalty", 0)),
    ],
)
def test_sampling_out_of_bounds(key, value):
    with pytest.raises(ValueError, match=f"{key} is"):
        Sampling(20, **{key: value})


def test_an_architecture_that_does_not_fit():
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(CheckpointError, match=r"BloomForCausalLM.*backend\.engine=static"):
        ContinuousBatchingEngine(BloomForCausalLM(config), EOS, PAPER, 2)


def test_a_window_shorter_than_the_texts():
    config = MistralConfig(sliding_window=40, vocab_size=VOCABULARY, hidden_size=32)
    config.num_hidden_layers, config.intermediate_size = 1, 32
    with pytest.raises(CheckpointError, match=r"attends to 40 tokens at most.*max_tokens is 60"):
        ContinuousBatchingEngine(MistralForCausalLM(config), EOS, PAPER, 2)


def test_positions_that_depend_on_the_batch():
    model = llama_like(LlamaConfig, LlamaForCausalLM)
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(CheckpointError, match=r"longest text of a batch.*engine=static"):
        ContinuousBatchingEngine(model, EOS, PAPER, 2)


def test_a_wrong_fast_path_is_found_before_the_first_prompt(model, monkeypatch):
    monkeypatch.setattr("augesc_builder.engine.gptj._quarter", lambda x: x)
    with pytest.raises(CheckpointError, match="logits differ from the model's own"):
        ContinuousBatchingEngine(model, EOS, PAPER, 2)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("shape is invalid"), CheckpointError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    ],
)
def test_a_model_that_fails_by_itself_is_refused_and_memory_is_another_matter(raised, expected):
    model = model_of("llama")

    def broken(*_, **__):
        raise raised

    model.model.layers[0].forward = broken
    with pytest.raises(expected, match=r"static|out of memory"):
        network_of(model, 64)
