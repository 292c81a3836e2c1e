"""GGUF files for tests: a tiny Llama with random weights, its tokenizer inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
_NORMAL, _CONTROL = 1, 3
"""Kinds of tokens, by their numbers in the format."""


def tokens() -> list[str]:
    """Give a vocabulary of bytes, with a few merges, as byte-level BPEs spell them."""
    return [*SPECIAL, *sorted(ByteLevel.alphabet()), "th", "the"]


def tiny_llama() -> Any:
    """Make a Llama whose heads are grouped, with random weights and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokens()),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    eos: int | None = 2,
    layers: int = 2,
    without: str | None = None,
    kind: str = "F32",
    more: Callable[[Any], object] = lambda _: None,
) -> Any:
    """Write :func:`tiny_llama` and return it; what is given is told of it, true or not.

    ``without`` leaves out the tensors whose names hold it; ``kind`` is the type of the matrices;
    ``more`` may add keys.
    """
    gguf = pytest.importorskip("gguf")
    model = tiny_llama()
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens())
    writer.add_token_types([_CONTROL] * len(SPECIAL) + [_NORMAL] * (len(tokens()) - len(SPECIAL)))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    if eos is not None:
        writer.add_eos_token_id(eos)
    writer.add_chat_template(TEMPLATE)
    more(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        if name == "lm_head.weight" or (without and without in name):
            continue
        n = next((heads[part] for part in stem.split(".") if part in heads), None)
        array = weight.numpy()
        if n:  # the format has the halves of a head in turns, for another rotation
            array = array.reshape(n, 2, -1, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        if kind != "F32" and array.ndim > 1:
            form = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(
                f"{names.get_name(stem)}.{suffix}", gguf.quantize(array, form), raw_dtype=form
            )
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
