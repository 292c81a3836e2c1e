"""The strategy of each of a supporter's turns, by a classifier that learned ESConv's labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from augesc_builder.errors import CheckpointError
from augesc_builder.metrics.scored import Scored
from augesc_builder.models.sequence_classifier import SequenceClassifier
from augesc_builder.text.prompts import Message
from augesc_builder.text.strategies import GROUPS, STRATEGIES, as_texts

KEY = "quality.support_strategies.model"


class SupportStrategies:
    """ESConv's strategies of a supporter's turns; implements the protocol ``Measure``.

    ``model`` is a classifier's folder (``augesc train --config strategies``), or a name on
    the Hub, at ``revision``. Labels are the likeliest strategy of a supporter's turn, and scores
    its probability. Session numbers are the shares of turns of each group of
    :data:`~augesc_builder.text.strategies.GROUPS` (``asks``, ``reflects``, ...), and
    ``strategies``, the count of different ones; of no turns shares are ``None``.

    Raises :class:`~augesc_builder.errors.CheckpointError` where the model cannot be loaded, or has
    other labels than ESConv's eight.
    """

    name = "support_strategies"

    def __init__(self, model: str, revision: str | None = None, *, batch_size: int = 32) -> None:
        self._classifier = SequenceClassifier(model, revision, KEY)
        self._batch_size = batch_size
        known = {strategy.lower(): strategy for strategy in STRATEGIES}
        labels = self._classifier.labels
        if sorted(label.lower() for label in labels) != sorted(known):
            raise CheckpointError(
                f"{model}: its labels are {', '.join(labels)[:200]}; expected ESConv's strategies, "
                f"{', '.join(STRATEGIES)}: train one with `augesc train --config strategies`"
            )
        self._labels = [known[label.lower()] for label in labels]

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on."""
        return {
            "model": self._classifier.name,
            "revision": self._classifier.commit,
            "history_turns": self._classifier.history_turns,
        }

    def score(self, sessions: Sequence[Sequence[Message]]) -> list[Scored]:
        """Score sessions, in order; turns of all of them are classified together."""
        before = self._classifier.history_turns
        places, texts = [], []
        for number, session in enumerate(sessions):
            for turn, message in enumerate(session):
                if message["role"] == "assistant":
                    first = 0 if before is None else max(0, turn - before)
                    places.append((number, turn))
                    texts.append(as_texts(session[first:turn], message["content"]))
        found = self._classifier.probabilities(texts, self._batch_size)
        scores: list[list[float | None]] = [[None] * len(session) for session in sessions]
        labels: list[list[str | None]] = [[None] * len(session) for session in sessions]
        for (number, turn), probabilities in zip(places, found, strict=True):
            best = int(probabilities.argmax())
            scores[number][turn] = float(probabilities[best])
            labels[number][turn] = self._labels[best]
        return [
            Scored(tuple(each), _numbers(told), labels=tuple(told))
            for each, told in zip(scores, labels, strict=True)
        ]


def _numbers(labels: Sequence[str | None]) -> dict[str, float | None]:
    told = [label for label in labels if label is not None]
    groups = Counter(GROUPS[label] for label in told)
    shares = {
        group: groups[group] / len(told) if told else None
        for group in dict.fromkeys(GROUPS.values())
    }
    return {**shares, "strategies": float(len(set(told)))}
