"""What a method makes of examples: inputs, and the loss of what is to be told of them.

An encoder-decoder is to tell the tokens of a response, a classifier one label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, Protocol

import torch

from augesc_builder.config.training import Examples
from augesc_builder.dialog.encoding import Encoded, Encoder, summed_loss
from augesc_builder.dialog.examples import Pair
from augesc_builder.dialog.labelled import Labelled
from augesc_builder.models.sequence_classifier import encode, max_tokens, padded
from augesc_builder.models.training_step import IGNORED


class Task(Protocol):
    """What the loop asks of a method; an encoded example is the task's own affair."""

    def encode(self, example: Any) -> Any:
        """Return an example as it is put into batches."""

    def length(self, encoded: Any) -> int:
        """Return by what examples are sorted, so that those of a micro-batch are alike."""

    def n_told(self, encoded: Any) -> int:
        """Return how many tokens or labels the loss of an example is summed over."""

    def summed_loss(
        self, model: Any, batch: Sequence[Any], idle: bool, device: torch.device
    ) -> torch.Tensor:
        """Return the loss of a batch, a scalar in nats; 0 of one that is ``idle``."""

    def told(self, loss: float) -> tuple[str, float]:
        """Return what people are told of a mean loss: its name and number."""


class ResponseTask:
    """The tokens of a response behind its history (seq2seq)."""

    def __init__(self, model: Any, tokenizer: Any, settings: Examples) -> None:
        self._encoder = Encoder(model, tokenizer, settings)

    def encode(self, example: Pair) -> Encoded:
        """Return history and response as tokens."""
        return self._encoder.encode(example.history, example.response)

    def length(self, encoded: Encoded) -> int:
        """Return the tokens of the response."""
        return len(encoded.target)

    n_told = length

    def summed_loss(
        self, model: Any, batch: Sequence[Encoded], idle: bool, device: torch.device
    ) -> torch.Tensor:
        """Return the loss of the responses."""
        inputs = self._encoder.collate(batch, ignored=idle)
        return summed_loss(model, {key: value.to(device) for key, value in inputs.items()}).sum()

    def told(self, loss: float) -> tuple[str, float]:
        """Return the perplexity of a token."""
        return "perplexity", exp(min(loss, 700))


@dataclass(frozen=True)
class _Input:
    features: dict[str, list[int]]
    label: int


class LabelTask:
    """The label of a text, or of a pair of texts (classifier).

    Raises :class:`~augesc_builder.errors.TrainingError` where the settings want more tokens than
    the model has positions.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Examples) -> None:
        self._tokenizer, self._numbers = tokenizer, model.config.label2id
        self._longest = max_tokens(model, tokenizer, settings.max_source_tokens)
        # Both go with the model, so that it is used as it was trained.
        tokenizer.model_max_length = self._longest
        model.config.history_turns = settings.history_turns

    def encode(self, example: Labelled) -> _Input:
        """Return a text or a pair as tokens, and the number of its label."""
        features = encode(self._tokenizer, example.text, example.text_pair, self._longest)
        return _Input(features, self._numbers[example.label])

    def length(self, encoded: _Input) -> int:
        """Return the tokens of an input."""
        return len(encoded.features["input_ids"])

    def n_told(self, encoded: _Input) -> int:
        """Return the one label."""
        return 1

    def summed_loss(
        self, model: Any, batch: Sequence[_Input], idle: bool, device: torch.device
    ) -> torch.Tensor:
        """Return the loss of the labels."""
        inputs = padded(self._tokenizer, [each.features for each in batch])
        labels = [IGNORED if idle else each.label for each in batch]
        logits = model(**{key: value.to(device) for key, value in inputs.items()}).logits  # (B, L)
        return torch.nn.functional.cross_entropy(
            logits.float(),
            torch.tensor(labels, device=device),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def told(self, loss: float) -> tuple[str, float]:
        """Return the loss as it is, in nats."""
        return "loss", loss
