"""Tiny classifiers, and tiny models and data to train them from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from augesc_builder.models import causal_lm
from augesc_builder.models.sequence_classifier import load_to_train
from augesc_builder.sources.sample import read_sample_sessions

WORDS = "i you went home today and then with my friend to see her dog"


def causal_backbone(folder: Path, layers: int = 2) -> Path:
    """Save a tiny Llama with random weights: no classifier, and its tokenizer joins no pairs."""
    texts = [m["content"] for s in read_sample_sessions() for m in s.messages]
    tokenizer = causal_lm.train_tokenizer(texts, 400)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: Sequence[str], seed: int = 1) -> Path:
    """Save a tiny classifier with random weights."""
    model, tokenizer = load_to_train(str(causal_backbone(folder)), None, None, labels, seed)
    with torch.no_grad():
        model.score.weight.normal_(0, 3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def moods(path: Path, n: int = 64) -> Path:
    """Write pairs of texts of the labels ``glad`` and ``sad``."""
    rng = random.Random(1)
    words = WORDS.split()
    lines = ["text\ttext_pair\tlabel"]
    for i in range(n):
        label = ("glad", "sad")[i % 2]
        said = rng.choices(words, k=4)
        said.insert(rng.randrange(5), {"glad": "wonderful", "sad": "terrible"}[label])
        lines.append(f"{' '.join(rng.choices(words, k=6))}\t{' '.join(said)}\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path
