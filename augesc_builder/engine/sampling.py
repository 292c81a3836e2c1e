"""From logits to tokens: repetition penalty, temperature, nucleus, and one uniform a token.

A token is the inverse of the cumulative distribution at the row's uniform, over its nucleus in
falling order (equal logits: the smaller id first). :func:`sample_tokens` sorts all logits and is
what "correct" means here; :func:`sample_tokens_fast` sorts few of them, and all where few will not
do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from augesc_builder.engine import Sampling
from augesc_builder.engine.cpu_kernels import call, library
from augesc_builder.errors import CheckpointError

NOT_FINITE = -1
"""Stands for a token where a row has non-finite logits."""

_FLOORS = (2.0**-10, 2.0**-14)
"""Probabilities from which tokens are candidates: in a trained model few are above the first."""

_WIDTHS = (1024, 8192)
"""Numbers of candidates on CUDA, before all tokens are."""


def stream_key(seed: int, query_id: str, sample: int, *part: str | int) -> int:
    """Return the key of the random stream that belongs to one sample of one query.

    ``part`` names a stream of its own beside that of the text, such as an attempt at something.
    """
    name = "/".join(map(str, (seed, query_id, sample, *part)))
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    return int.from_bytes(digest.digest(), "little")


def uniforms(stream: int, n: int) -> Tensor:
    """Return the first ``n`` uniforms in [0, 1) of a stream, (n,): float64, one for each new token.

    Philox is counter-based: the number at a position depends on key and position alone.
    """
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=stream)).random(n))


def sample_tokens(logits: Tensor, seen: Tensor, u: Tensor, sampling: Sampling) -> Tensor:
    """Sample a token for each row.

    ``logits`` (B, V) are the model's, ``seen`` (B, V) says which tokens stand in prompt or
    continuation, ``u`` (B,) holds a uniform for each row. Returns tokens (B,).

    Raises :class:`~augesc_builder.errors.CheckpointError` where logits are not finite.
    """
    logits = logits.float()
    logits = torch.where(seen, _penalized(logits, sampling.repetition_penalty), logits)
    logits = logits / sampling.temperature
    ordered, tokens = torch.sort(logits, dim=-1, descending=True, stable=True)  # (B, V)
    # float64: a sum near 1 would not grow by the least likely tokens in float32.
    masses = torch.softmax(ordered.double(), dim=-1)
    if not bool(masses[:, 0].isfinite().all()):
        raise CheckpointError(
            "the model gives non-finite logits; try --set generate.backend.dtype=float32, or "
            "train again"
        )
    return _draw(ordered, masses, tokens, u, sampling)


def sample_tokens_fast(logits: Tensor, seen_ids: Tensor, u: Tensor, sampling: Sampling) -> Tensor:
    """Sample a token for each row, as :func:`sample_tokens` does, without sorting the vocabulary.

    ``logits`` (B, V) are overwritten where they are float32; ``seen_ids`` (B, W) lists the tokens
    in prompt and continuation, any of them more than once; ``u`` (B,) holds a uniform for each row.
    Returns tokens (B,), and :data:`NOT_FINITE` where a row has non-finite logits.
    """
    logits = logits.float()
    if logits.device.type == "cpu" and not sampling.greedy and library() is not None:
        return _drawn_by_loops(logits.contiguous(), seen_ids, u, sampling)
    if sampling.repetition_penalty != 1:
        # Gathered before any is written, so that a token seen twice is penalized once.
        said = logits.gather(1, seen_ids)  # (B, W)
        logits.scatter_(1, seen_ids, _penalized(said, sampling.repetition_penalty))
    if sampling.greedy:
        best, tokens = logits.max(-1)
        return tokens.where(best.isfinite(), NOT_FINITE)
    if sampling.temperature != 1:
        logits.div_(sampling.temperature)
    p = torch.softmax(logits, dim=-1)  # (B, V)
    candidates = _candidates_on_cpu if logits.device.type == "cpu" else candidates_by_top_k
    for found in candidates(logits, p, sampling):
        if _enough(*found[:2], u, sampling):
            break
    # One column tells of its row: softmax spreads what is not finite over all of it.
    return _draw(*found, u, sampling).where(p[:, 0].isfinite(), NOT_FINITE)


def _drawn_by_loops(logits: Tensor, seen_ids: Tensor, u: Tensor, sampling: Sampling) -> Tensor:
    seen_ids = seen_ids if seen_ids.stride(-1) == 1 else seen_ids.contiguous()
    tokens = torch.empty(len(logits), dtype=torch.long)
    call(
        *("draw", torch.float32, logits, seen_ids, u.double().contiguous(), tokens, *logits.shape),
        *(seen_ids.shape[1], seen_ids.stride(0), sampling.repetition_penalty, sampling.temperature),
        *(sampling.top_k or 0, sampling.top_p, sampling.min_p),
    )
    return tokens


def _penalized(logits: Tensor, penalty: float) -> Tensor:
    return torch.where(logits < 0, logits * penalty, logits / penalty)


Candidates = Iterator[tuple[Tensor, Tensor, Tensor]]
"""Ever more of the likeliest tokens: logits, probabilities (float64) and ids (B, K), in order."""


def _candidates_on_cpu(logits: Tensor, p: Tensor, sampling: Sampling) -> Candidates:
    # A token below (1 - top_p) / V is never in the nucleus: all such together have less mass than
    # 1 - top_p. The bound is a little lower, for rounding.
    n_rows, n_tokens = p.shape
    bound = 0.999 * (1 - sampling.top_p) / n_tokens
    flat_p, flat_logits = p.view(-1).numpy(), logits.view(-1).numpy()
    for floor in (*_FLOORS, bound, 0.0):
        places = np.flatnonzero(flat_p >= floor)
        rows, ids = np.divmod(places, n_tokens)
        counts = np.bincount(rows, minlength=n_rows)
        ranks = np.arange(len(places)) - np.repeat(counts.cumsum() - counts, counts)
        # Logit above id in one whole number: one sort has falling logits, and equal ones by id.
        keys = np.full((n_rows, max(int(counts.max()), 1)), _LAST_KEY)
        keys[rows, ranks] = _falling(flat_logits[places]) << np.uint64(32) | ids.astype(np.uint64)
        keys.sort(axis=1)
        beyond = keys == _LAST_KEY
        tokens = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        tokens[beyond] = 0  # an id that can be looked up; its mass is set to 0
        at = tokens + np.arange(n_rows)[:, None] * n_tokens
        ordered, masses = flat_logits[at], flat_p[at].astype(np.float64)
        ordered[beyond], masses[beyond] = -np.inf, 0
        yield torch.from_numpy(ordered), torch.from_numpy(masses), torch.from_numpy(tokens)


_LAST_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Fills up rows with fewer candidates than others: sorted behind every token."""


