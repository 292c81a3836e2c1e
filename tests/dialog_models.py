"""Dialog models from nothing: tiny ones, some of which say what their logits are bent to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.training import Shape
from augesc_builder.dialog.encoding import PLAIN_TEMPLATE
from augesc_builder.models import causal_lm, dialog
from augesc_builder.sources.sample import read_sample_sessions

SPECIAL = ("__null__", "__start__", "__end__", "__unk__", "__newln__")


def blender(
    folder: Path,
    seed: int = 1,
    *,
    bias: Mapping[str, float] | None = None,
    n_positions: int = 256,
    more: tuple[str, ...] = (),
) -> Path:
    """Save a tiny Blenderbot-small with random weights.

    ``bias`` is added to the logits of tokens, ``__end__`` among them; ``more`` are tokens beyond
    those of the sample's sessions.
    """
    tokenizer = causal_lm.train_tokenizer(_texts(), 400, SPECIAL)
    tokenizer.add_special_tokens(
        {
            **{"pad_token": "__null__", "bos_token": "__start__"},
            **{"eos_token": "__end__", "unk_token": "__unk__"},
        }
    )
    tokenizer.add_tokens([*more])
    shape = Shape(
        **{"vocab_size": 400, "d_model": 32, "layers": 1, "heads": 2, "ffn_dim": 32},
        **{"n_positions": n_positions, "dropout": 0.0},
    )
    model = dialog.from_scratch(shape, tokenizer, seed)
    with torch.no_grad():
        for token, value in (bias or {}).items():
            model.final_logits_bias[0, tokenizer.convert_tokens_to_ids(token)] += value
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def causal(folder: Path) -> Path:
    """Save a tiny GPT-J with random weights and a chat template."""
    shape = FromScratch(
        **{"vocab_size": 400, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4},
        n_positions=512,
    )
    model, tokenizer = causal_lm.from_scratch(shape, _texts(), 1)
    tokenizer.chat_template = PLAIN_TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _texts() -> list[str]:
    return [m["content"] for session in read_sample_sessions() for m in session.messages]
