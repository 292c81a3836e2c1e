"""The task that decoding is measured on: a model, prompts, and where each row ends.

Speed does not depend on what the weights know, so they are random. The output layer is made peaked
(a scaled matrix, a bias that falls as in Zipf's law), so that the nucleus holds tens to hundreds of
tokens, as in a trained model. Rows end where the task says, and never at the end-of-sequence token.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from transformers import GPTJConfig, GPTJForCausalLM

SMALL = {"n_embd": 256, "n_layer": 6, "n_head": 8, "rotary_dim": 32}
TINY = {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 16}
SIZES = {"small": SMALL, "gptj-6b": {}, "tiny": TINY}
"""What differs from GPT-J-6B's configuration; `tiny` is for trying the scripts."""

EOS = 50256
MEAN, SD, SHORTEST, LONGEST = 560, 180, 150, 1500
"""Of the tokens that a row makes."""

TOP_P, TEMPERATURE, PENALTY = 0.9, 0.9, 1.05


@dataclass(frozen=True)
class Task:
    """Prompts as token ids, and the tokens that each row makes."""

    prompts: list[tuple[int, ...]]
    lengths: list[int]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.lengths):
            raise ValueError("one length for each prompt")

    @property
    def n_tokens(self) -> int:
        """Return the tokens of all rows."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """Return the tokens of the longest row, with its prompt."""
        return max(len(ids) + n for ids, n in zip(self.prompts, self.lengths, strict=True))

    def first(self, n: int) -> Task:
        """Return the task of the first ``n`` prompts alone."""
        return Task(self.prompts[:n], self.lengths[:n])


def make_task(n: int, *, scale: float = 1, seed: int = 1, n_tokens: int = EOS) -> Task:
    """Make ``n`` prompts of 60 to 110 tokens; ``scale`` shortens rows for trials.

    The lengths are the quantiles of the log-normal distribution, shuffled; prompts are drawn from
    the first ``n_tokens`` tokens.
    """
    rng = random.Random(seed)
    variance = math.log(1 + (SD / MEAN) ** 2)
    normal = NormalDist(math.log(MEAN) - variance / 2, math.sqrt(variance))
    lengths = [math.exp(normal.inv_cdf((i + 0.5) / n)) for i in range(n)]
    rng.shuffle(lengths)
    prompts = [
        tuple(rng.randrange(n_tokens) for _ in range(rng.randint(60, 110))) for _ in range(n)
    ]
    return Task(prompts, [max(2, round(scale * min(max(x, SHORTEST), LONGEST))) for x in lengths])


def make_model(size: str, dtype: torch.dtype, device: str, seed: int = 1) -> Any:
    """Make a GPT-J with random weights and a peaked output layer."""
    torch.manual_seed(seed)
    config = GPTJConfig(**SIZES[size], bos_token_id=EOS, eos_token_id=EOS)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = GPTJForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    weight, bias = model.lm_head.weight.data, model.lm_head.bias.data
    weight.normal_(0, 4 / math.sqrt(config.n_embd))
    ranks = torch.randperm(config.vocab_size, device=device) + 1
    bias.copy_(-ranks.float().log())
    bias[EOS] = -1e4
    return model
