"""Section ``generate.backend`` of type ``self_chat``: two dialog models that talk to each other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from augesc_builder.config.base import BackendSettings, ModelText, Positive, Section


class SpeakerModel(Section):
    """One of the two models: the folder of a training, that of a model, or a name on the Hub."""

    model: ModelText
    revision: str | None


class SelfChatSettings(BackendSettings):
    """Two dialog models, each of one role (section 6.1)."""

    several: ClassVar[bool] = True

    type: Literal["self_chat"]
    seeker: SpeakerModel
    supporter: SpeakerModel
    max_utterances: Annotated[int, Field(ge=2)]
    end_words: list[Annotated[str, Field(pattern=r"^\S(.*\S)?$")]]
    max_utterance_tokens: Positive
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    batch_size: Positive
