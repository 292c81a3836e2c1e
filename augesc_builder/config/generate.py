"""Section ``generate`` of a recipe: sampling, and the backend that makes the texts."""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import Field, create_model, model_validator

from augesc_builder.config.base import BackendSettings, Fraction, Positive, Section
from augesc_builder.config.openai_api import OpenAISettings
from augesc_builder.config.self_chat import SelfChatSettings
from augesc_builder.config.vllm import VllmSettings


class LocalSettings(BackendSettings):
    """Our own engine, on the machine's GPUs or CPU cores."""

    obeys: ClassVar[frozenset[str]] = frozenset({"background", "strategies"})

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
    backend: BackendSettings

    def samples_for(self, source: str) -> int:
        """Return how many conversations each query of a source triggers."""
        if isinstance(self.samples_per_query, int):
            return self.samples_per_query
        return self.samples_per_query.get(source, 1)


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