def _falling(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return 32-bit numbers that rise where ``x`` falls: whole numbers are sorted much faster."""
    bits = (x + np.float32(0)).view(np.uint32)  # -0 becomes 0
    rising = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    return (~rising).astype(np.uint64)


def candidates_by_top_k(logits: Tensor, p: Tensor, sampling: Sampling) -> Candidates:
    """Yield the likeliest thousand, then more, then all, as CUDA is fast at."""
    n_tokens = p.shape[-1]
    for width in (*_WIDTHS, n_tokens):
        if width < n_tokens:
            # Equal logits come out of topk in any order: by id first, so that the stable sort below
            # leaves the smaller id in front.
            ids = logits.topk(width, dim=-1).indices.sort(-1).values
        else:
            ids = torch.arange(n_tokens, device=p.device).expand_as(p)
        ordered, order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True)
        tokens = ids.gather(1, order)
        yield ordered, p.gather(1, tokens).double(), tokens


def _enough(ordered: Tensor, masses: Tensor, u: Tensor, sampling: Sampling) -> bool:
    """Whether the candidates (B, K) hold every row's token, whatever the other tokens are.

    The last candidate never counts: tokens that are no candidates may be as likely.
    """
    width = ordered.shape[-1]
    if sampling.top_k is not None:
        k = sampling.top_k
        return width > k and bool((ordered[:, k - 1] > ordered[:, -1]).all())
    mass = masses.cumsum(-1)
    need = u.to(mass)[:, None] if sampling.top_p == 1 else sampling.top_p
    reaches = (mass <= need).sum(-1, keepdim=True)
    held = ordered.gather(-1, reaches.clamp(max=width - 1)) > ordered[:, -1:]
    held &= (reaches < width) & (sampling.top_p < 1 or sampling.min_p == 0)
    if sampling.min_p:
        last = masses.masked_fill(~ordered.isfinite(), torch.inf).amin(-1, keepdim=True)
        held |= last < sampling.min_p * masses[:, :1]
    return bool(held.all())


def _draw(ordered: Tensor, masses: Tensor, tokens: Tensor, u: Tensor, sampling: Sampling) -> Tensor:
    """Cut the nucleus out of the likeliest tokens (B, K), in order, and draw from it: (B,)."""
    if sampling.greedy:
        return tokens[:, 0]
    last = torch.full_like(tokens[:, 0], masses.shape[-1] - 1)  # index of the nucleus's last token
    mass = masses.cumsum(-1)
    whole = torch.ones_like(mass[:, 0])
    if sampling.top_k is not None:
        k = min(sampling.top_k, masses.shape[-1])
        last = (ordered >= ordered[:, k - 1 : k]).sum(-1) - 1
        whole = mass.gather(-1, last[:, None]).squeeze(-1)
    if sampling.top_p < 1:
        reaches = (mass < sampling.top_p * whole[:, None]).sum(-1)
        last = torch.minimum(reaches, last)
    if sampling.min_p:
        likely = (masses >= sampling.min_p * masses[:, :1]).sum(-1) - 1
        last = torch.minimum(likely.clamp(min=0), last)
    full = mass.gather(-1, last[:, None]).squeeze(-1)
    if sampling.top_p == 1 and sampling.top_k is None and not sampling.min_p:
        full = whole  # the mass of all tokens, candidates or not
    target = u.to(mass) * full
    # The product may round up to ``full``: without the minimum the token behind would be drawn.
    index = torch.searchsorted(mass, target[:, None], right=True).squeeze(-1)
    return tokens.gather(-1, torch.minimum(index, last)[:, None]).squeeze(-1)
