"""The chunked loss against that of all logits: values, gradients, and who may have it."""

from __future__ import annotations

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
)

from augesc_builder.models import chunked_loss
from augesc_builder.models.chunked_loss import SummedLoss
from augesc_builder.models.training_step import IGNORED

V = 61
_SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": V}
_LLAMA = {**_SHAPE, "num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": V, "n_positions": 32}
_DROPS = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
PLAIN = {
    "llama": LlamaConfig(**_LLAMA),
    "llama, tied": LlamaConfig(**_LLAMA, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**_LLAMA),
    "gpt-j, with a bias": GPTJConfig(**_GPT, **_DROPS, rotary_dim=4),
    "gpt-2": GPT2Config(**_GPT, **_DROPS),
    "gpt-neox": GPTNeoXConfig(**_SHAPE, intermediate_size=24, rotary_pct=0.5),
    "opt": OPTConfig(**_SHAPE, ffn_dim=24, word_embed_proj_dim=16, dropout=0.0),
}
CHANGED = {
    "gemma 2, capped": Gemma2Config(**_LLAMA, final_logit_softcapping=2.0),
    "cohere, scaled": CohereConfig(**_LLAMA, logit_scale=0.5),
    "granite, scaled": GraniteConfig(**_LLAMA, logits_scaling=4.0),
}


def made(config, seed=0):
    config.use_cache = False
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases of zero hide what is done with them
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.train()


