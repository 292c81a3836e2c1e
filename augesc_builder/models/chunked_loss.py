"""The loss of a causal language model in chunks, so that all its logits are never there at once.

Logits are the largest tensors of a training step, tokens times vocabulary: in the type of the
arithmetic, in float32, as probabilities, and as gradients. Here the model's own output layer gives
the loss in their place. It works chunk by chunk, at labelled positions alone, and takes the
gradients on the way. As the model itself calls that layer, all that wraps it stays at work:
autocast, DDP, FSDP, the hooks of ``accelerate``, LoRA.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from augesc_builder.models.training_step import IGNORED

_LOGITS_AT_ONCE = 1 << 24
"""Of one chunk: 64 MiB in float32."""


class SummedLoss:
    """The cross entropy of a causal language model's labels, summed; in chunks where that is safe.

    It is (``in_chunks``) where the output layer is a plain linear one and the model hands on what
    that gives, untouched. Other models (logits that are scaled, capped or cut, an output layer that
    LoRA has wrapped) have all their logits computed. To find out, ``model`` runs once; it must not
    be wrapped for several processes yet.
    """

    def __init__(self, model: Any) -> None:
        self._head = model.get_output_embeddings()
        self.in_chunks = type(self._head) is torch.nn.Linear and _hands_on(model, self._head)

    def __call__(self, model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of ``labels``, each given the tokens before it: a float32 scalar (nats).

        Both are (B, T), padded on the right; there a causal model needs no mask, since padding
        comes after all that counts. ``model`` is the one that this was made for, maybe wrapped.
        """
        labels = labels[:, 1:]
        if not self.in_chunks:
            logits = model(input_ids=input_ids).logits[:, :-1]  # (B, T - 1, V)
            return functional.cross_entropy(
                logits.flatten(0, 1).float(),
                labels.flatten().to(logits.device),
                ignore_index=IGNORED,
                reduction="sum",
            )

        def loss_of(hidden: torch.Tensor) -> torch.Tensor:  # (B, T, H)
            weight, bias = self._head.weight, self._head.bias
            device = weight.device
            autocast = torch.is_autocast_enabled(device.type)
            dtype = torch.get_autocast_dtype(device.type) if autocast else weight.dtype
            targets = labels.to(device)
            counted = targets != IGNORED
            rows = hidden[:, :-1].to(device)[counted].to(dtype)  # (N, H)
            apply: Callable[..., torch.Tensor] = _CrossEntropy.apply  # which has no types
            return apply(rows, weight, bias, targets[counted], torch.is_grad_enabled())

        with _computing(self._head, loss_of):
            loss: torch.Tensor = model(input_ids=input_ids).logits
        return loss


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy of what a linear layer gives, summed over rows; gradients come with it."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,  # (N, H)
        weight: torch.Tensor,  # (V, H)
        bias: torch.Tensor | None,  # (V,)
        targets: torch.Tensor,  # (N,)
        training: bool,
    ) -> torch.Tensor:
        inputs = (rows, weight, bias)
        needed = [training and needs for needs in ctx.needs_input_grad[:3]]
        matrix = weight.to(rows.dtype)
        offset = bias if bias is None else bias.to(rows.dtype)
        sums = [
            torch.zeros_like(of, dtype=torch.float32) if of is not None and needs else None
            for of, needs in zip(inputs, needed, strict=True)
        ]
        to_rows, to_weight, to_bias = sums
        loss = torch.zeros((), dtype=torch.float32, device=rows.device)
        size = max(1, _LOGITS_AT_ONCE // len(weight))
        for start in range(0, len(rows), size):
            chunk, expected = rows[start : start + size], targets[start : start + size, None]
            logits = functional.linear(chunk, matrix, offset)  # (C, V)
            found = torch.log_softmax(logits, dim=1, dtype=torch.float32)
            del logits
            loss -= found.gather(1, expected).sum()
            if not any(needed):
                continue
            one = torch.ones_like(expected, dtype=torch.float32)
            errors = found.exp_().scatter_add_(1, expected, -one)  # of probabilities
            if to_bias is not None:
                to_bias += errors.sum(0)
            errors = errors.to(rows.dtype)
            del found
            if to_rows is not None:
                to_rows[start : start + size] = errors @ matrix
            if to_weight is not None:
                to_weight += errors.t() @ chunk
        ctx.gradients = [
            None if gradient is None or of is None else gradient.to(of.dtype)
            for gradient, of in zip(sums, inputs, strict=True)
        ]
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        # They are scaled in place, for one is as large as the weights: so there is one pass.
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if gradient is None else gradient.mul_(upstream) for gradient in gradients]
        return *scaled, None, None


def _hands_on(model: Any, head: torch.nn.Linear) -> bool:
    """Whether a model's logits are what its output layer gives: it gives a marker, to find out."""
    marker = torch.empty(0)

    def mark(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal marker
        shape = torch.Size([*hidden.shape[:-1], head.out_features])
        marker = torch.arange(shape.numel(), device=hidden.device).view(shape).to(hidden.dtype)
        return marker

    training = model.training
    device = model.get_input_embeddings().weight.device
    with torch.no_grad(), _computing(head, mark):
        logits = model.eval()(
            input_ids=torch.zeros((1, 2), dtype=torch.int64, device=device)
        ).logits
    model.train(training)
    return logits.shape == marker.shape and torch.equal(logits.to(marker), marker)


@contextlib.contextmanager
def _computing(layer: Any, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Have a layer compute something else; what is hooked to it, as by FSDP, stays."""
    kept = vars(layer).get("forward")  # its own, where accelerate has put one there
    layer.forward = forward
    try:
        yield
    finally:
        if kept is None:
            del layer.forward
        else:
            layer.forward = kept
