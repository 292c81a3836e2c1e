"""Tiny classifiers, and tiny models and data to train them from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, LlamaConfig, LlamaForCausalLM

from augesc_builder.models import causal_lm
from augesc_builder.models.sequence_classifier import load_to_train
from augesc_builder.sources.sample import read_sample_sessions

WORDS = "i you went home today and then with my friend to see her dog"


def causal_backbone(folder: Path) -> Path:
    """Save a tiny Llama with random weights: no classifier, and its tokenizer joins no pairs."""
    texts = [m["content"] for s in read_sample_sessions() for m in s.messages]
    tokenizer = causal_lm.train_tokenizer(texts, 400)
    config = LlamaConfig(
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: Sequence[str], seed: int = 1) -> Path:
    """Save a tiny classifier with random weights, whose labels differ from text to text."""
    model, tokenizer = load_to_train(str(causal_backbone(folder)), None, None, labels, seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model.score.weight.normal_(0, 3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def word_pieces(folder: Path) -> Any:
    """Save a tokenizer of BERT's kind, of the words of :func:`moods`."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS.split(), "terrible"]) + "\n")
    tokenizer = BertTokenizer.from_pretrained(str(folder))
    tokenizer.save_pretrained(folder)
    return tokenizer


def moods(path: Path, n: int = 64) -> Path:
    """Write pairs of texts of the labels ``glad`` and ``sad``, told by one word of the second."""
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


def small(backbone: Path, path: Path, *overrides: str) -> list[str]:
    """Give overrides of the config ``strategies``: a training on a file within seconds."""
    return [
        f"model.name={backbone}",
        f"data.validation=[{{path: '{path}', weight: 0.25}}]",
        f"phases.first={{sessions: ['{path}'], epochs: 4, learning_rate: 0.01, warmup_steps: 2}}",
        "examples.max_source_tokens=48",
        "train.batch_size=8",
        "train.mixed_precision=no",
        "train.evaluate_every=8",
        "train.patience=null",
        "machine.micro_batch_size=8",
        "machine.save_every=3",
        "machine.keep_checkpoints=null",
        "machine.trackers=[]",
        *overrides,
    ]