def batch_of(lengths, n_ignored, seed=0):
    """Give rows padded on the right, whose first labels are to be ignored, and their mask."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (len(lengths), max(lengths)), generator=random)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    labels = torch.where(mask, ids, IGNORED)
    labels[:, :n_ignored] = IGNORED
    return torch.where(mask, ids, 0), labels, mask.long()


def reference(model, ids, labels, mask):
    logits = model(input_ids=ids, attention_mask=mask).logits
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(ours, theirs, tolerance=1e-4):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = theirs[name].abs().max().clamp(min=1e-2)  # float32 leaves 1e-7 of what cancels
        assert (gradient - theirs[name]).abs().max() <= tolerance * scale, name


@pytest.fixture(params=[1, 5 * V, 1 << 24], ids=["one token", "five", "all at once"])
def at_once(request, monkeypatch):
    monkeypatch.setattr(chunked_loss, "_LOGITS_AT_ONCE", request.param)


@pytest.mark.parametrize("kind", PLAIN)
def test_loss_and_gradients_are_those_of_all_logits(kind, at_once):
    model = made(PLAIN[kind])
    loss_of = SummedLoss(model)
    assert loss_of.in_chunks
    assert model.training
    ids, labels, mask = batch_of([17, 9, 12], 4)
    theirs = reference(model, ids, labels, mask)
    ours = loss_of(model, ids, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_same(gradients_of(model, 0.3 * ours), gradients_of(model, 0.3 * theirs))
    assert model(input_ids=ids).logits.shape == (3, 17, V)  # the model is as it was


@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=4), st.integers(0, 21), st.integers(1, 900)
)
def test_any_lengths_and_chunks(lengths, n_ignored, at_once):
    model = _LLAMA_MODEL
    ids, labels, mask = batch_of(lengths, n_ignored, seed=at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_loss, "_LOGITS_AT_ONCE", at_once)
        ours = _LLAMA_LOSS(model, ids, labels)
        found = gradients_of(model, ours)
    theirs = reference(model, ids, labels, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_same(found, gradients_of(model, theirs))


_LLAMA_MODEL = made(PLAIN["llama"])
_LLAMA_LOSS = SummedLoss(_LLAMA_MODEL)


@pytest.mark.parametrize("kind", CHANGED)
def test_logits_that_a_model_changes_are_computed_as_they_are(kind):
    model = made(CHANGED[kind])
    loss_of = SummedLoss(model)
    assert not loss_of.in_chunks
    ids, labels, mask = batch_of([11, 8], 3)
    ours, theirs = loss_of(model, ids, labels), reference(model, ids, labels, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_same(gradients_of(model, ours), gradients_of(model, theirs))


def test_nothing_to_learn_is_zero_everywhere():
    """As in a process without an example: gradients are there, for others to be added."""
    model = made(PLAIN["gpt-j, with a bias"])
    ids, labels, _ = batch_of([9, 5], 0)
    loss = SummedLoss(model)(model, ids, torch.full_like(labels, IGNORED))
    found = gradients_of(model, loss)
    assert loss.item() == 0
    assert found.keys() == dict(model.named_parameters()).keys()
    assert not any(gradient.any() for gradient in found.values())


def test_bfloat16_autocast(at_once):
    model = made(PLAIN["llama, tied"])
    loss_of = SummedLoss(model)
    ids, labels, mask = batch_of([17, 9, 12], 4)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = loss_of(model, ids, labels), reference(model, ids, labels, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    found = gradients_of(model, ours)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert_same(found, gradients_of(model, theirs), tolerance=0.05)


def test_weights_in_bfloat16():
    model = made(PLAIN["llama"]).bfloat16()
    ids, labels, mask = batch_of([17, 9, 12], 4)
    ours = SummedLoss(model)(model, ids, labels)
    assert ours.dtype == torch.float32
    theirs = reference(model, ids, labels, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
    assert_same(gradients_of(model, ours), gradients_of(model, theirs), tolerance=0.1)


def test_without_gradients():
    model = made(PLAIN["llama"])
    ids, labels, mask = batch_of([17, 9], 4)
    loss_of = SummedLoss(model)
    with torch.no_grad():
        ours = loss_of(model, ids, labels)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, reference(model, ids, labels, mask).detach())


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "lm_head"]])
def test_lora(targets):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(made(PLAIN["llama"]), config).train()
    loss_of = SummedLoss(model)
    assert loss_of.in_chunks == ("lm_head" not in targets)
    ids, labels, mask = batch_of([17, 9], 4)
    ours, theirs = loss_of(model, ids, labels), reference(model, ids, labels, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    found = gradients_of(model, ours)
    assert found
    assert all("lora" in name for name in found)
    assert_same(found, gradients_of(model, theirs))


def test_hooks_of_accelerate_stay():
    """As `device_map` puts them around every layer and around the model."""
    model = made(PLAIN["llama"])
    ids, labels, mask = batch_of([17, 9], 4)
    theirs = reference(model, ids, labels, mask)
    for module in (model, *model.model.layers, model.lm_head):
        add_hook_to_module(module, AlignDevicesHook(torch.device("cpu"), io_same_device=True))
    hooked = model.lm_head.forward
    loss_of = SummedLoss(model)
    assert loss_of.in_chunks
    torch.testing.assert_close(loss_of(model, ids, labels), theirs)
    assert model.lm_head.forward == hooked


def test_the_head_is_as_it_was_after_an_error():
    model = made(PLAIN["llama"])
    loss_of = SummedLoss(model)
    with pytest.raises(IndexError):
        loss_of(model, torch.full((1, 4), V + 1), torch.zeros((1, 4), dtype=torch.int64))
    assert model(input_ids=torch.zeros((1, 4), dtype=torch.int64)).logits.shape == (1, 4, V)


def test_memory_grows_with_a_chunk_and_not_with_the_text(monkeypatch):
    """The largest tensor that is made, and what is kept for the backward pass."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            for each in found if isinstance(found, (tuple, list)) else [found]:
                if isinstance(each, torch.Tensor):
                    self.n = max(self.n, each.numel())
            return found

    monkeypatch.setattr(chunked_loss, "_LOGITS_AT_ONCE", 8 * V)
    model = made(PLAIN["llama"])
    loss_of = SummedLoss(model)
    ids, labels, mask = batch_of([200], 0)
    with Largest() as ours:
        loss_of(model, ids, labels).backward()
    with Largest() as theirs:
        reference(model, ids, labels, mask).backward()
    assert theirs.n >= 199 * V
    assert ours.n < theirs.n / 1.3
