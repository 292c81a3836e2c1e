"""Section ``generate`` of a recipe: sampling, and the backend that makes the texts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Union, cast

from pydantic import Field, create_model, model_validator

from augesc_builder.config.base import BackendSettings, Fraction, Positive, Section
from augesc_builder.config.openai_api import OpenAISettings
from augesc_builder.config.quality import MeasureName
from augesc_builder.config.self_chat import SelfChatSettings
from augesc_builder.config.vllm import VllmSettings


class LocalSettings(BackendSettings):
    """Our own engine, on the machine's GPUs or CPU cores."""

    obeys: ClassVar[frozenset[str]] = frozenset({"background", "strategies", "resample"})
    several: ClassVar[bool] = True

    type: Literal["local"]
    engine: Literal["continuous", "static"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    weights: Literal["int8"] | None
    bfloat16_head: bool
    device_map: str | None
    tensor_parallel: Positive
    slots: Positive | None
    workers: Positive | None
    batch_size: Positive

    @property
    def gpus(self) -> int:
        """How many GPUs a worker has, where there are any."""
        return self.tensor_parallel

    @model_validator(mode="after")
    def _one_way_to_share(self) -> LocalSettings:
        if self.tensor_parallel > 1 and (
            self.device_map is not None or self.workers is not None or self.engine != "continuous"
        ):
            raise ValueError(
                f"tensor_parallel {self.tensor_parallel} goes with engine: continuous, "
                f"device_map: null and workers: null only"
            )
        return self

    @model_validator(mode="after")
    def _where_weights_are_packed(self) -> LocalSettings:
        if self.weights is not None and (
            *(self.engine, self.tensor_parallel, self.device_map, self.bfloat16_head),
            self.dtype == "float16",
        ) != ("continuous", 1, None, False, False):
            raise ValueError(
                f"weights: {self.weights} goes with engine: continuous, tensor_parallel: 1, "
                f"device_map: null, bfloat16_head: false and no float16 only"
            )
        return self


class Background(Section):
    """How backgrounds are drawn, where the prompt has them (``prompt.background``)."""

    max_tokens: Positive
    attempts: Positive


BACKGROUND = {"max_tokens": 100, "attempts": 4}
"""What files of before had there been such a section hold."""


class Resample(Section):
    """Which turns are drawn again, by the numbers of ``quality`` that count such, and how often."""

    by: Annotated[
        list[
            Literal[
                "consistency.contradictions", "consistency.role_confusions", "topic_drift.drifted"
            ]
        ],
        Field(min_length=1),
    ]
    attempts: Annotated[int, Field(ge=1, le=100)]

    @property
    def measures(self) -> set[MeasureName]:
        """Return the names of the measures that tell such turns."""
        return {cast(MeasureName, number.partition(".")[0]) for number in self.by}


CANDIDATES_EACH = 20
"""Candidates for each session that is to be kept, at most, where a recipe gives no budget."""


Sessions = Annotated[int, Field(ge=1, le=1_000_000)]

Candidates = Annotated[int, Field(ge=1, le=20_000_000)]
"""How many there may be, all of which are held in memory as a list of what is to be done."""


@dataclass(frozen=True)
class Quota:
    """``keep`` sessions of a source (``None``: of all), of at most ``budget`` candidates."""

    source: str | None
    keep: int
    budget: int


class Generate(Section):
    """Sampling of conversations (section 4.1, Inference)."""

    samples_per_query: Positive | dict[str, Positive]
    max_tokens: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]
    repetition_penalty: Annotated[float, Field(gt=0)]
    top_k: Positive | None
    min_p: Fraction
    greedy: bool
    shard_size: Positive
    background: Background
    resample: Resample | None
    keep: Sessions | Annotated[dict[str, Sessions], Field(min_length=1)] | None
    keep_budget: Candidates | dict[str, Candidates] | None
    backend: BackendSettings

    @model_validator(mode="after")
    def _budget_is_enough(self) -> Generate:
        if self.keep_budget is None:
            return self
        if self.keep is None:
            raise ValueError("keep_budget is the most candidates for keep; give keep, or null here")
        if isinstance(self.keep, dict) != isinstance(self.keep_budget, dict):
            raise ValueError("keep and keep_budget: give both a number, or both one a source")
        quotas, budgets = _by_source(self.keep), _by_source(self.keep_budget)
        if set(quotas) != set(budgets):
            raise ValueError(
                f"keep is for {', '.join(map(str, quotas))} and keep_budget for "
                f"{', '.join(map(str, budgets)) or 'nothing'}; name the same sources"
            )
        for source, n in quotas.items():
            if budgets[source] < n:
                of = f" of {source}" if source else ""
                raise ValueError(
                    f"keep_budget {budgets[source]:,}{of} is less than the {n:,} that keep asks "
                    f"for; raise it, or null for {CANDIDATES_EACH} candidates each"
                )
        return self

    def quotas(self) -> list[Quota]:
        """Return how many sessions are to be kept, of all sources or of each; none: all samples."""
        if self.keep is None:
            return []
        budgets = {} if self.keep_budget is None else _by_source(self.keep_budget)
        return [
            Quota(source, n, budgets.get(source, CANDIDATES_EACH * n))
            for source, n in _by_source(self.keep).items()
        ]

    def n_candidates(self, queries: Mapping[str, int]) -> int:
        """Return how many conversations are generated at most, of so many queries by source."""
        if self.keep is not None:
            return sum(quota.budget for quota in self.quotas())
        return sum(n * self.samples_for(source) for source, n in queries.items())

    def most(self, n_conversations: int) -> str:
        """Say how many conversations are generated, where there are so many at most."""
        if self.keep is None:
            return f"{n_conversations:,} conversations"
        n = sum(quota.keep for quota in self.quotas())
        return f"conversations until {n:,} are kept, at most {n_conversations:,},"

    def samples_for(self, source: str) -> int:
        """Return how many conversations each query of a source triggers."""
        if isinstance(self.samples_per_query, int):
            return self.samples_per_query
        return self.samples_per_query.get(source, 1)


def _by_source(given: int | dict[str, int]) -> dict[str | None, int]:
    """Return numbers by source, one for all of them as that of ``None``."""
    return cast(dict[str | None, int], given) if isinstance(given, dict) else {None: given}


_kinds: dict[str, type[BackendSettings]] = {
    "local": LocalSettings,
    "openai_api": OpenAISettings,
    "self_chat": SelfChatSettings,
    "vllm": VllmSettings,
}


def add_backend(name: str, settings: type[BackendSettings]) -> None:
    """Let ``generate.backend`` be of another type, with a section of its own."""
    _kinds[name] = settings
    generate_model.cache_clear()


@functools.cache
def generate_model() -> type[Generate]:
    """Return the section as it stands, its backend a union that ``type`` discriminates."""
    kinds = tuple(_kinds.values())
    backend: Any = kinds[0]
    if len(kinds) > 1:
        backend = Annotated[Union[kinds], Field(discriminator="type")]  # noqa: UP007 - a runtime tuple
    return create_model("Generate", __base__=Generate, backend=(backend, ...))


MOVED = {
    f"generate.{key}": f"generate.backend.{key}"
    for key in LocalSettings.model_fields
    if key != "type"
}
"""Keys of recipes before there were backends, and where they stand now."""

RENAMED = {"generate.backend.engine": {"slots": "continuous", "simple": "static"}}
"""Values that have another name now."""
