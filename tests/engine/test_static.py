"""Static batching against transformers, and rows against their neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from augesc_builder.engine import Prompt, Sampling, generate
from augesc_builder.engine.sampling import sample_tokens, stream_key, uniforms
from augesc_builder.engine.static import StaticBatchingEngine
from augesc_builder.errors import CheckpointError

EOS = 0
VOCABULARY = 97
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "max_position_embeddings": 256, "bos_token_id": 0}


def gptj():
    config = GPTJConfig(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        rotary_dim=8,
        n_positions=256,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return GPTJForCausalLM(config)


def llama_like(config_class, model_class):
    sizes = {"intermediate_size": 64, "num_key_value_heads": 4}
    config = config_class(**SMALL, **HEADS, **sizes, eos_token_id=EOS)
    return model_class(config)


FAMILIES = {
    "gptj": gptj,
    "gpt_neox": lambda: llama_like(GPTNeoXConfig, GPTNeoXForCausalLM),
    "llama": lambda: llama_like(LlamaConfig, LlamaForCausalLM),
    "mistral": lambda: llama_like(MistralConfig, MistralForCausalLM),
    "qwen2": lambda: llama_like(Qwen2Config, Qwen2ForCausalLM),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SMALL, **HEADS, eos_token_id=EOS, ffn_dim=64, word_embed_proj_dim=32)
    ),
}


def model_of(family):
    torch.manual_seed(7)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():  # a random start is nearly uniform; make it decided
        parameter.data *= 3
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = EOS
    return model


@pytest.fixture(scope="module")
def model():
    return model_of("gptj")


def prompts(*lengths, seed=1):
    torch.manual_seed(seed)
    return [
        Prompt(tuple(torch.randint(1, VOCABULARY, (n,)).tolist()), stream_key(seed, "q", i))
        for i, n in enumerate(lengths)
    ]


def run(model, some, sampling, batch_size=8):
    steps = []
    engine = StaticBatchingEngine(model, EOS, sampling, batch_size)
    results = generate(engine, some, lambda rows, tokens: steps.append((rows, tokens)))
    assert sum(rows for rows, _ in steps) == len(some)
    made = sum(len(r.token_ids) + (r.finish_reason == "eos") for r in results)
    assert sum(tokens for _, tokens in steps) == made
    return results


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_decoding_equals_transformers(family):
    model = model_of(family)
    some = prompts(5, 9, 3, 12)
    greedy = Sampling(max_tokens=40, top_p=1e-9, repetition_penalty=1.3)
    for prompt, result in zip(some, run(model, some, greedy), strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=40 - ids.shape[1],
            repetition_penalty=1.3,
        )[0, ids.shape[1] :].tolist()
        if EOS in theirs:
            theirs = theirs[: theirs.index(EOS)]
        assert list(result.token_ids) == theirs


def test_a_row_does_not_depend_on_neighbours_order_or_batch_size(model):
    sampling = Sampling(max_tokens=60, top_p=0.9, temperature=0.9, repetition_penalty=1.05)
    some = prompts(5, 9, 3, 12, 7, 7, 20)
    together = run(model, some, sampling)
    assert run(model, some, sampling) == together
    assert run(model, some[::-1], sampling)[::-1] == together
    assert run(model, some, sampling, batch_size=2) == together
    assert [run(model, [one], sampling)[0] for one in some] == together
    assert len({result.token_ids for result in together}) == len(some)


def test_another_stream_gives_another_row(model):
    sampling = Sampling(max_tokens=60)
    ids = prompts(9)[0].token_ids
    keys = [stream_key(13, "q", 0), stream_key(14, "q", 0), stream_key(13, "r", 0)]
    keys.append(stream_key(13, "q", 1))
    results = run(model, [Prompt(ids, key) for key in keys], sampling)
    assert len({result.token_ids for result in results}) == len(keys)


def test_ends(model):
    sampling = Sampling(max_tokens=20)
    for prompt, result in zip(
        prompts(5, 19, 20, 21), run(model, prompts(5, 19, 20, 21), sampling), strict=True
    ):
        assert EOS not in result.token_ids
        total = len(prompt.token_ids) + len(result.token_ids)
        if len(prompt.token_ids) >= 20:
            assert (result.finish_reason, result.token_ids) == ("prompt_too_long", ())
        elif result.finish_reason == "length":
            assert total == 20
        else:
            assert result.finish_reason == "eos"
            assert total < 20


def test_end_of_sequence_as_first_token(model):
    class Ends(torch.nn.Module):
        config, device = model.config, model.device

        def forward(self, input_ids, attention_mask, past_key_values, use_cache):
            logits = torch.zeros(*input_ids.shape, VOCABULARY)
            logits[..., EOS] = 99
            return type("Output", (), {"logits": logits})

    engine = StaticBatchingEngine(Ends(), EOS, Sampling(20), 4)
    (result,) = generate(engine, prompts(3), lambda *_: None)
    assert (result.finish_reason, result.token_ids) == ("eos", ())


def test_no_prompts(model):
    assert run(model, [], Sampling(20)) == []


def test_streams_are_counter_based():
    key = stream_key(13, "q", 0)
    assert uniforms(key, 5).tolist() == uniforms(key, 50)[:5].tolist()
    assert uniforms(key, 5).tolist() != uniforms(stream_key(13, "q", 1), 5).tolist()
    # The streams must stay what they are from version to version and machine to machine.
    assert uniforms(key, 2).tolist() == [0.45067788429029454, 0.3760623955813215]


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 1),
    st.floats(0.2, 3),
    st.floats(0.8, 2),
)
def test_the_nucleus_is_that_of_transformers(seed, top_p, temperature, penalty):
    torch.manual_seed(seed)
    logits = torch.randn(1, VOCABULARY) * 3
    ids = torch.randint(0, VOCABULARY, (1, 30))
    seen = torch.zeros(1, VOCABULARY, dtype=torch.bool).scatter(1, ids, value=True)
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            TemperatureLogitsWarper(temperature),
            TopPLogitsWarper(top_p),
        ]
    )(ids, logits.clone())
    nucleus = set(torch.isfinite(theirs[0]).nonzero().flatten().tolist())
    probabilities = torch.softmax(theirs[0].double(), -1)
    sampling = Sampling(99, top_p=top_p, temperature=temperature, repetition_penalty=penalty)
    grid = torch.arange(0, 1, 0.001, dtype=torch.float64)
    chosen = sample_tokens(logits.expand(len(grid), -1), seen.expand(len(grid), -1), grid, sampling)
    shares = torch.bincount(chosen, minlength=VOCABULARY).double() / len(grid)
    edge = probabilities[probabilities > 0].min()  # rounding may move the nucleus by its last token
    assert (shares - probabilities).abs().max() < 0.0021 + edge
    assert len(set(chosen.tolist()) - nucleus) <= 1


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 1e-16])
def test_extreme_uniforms_stay_inside_the_nucleus(u):
    logits = torch.tensor([[5.0, 4.0, -50.0, -60.0]])
    seen = torch.zeros(1, 4, dtype=torch.bool)
    token = sample_tokens(logits, seen, torch.tensor([u]), Sampling(9, top_p=0.9))
    assert token.item() in {0, 1}


def test_non_finite_logits_are_an_error():
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    seen = torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(CheckpointError, match="non-finite logits"):
        sample_tokens(logits, seen, torch.tensor([0.5, 0.5]), Sampling(9))
