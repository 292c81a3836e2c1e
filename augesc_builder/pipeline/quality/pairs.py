"""A classifier of pairs whose scores count from a threshold of the recipe's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from augesc_builder.metrics.consistency.measure import THRESHOLD
from augesc_builder.models.pair_classifier import PairClassifier


class PairsFrom(PairClassifier):
    """Scores pairs so that a probability at ``threshold`` is as sure as a rule at its own.

    Probabilities below and above are spread evenly over the scores below and above that.
    Raises as :class:`~augesc_builder.models.pair_classifier.PairClassifier` does.
    """

    def __init__(self, name: str, revision: str | None, threshold: float) -> None:
        super().__init__(name, revision, "cuda" if torch.cuda.is_available() else "cpu")
        self._threshold = threshold

    def settings(self) -> dict[str, Any]:
        """Return what its scores depend on."""
        return {**super().settings(), "threshold": self._threshold}

    def contradictions(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return for each pair of texts how sure it is that they contradict, 0..1."""
        return [rescaled(score, self._threshold) for score in super().contradictions(pairs)]


def rescaled(probability: float, threshold: float) -> float:
    """Return a probability as a score that is at least a rule's threshold from ``threshold`` on."""
    if probability < threshold:
        return THRESHOLD * probability / threshold
    above = (probability - threshold) / (1 - threshold) if threshold < 1 else 1.0
    return THRESHOLD + (1 - THRESHOLD) * above
