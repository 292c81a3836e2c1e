"""From logits to tokens: repetition penalty, temperature, nucleus, and one uniform a token."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from augesc_builder.engine import Sampling
from augesc_builder.errors import CheckpointError


def stream_key(seed: int, query_id: str, sample: int) -> int:
    """Give the key of the random stream that belongs to one sample of one query."""
    digest = hashlib.blake2b(f"{seed}/{query_id}/{sample}".encode(), digest_size=16)
    return int.from_bytes(digest.digest(), "little")


def uniforms(stream: int, n: int) -> Tensor:
    """Give the first ``n`` uniforms in [0, 1) of a stream: float64, one for each new token.

    Philox is counter-based: the number at a position depends on key and position alone.
    """
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=stream)).random(n))


def choose(logits: Tensor, seen: Tensor, u: Tensor, sampling: Sampling) -> Tensor:
    """Choose a token for each row.

    ``logits`` (B, V) are the model's, ``seen`` (B, V) says which tokens stand in prompt or
    continuation, ``u`` (B,) holds a uniform for each row. Returns tokens (B,): for each row the
    inverse of the cumulative distribution at ``u``, over its nucleus in falling order.

    Raises :class:`~augesc_builder.errors.CheckpointError` where logits are no numbers.
    """
    logits = logits.float()
    penalized = torch.where(
        logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty
    )
    logits = torch.where(seen, penalized, logits) / sampling.temperature
    ordered, tokens = torch.sort(logits, dim=-1, descending=True, stable=True)  # (B, V)
    mass = torch.softmax(ordered.double(), dim=-1).cumsum(-1)  # (B, V)
    if not bool(torch.isfinite(mass[:, -1]).all()):
        raise CheckpointError(
            "the model's logits are no numbers; try --set generate.dtype=float32, or train again"
        )
    # The nucleus ends with the token that reaches top_p.
    size = (mass < sampling.top_p).sum(-1).clamp(max=mass.shape[-1] - 1)  # (B,)
    target = u.to(mass) * mass.gather(-1, size[:, None]).squeeze(-1)
    index = torch.searchsorted(mass, target[:, None], right=True).squeeze(-1)
    return tokens.gather(-1, torch.minimum(index, size)[:, None]).squeeze(-1)
