"""Section ``quality`` of a recipe: what is measured of kept sessions besides their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from augesc_builder.config.base import Fraction, ModelText, PathText, Positive, Section
from augesc_builder.config.paths import check_gguf_file

MeasureName = Literal["consistency", "topic_drift", "informativeness", "support_strategies"]
"""The rooms of ``metrics/`` that hold measures of quality."""


class PairModel(Section):
    """A classifier of pairs of utterances with NLI's labels."""

    model: ModelText
    revision: str | None
    threshold: Fraction


class ConsistencySettings(Section):
    """Whether speakers contradict themselves (section 6.4)."""

    classifier: PairModel | None


class TopicDriftSettings(Section):
    """Whether supporters keep to the topic (section 6.4), and what scores that."""

    scorer: Literal["words", "likelihood", "encoder"]
    model: ModelText | None
    revision: str | None
    gguf_file: Annotated[str, AfterValidator(check_gguf_file)] | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    sessions: PathText
    distractors: Annotated[int, Field(ge=1, le=1000)]
    threshold: Fraction
    change: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _has_its_model(self) -> TopicDriftSettings:
        if (self.scorer == "words") != (self.model is None):
            asked = "needs a model" if self.model is None else "takes none"
            raise ValueError(f"the scorer {self.scorer} {asked}, found {self.model!r:.80}")
        if self.gguf_file is not None and self.scorer != "likelihood":
            raise ValueError("gguf_file holds a causal model, which likelihood alone takes")
        return self


class StrategiesSettings(Section):
    """The classifier of the supporter's strategies."""

    model: ModelText | None
    revision: str | None


class Quality(Section):
    """Which measures are taken of kept sessions, and with which models."""

    measures: list[MeasureName]
    batch_size: Positive
    consistency: ConsistencySettings
    topic_drift: TopicDriftSettings
    support_strategies: StrategiesSettings

    @model_validator(mode="after")
    def _have_their_models(self) -> Quality:
        if len(set(self.measures)) < len(self.measures):
            raise ValueError(f"measures are each taken once, found {', '.join(self.measures)}")
        if "support_strategies" in self.measures and self.support_strategies.model is None:
            raise ValueError(
                "support_strategies needs quality.support_strategies.model: a classifier that "
                "`augesc train` made of ESConv's strategies (docs/quality.md)"
            )
        return self

    def models(self) -> dict[MeasureName, tuple[str, str | None]]:
        """Return name and revision of the model of each measure that is taken and has one."""
        sections = {
            "consistency": self.consistency.classifier,
            "topic_drift": self.topic_drift,
            "support_strategies": self.support_strategies,
        }
        return {
            name: (section.model, section.revision)
            for name in self.measures
            if (section := sections.get(name)) is not None and section.model is not None
        }

    def at(self, commits: Mapping[MeasureName, str]) -> Quality:
        """Return the section with the models of some measures at commits."""
        changed = self.model_dump()
        for name, commit in commits.items():
            holder = changed[name]["classifier"] if name == "consistency" else changed[name]
            holder["revision"] = commit
        return Quality.model_validate(changed)

    def only(self, measures: Sequence[MeasureName]) -> Quality:
        """Return the section with these measures alone."""
        return self.model_copy(update={"measures": list(measures)})


QUALITY = {
    **{"measures": [], "batch_size": 16, "consistency": {"classifier": None}},
    "topic_drift": {
        **{"scorer": "words", "model": None, "revision": None},
        **{"gguf_file": None, "sha256": None},
        **{"sessions": "sample", "distractors": 9, "threshold": 0.8, "change": 2.0},
    },
    "support_strategies": {"model": None, "revision": None},
}
"""What recipes of before there was such a section are read with: nothing is measured."""

MODEL_SECTIONS: Mapping[MeasureName, str] = {
    "consistency": "quality.consistency.classifier",
    "topic_drift": "quality.topic_drift",
    "support_strategies": "quality.support_strategies",
}
"""The sections of a recipe that name the models."""

WITHOUT_A_MODEL: tuple[MeasureName, ...] = ("consistency", "topic_drift", "informativeness")
"""What ``augesc quality`` takes where nobody says."""
