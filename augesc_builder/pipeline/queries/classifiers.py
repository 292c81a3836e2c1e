"""The models that judge Reddit posts: two of emotions, one of toxicity (appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augesc_builder.config.queries import Classifiers, EmotionClassifier, ToxicityClassifier
from augesc_builder.errors import CheckpointError
from augesc_builder.models.text_classifier import labels_of, load_classifier

Scores = dict[str, float]
"""The score of each label, in lowercase."""


class PostClassifiers:
    """The classifiers of a recipe, loaded on whatever device is there.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a model that cannot be loaded or
    whose labels are not those that the recipe speaks of.
    """

    def __init__(self, settings: Classifiers) -> None:
        self.settings = settings
        self.revisions: dict[str, str] = {}
        self._emotions = [
            (emotion, self._load(emotion, _labels(emotion), f"emotions.{i}"))
            for i, emotion in enumerate(settings.emotions)
        ]
        toxicity = settings.toxicity
        self._toxicity = toxicity and (toxicity, self._load(toxicity, {"toxic"}, "toxicity"))

    def reasons(self, texts: Sequence[str]) -> list[list[str]]:
        """Return, for each text, the reasons of all classifiers that rejected it."""
        found: list[list[str]] = [[] for _ in texts]
        for emotion, model in self._emotions:
            function = "sigmoid" if emotion.multi_label else "softmax"
            for reasons, scores in zip(found, self._scores(model, texts, function), strict=True):
                if _unfit(predicted(scores, emotion), emotion):
                    reasons.append(f"emotion_{emotion.name}")
        if self._toxicity:
            toxicity, model = self._toxicity
            for reasons, scores in zip(found, self._scores(model, texts, "sigmoid"), strict=True):
                if max(scores.values()) >= toxicity.threshold:
                    reasons.append("toxic")
        return found

    def _load(
        self, settings: EmotionClassifier | ToxicityClassifier, expected: set[str], section: str
    ) -> Any:
        name, key = settings.model, f"queries.classifiers.{section}.model"
        model, commit = load_classifier(name, settings.revision, expected, key)
        if commit is not None:
            self.revisions[name] = commit
        labels = labels_of(model)
        if isinstance(settings, EmotionClassifier) and (unknown := sorted(labels - expected)):
            raise CheckpointError(
                f"{name}: has the labels {', '.join(unknown)}, of which the recipe does not say "
                f"whether they are positive or negative"
            )
        return model

    def _scores(self, model: Any, texts: Sequence[str], function: str) -> list[Scores]:
        results = model(
            list(texts),
            top_k=None,
            function_to_apply=function,
            truncation=True,
            batch_size=self.settings.batch_size,
        )
        return [{str(r["label"]).lower(): float(r["score"]) for r in result} for result in results]


def predicted(scores: Scores, settings: EmotionClassifier) -> set[str]:
    """Return the labels that a classifier predicts."""
    best = max(scores, key=lambda label: scores[label])
    if not settings.multi_label:
        return {best}
    return {label for label, score in scores.items() if score >= settings.threshold} or {best}


def _unfit(labels: set[str], settings: EmotionClassifier) -> bool:
    return bool(labels & {x.lower() for x in (*settings.labels.positive, *settings.labels.neutral)})


def _labels(settings: EmotionClassifier) -> set[str]:
    groups = settings.labels
    every = (*groups.positive, *groups.negative, *groups.ambiguous, *groups.neutral)
    return {label.lower() for label in every}
