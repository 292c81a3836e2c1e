"""Log-likelihoods of many texts that stand behind parts of one text, which is read once.

The text's keys and values are kept. What is to be scored is packed into one sequence behind them, a
block-diagonal mask over it: each segment sees the part of the text that it stands behind, and
itself. So it has the numbers that it would have if it were read alone, with that part before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

_CHUNK = 512
"""Tokens that a model reads at a time, which bounds the memory of its logits."""

_ROWS = 32

_ROUNDED, _EXACT = 0.03, 1e-3
"""How far, in parts of itself, a number may be from that of plain reading, by the type's bits."""


class Segment(NamedTuple):
    """Tokens behind the first ``behind`` tokens of a text; the first ``given`` are not scored.

    At least one is given, so that there is something to predict the others from.
    """

    behind: int
    given: int
    ids: Sequence[int]


class Likelihoods(NamedTuple):
    """Log-likelihoods of a text and of what stands behind parts of it, in nats."""

    text: list[float]
    """Of each token of the text but the first, (n - 1)."""
    segments: list[float]
    """Of each segment, the mean over the tokens that are scored."""


@torch.inference_mode()
def shared_prefix(model: Any, text: list[int], segments: Sequence[Segment]) -> Likelihoods:
    """Score a text and segments behind parts of it; each of them has a token that is scored.

    The model is one of transformers' whose attention goes by a mask and by positions that it is
    told (:func:`shares_prefixes` tries it).
    """
    cache = DynamicCache()
    of_text: list[torch.Tensor] = []
    for first in range(0, len(text), _CHUNK):
        chunk = _tensor(text[first : first + _CHUNK], model)
        positions = torch.arange(first, first + len(chunk), device=model.device)
        logits = _read(model, chunk, positions, cache)
        of_text.append(_chosen(logits, _tensor(text[first + 1 : first + _CHUNK + 1], model)))
    # What stands farthest behind comes first, so that the others need no keys and values of it.
    order = sorted(range(len(segments)), key=lambda i: -segments[i].behind)
    means = [0.0] * len(segments)
    kept, used = len(text), 0
    for places in _packs(order, segments):
        pack = [segments[i] for i in places]
        needed = pack[0].behind
        if needed == 0:
            cache = DynamicCache()
        elif used := used + kept - needed:
            cache.crop(-used)
        for i, mean in zip(places, _read_pack(model, pack, cache, needed), strict=True):
            means[i] = mean
        kept, used = needed, sum(len(segment.ids) for segment in pack)
    return Likelihoods([value for part in of_text for value in part.tolist()], means)


@torch.inference_mode()
def plain(model: Any, text: list[int], segments: Sequence[Segment]) -> Likelihoods:
    """Return what :func:`shared_prefix` does, each segment read with its part of the text: slow."""

    def chosen(ids: torch.Tensor, first: int) -> torch.Tensor:
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        return _chosen(logits[first - 1 :], ids[first:])

    means = [
        float(chosen(_tensor([*text[:behind], *ids], model), behind + given).mean())
        for behind, given, ids in segments
    ]
    return Likelihoods(chosen(_tensor(text, model), 1).tolist() if text else [], means)


def shares_prefixes(model: Any) -> bool:
    """Whether a model gives segments the numbers that it gives them alone, tried on a few."""
    text = [n % 50 for n in range(3, 23)]
    segments = [Segment(behind, 1, [7, 9, behind, 11, 2]) for behind in (4, 12, 20)]
    try:
        shared = shared_prefix(model, text, segments).segments
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        return False
    alone = plain(model, text, segments).segments
    tolerance = _ROUNDED if model.dtype in {torch.bfloat16, torch.float16} else _EXACT
    return all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(shared, alone, strict=True))


def _read(
    model: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    cache: Any,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the logits of tokens behind those in the cache, (n, vocabulary)."""
    read = model(
        input_ids=ids[None],
        position_ids=positions[None],
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    )
    logits: torch.Tensor = read.logits[0]
    return logits


def _read_pack(model: Any, pack: Sequence[Segment], cache: Any, n_text: int) -> list[float]:
    n = sum(len(segment.ids) for segment in pack)
    ids = _tensor([token for segment in pack for token in segment.ids], model)
    positions = torch.empty(n, dtype=torch.long, device=model.device)
    mask = torch.full((n, n_text + n), torch.finfo(model.dtype).min, dtype=model.dtype)
    spans: list[tuple[int, int]] = []
    at = 0
    for behind, given, own in pack:
        end = at + len(own)
        positions[at:end] = torch.arange(behind, behind + len(own))
        mask[at:end, :behind] = 0
        mask[at:end, n_text + at : n_text + end].triu_(1)
        spans.append((at + given, end))
        at = end
    logits = _read(model, ids, positions, cache, mask.to(model.device)[None, None])
    of_ids = _chosen(logits, ids[1:])
    return [float(of_ids[first - 1 : end - 1].mean()) for first, end in spans]


def _chosen(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the log-likelihoods of the tokens that come next, (n,), as float32."""
    found = [torch.empty(0, device=logits.device)]
    for first in range(0, len(ids), _ROWS):  # a copy of all rows would not stay in the caches
        rows = logits[first : min(first + _ROWS, len(ids))].float()
        of_rows = ids[first : first + _ROWS, None]
        found.append(rows.gather(-1, of_rows)[:, 0] - rows.logsumexp(-1))
    return torch.cat(found)


def _packs(order: Sequence[int], segments: Sequence[Segment]) -> Iterator[list[int]]:
    """Yield the numbers of segments in order, as many together as a model reads at a time."""
    pack: list[int] = []
    n = 0
    for i in order:
        if pack and n + len(segments[i].ids) > _CHUNK:
            yield pack
            pack, n = [], 0
        pack.append(i)
        n += len(segments[i].ids)
    if pack:
        yield pack


def _tensor(ids: Sequence[int], model: Any) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long, device=model.device)
