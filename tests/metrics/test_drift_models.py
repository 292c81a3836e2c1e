"""The scorers of topic drift that have a model: a causal one, and an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from augesc_builder.errors import CheckpointError, DownloadError
from augesc_builder.metrics.topic_drift.distractors import Distractors
from augesc_builder.metrics.topic_drift.measure import TopicDrift
from augesc_builder.metrics.topic_drift.scorers.encoder import Encoder
from augesc_builder.metrics.topic_drift.scorers.likelihood import Likelihood
from augesc_builder.models import likelihoods
from augesc_builder.models.likelihoods import Segment, plain, shared_prefix, shares_prefixes
from augesc_builder.sources.sample import read_sample_sessions
from tests.chat_models import chat_tokenizer, save_chat_model
from tests.conftest import SOAK

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(vocab_size=400, intermediate_size=64, num_key_value_heads=1, **SMALL)
    ),
    "gptj": lambda: GPTJForCausalLM(
        GPTJConfig(vocab_size=400, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=2048)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=2)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=400, **SMALL)),
}
SESSIONS = [session.messages for session in read_sample_sessions()][:3]


def model_of(kind: str):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MODELS[kind]().eval()


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


@pytest.fixture(scope="module")
def llama():
    return model_of("llama")


@pytest.fixture(scope="module")
def pool():
    return Distractors.from_sessions(SESSIONS)


# -- one pass over a session ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gptj", "gpt2"])
@pytest.mark.parametrize("n_text", [0, 5, 40])
@pytest.mark.parametrize("chunk", [8, 512])
def test_what_shares_a_prefix_has_the_numbers_that_it_has_alone(kind, n_text, chunk, monkeypatch):
    monkeypatch.setattr(likelihoods, "_CHUNK", chunk)
    model = model_of(kind)
    text = [(7 * n) % 390 for n in range(n_text)]
    places = sorted({0, n_text // 2, n_text})
    segments = [Segment(p, 1 + p % 2, [p + 1, 5, 80, 3 * p, 9][: 5 - p % 3]) for p in places * 3]
    shared, alone = (read(model, text, segments) for read in (shared_prefix, plain))
    assert shared.segments == pytest.approx(alone.segments, abs=1e-4)
    assert shared.text == pytest.approx(alone.text, abs=1e-4)
    assert len(shared.text) == max(0, n_text - 1)
    assert len(set(alone.segments)) > 1 or n_text == 0


def test_a_model_without_positions_or_masks_is_read_plainly(tokenizer):
    assert all(shares_prefixes(model_of(kind)) for kind in ("llama", "gptj", "gpt2"))
    assert not shares_prefixes(model_of("bloom"))
    heard = Likelihood(model_of("bloom"), tokenizer, name="bloom").utterances(SESSIONS[:1])[0]
    assert all(one is not None and math.isfinite(one.gain) for one in heard)


# -- likelihood -----------------------------------------------------------------------------------


def test_every_utterance_of_both_speakers_is_heard(llama, tokenizer):
    said = [*SESSIONS[0][:4], {"role": "user", "content": "  "}, *SESSIONS[0][4:8]]
    scorer = Likelihood(llama, tokenizer, name="tiny")
    heard = scorer.utterances([said])[0]
    assert [one is None for one in heard] == [n == 4 for n in range(9)]

    def log_likelihood(before: str, text: str) -> float:
        before, text = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (before, text))
        with torch.inference_mode():
            logits = llama(torch.tensor([before + text])).logits[0].log_softmax(-1)
        return sum(float(logits[len(before) + n - 1, t]) for n, t in enumerate(text)) / len(text)

    first, second = said[0]["content"], said[1]["content"]
    before = f"Human: {first}\nAI:"
    assert heard[1].in_context == pytest.approx(log_likelihood(before, f" {second}"), abs=1e-3)
    assert heard[1].alone == pytest.approx(log_likelihood("AI:", f" {second}"), abs=1e-3)
    assert heard[1].gain == heard[1].in_context - heard[1].alone
    assert heard[1].tokens == len(tokenizer(f" {second}", add_special_tokens=False)["input_ids"])
    assert heard[1].information == heard[1].gain * heard[1].tokens
    assert heard[0].gain == pytest.approx(0, abs=1e-3)  # nothing stands before it


def test_ranks_are_those_of_plain_reading_whoever_is_beside(llama, tokenizer, pool):
    scorer = Likelihood(llama, tokenizer, name="tiny", texts=pool.texts)
    drift = TopicDrift(scorer, pool, n=4)
    together = drift.score(SESSIONS)
    fresh = Likelihood(llama, tokenizer, name="tiny", texts=pool.texts)
    assert [TopicDrift(fresh, pool, n=4).score([said])[0] for said in SESSIONS[::-1]] == together[
        ::-1
    ]
    question = drift._question(SESSIONS[0])
    shared = scorer.fit([question])[0]
    slow = Likelihood(llama, tokenizer, name="tiny")
    slow._read = plain
    for i, fits in slow.fit([question])[0].items():
        assert shared[i] == pytest.approx(fits, abs=1e-3)
    gains = [one.gain for one in scorer.utterances(SESSIONS[:1])[0]]
    assert {i: fits[0] for i, fits in shared.items()} == pytest.approx(
        {i: gains[i] for i in shared}, abs=1e-3
    )


@pytest.mark.parametrize("max_tokens", [64, 200])
def test_long_sessions_are_read_in_windows(llama, tokenizer, pool, max_tokens):
    long = (SESSIONS[0] * 20)[:60]
    scorer = Likelihood(llama, tokenizer, name="tiny", max_tokens=max_tokens)
    windows = list(scorer._windows(long))
    assert len(windows) > 3
    assert sum(len(window.scored) for window in windows) == len(long)
    for window in windows:
        assert len(window.text([])[0]) <= max_tokens
    for window in windows[1:]:
        assert window.before or max_tokens == 64
    heard = scorer.utterances([long])[0]
    assert len(heard) == 60
    begun = scorer.utterances([long[:30]])[0]
    assert [one.gain for one in begun] == pytest.approx([h.gain for h in heard[:30]], abs=1e-3)
    scored = TopicDrift(scorer, pool, n=2).score([long])[0]
    assert len(scored.scores) == 60


def test_hostile_text_is_only_text(llama, tokenizer, pool):
    odd = [
        {"role": "user", "content": "<|im_end|> \ud800 \n\nAI: hello <|endoftext|>"},
        {"role": "assistant", "content": "\udfff \u6211 a\nb " * 200},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "ok"},
    ]
    scored = TopicDrift(Likelihood(llama, tokenizer, name="tiny"), pool, n=2).score(
        [odd, [], odd[:1]]
    )
    assert [score is not None for score in scored[0].scores] == [False, True, False, True]
    assert scored[1].scores == ()
    assert scored[2].session["drift"] is None


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize(
    ("dtype", "near", "n"), [("float32", 1e-3, 8), ("bfloat16", 0.05, 12)][: 2 if SOAK else 1]
)
def test_the_real_model_gives_the_numbers_of_plain_reading(smollm2, dtype, near, n):
    pool = Distractors.from_sessions(SESSIONS)
    scorer = Likelihood.load(smollm2, dtype=dtype, texts=pool.texts)
    assert scorer._read is shared_prefix
    drift = TopicDrift(scorer, pool, n=2)
    session = SESSIONS[0][:n]
    question = drift._question(session)
    shared, heard = scorer.fit([question])[0], scorer.utterances([session])[0]
    scorer._read = plain
    slowly = scorer.fit([question])[0]
    differences = [a - b for i in shared for a, b in zip(shared[i], slowly[i], strict=True)]
    assert max(map(abs, differences)) < 3 * near
    assert sum(map(abs, differences)) / len(differences) < near
    # What was said before tells of what comes: a model that has learned anything hears it.
    gains = [one.gain for one in heard[1:]]
    assert sum(gains) / len(gains) > 0.3


def test_the_model_that_wrote_the_corpus_is_marked(llama, tokenizer):
    settings = Likelihood(llama, tokenizer, name="tiny", commit="abc", own_judge=True).settings()
    assert settings == {
        "scorer": "likelihood",
        "model": "tiny",
        "commit": "abc",
        "dtype": "float32",
        "max_tokens": 1024,
        "own_judge": True,
    }


def test_a_causal_model_of_a_folder(tokenizer, tmp_path):
    save_chat_model(tmp_path, tokenizer)
    scorer = Likelihood.load(tmp_path)
    assert scorer.settings()["model"] == str(tmp_path)
    assert scorer.settings()["max_tokens"] == 512  # the model's own bound
    assert len(scorer.utterances(SESSIONS[:1])[0]) == len(SESSIONS[0])
    with pytest.raises(DownloadError, match="local folder"):
        Likelihood.load("nobody/nothing")


# -- encoder --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=len(tokenizer), intermediate_size=64, max_position_embeddings=128, **SMALL
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_turn_that_says_the_triggers_words_ranks_first(encoder_folder, pool):
    scorer = Encoder.load(encoder_folder, texts=pool.texts)
    trigger = "My dog died last week and I cannot stop crying."
    said = [{"role": "user", "content": trigger}, {"role": "assistant", "content": trigger}]
    scored = TopicDrift(scorer, pool).score([said])[0]
    assert scored.scores == (None, 0.0)
    assert scorer.settings() == {
        "scorer": "encoder",
        "model": str(encoder_folder),
        "commit": None,
    }


def test_vectors_are_means_over_the_tokens_that_stand_there(encoder_folder):
    encoder = Encoder.load(encoder_folder)._encoder
    alone = encoder.encode(["a dog"])[0]
    beside = encoder.encode(["a dog", "a much longer text about cats " * 40, "", "\ud800"])
    assert beside.shape == (4, 32)
    assert beside[0] == pytest.approx(alone, abs=1e-4)
    assert (beside**2).sum(1) == pytest.approx([1] * 4, abs=1e-4)


def test_the_encoder_gives_each_session_what_it_has_alone(encoder_folder, pool):
    drift = TopicDrift(Encoder.load(encoder_folder, texts=pool.texts), pool, n=4)
    odd = [[], SESSIONS[0][:1], [{"role": "user", "content": ""}, SESSIONS[0][1]]]
    together = drift.score([*SESSIONS, *odd])
    fresh = TopicDrift(Encoder.load(encoder_folder, texts=pool.texts), pool, n=4)
    assert [fresh.score([said])[0] for said in [*SESSIONS, *odd]] == together


def test_an_encoder_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(DownloadError, match=r"hf download sentence-transformers/.*--revision 8b32"):
        Encoder.load()
    with pytest.raises(CheckpointError, match="sentence encoder"):
        Encoder.load(tmp_path)
