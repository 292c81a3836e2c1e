"""Chat models from nothing: a tokenizer with control tokens and a template, and a tiny Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from augesc_builder.models.causal_lm import train_tokenizer
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import render

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ENDED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""Turns that begin with a token of their own; the user's has no end. As DeepSeek has them."""

BARE = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
"""A token begins each turn, and nothing ends it."""

MARKS = ("<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "</s>")


def chat_tokenizer(template: str | None = CHATML, eos: str = "<|im_end|>", size: int = 400) -> Any:
    """Make a byte-level tokenizer whose special tokens are ``MARKS`` and ``<|endoftext|>``."""
    texts = [render(session.messages) for session in read_sample_sessions()]
    tokenizer = train_tokenizer(texts, size, MARKS)
    tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS]})
    tokenizer.eos_token = tokenizer.pad_token = eos
    tokenizer.chat_template = template
    return tokenizer


def save_chat_model(folder: Path, tokenizer: Any) -> Path:
    """Save a tiny Llama with random weights and a tokenizer as a checkpoint of transformers."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(13)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
