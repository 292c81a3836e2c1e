"""Training configs: every setting of a training, read as recipes are.

What a key means stands beside it in ``configs/esconv.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from augesc_builder.config.base import (
    Fraction,
    MixedPrecision,
    ModelText,
    NotNegative,
    PathText,
    Positive,
    Section,
    Seed,
)
from augesc_builder.config.loader import ConfigLoader

_PACKAGE = Path(__file__).parents[1]
_INSTALLED, _CLONED = _PACKAGE / "training" / "configs", _PACKAGE.parent / "training" / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _CLONED

_LOADER = ConfigLoader("training config", CONFIGS, base="esconv", example="train.batch_size=16")

Share = Annotated[float, Field(gt=0)]

Role = Literal["supporter", "seeker"]
"""A side of a conversation."""


class Sessions(Section):
    """A set of sessions and how often an epoch goes through it."""

    path: PathText
    weight: Share = 1.0


def _as_sessions(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Mix = Annotated[
    list[Annotated[Sessions, BeforeValidator(_as_sessions)]],
    Field(min_length=1),
]


class Shape(Section):
    """Shape of a randomly initialized Blenderbot-small."""

    vocab_size: Annotated[int, Field(ge=300)]
    d_model: Positive
    layers: Positive
    heads: Positive
    ffn_dim: Positive
    n_positions: Annotated[int, Field(ge=16)]
    dropout: Fraction

    @model_validator(mode="after")
    def _heads_fit(self) -> Shape:
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of heads {self.heads}")
        return self


class Model(Section):
    """What is fine-tuned."""

    name: ModelText | None
    revision: str | None
    tokenizer: ModelText | None
    from_scratch: Shape | None
    chat_template: str | None
    trainable_layers: Positive | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if (self.name is None) == (self.from_scratch is None):
            raise ValueError("give either a name or from_scratch, and set the other to null")
        return self


class Examples(Section):
    """How sessions become histories and responses; ``role`` says whose utterances are learned."""

    role: Role = "supporter"
    history_turns: Positive | None
    merge_consecutive: bool
    greetings: Literal["drop", "keep"]
    max_source_tokens: Positive | None
    max_target_tokens: Annotated[int, Field(ge=2)]


class Data(Section):
    """Where named sessions are, and which are held out."""

    esconv_folder: PathText | None
    esconv_revision: str
    validation: Mix
    leave_out: list[str]

    @field_validator("leave_out")
    @classmethod
    def _as_read(cls, value: list[str]) -> list[str]:
        return [kind.strip().lower() for kind in value]


class Phase(Section):
    """One stretch of training, on one mix of sessions.

    It lasts for ``epochs`` at most, or for exactly so many ``steps``, which may be those that the
    phase of this name took in another training, the folder of which is ``steps_as``.
    """

    sessions: Mix
    epochs: Positive | None
    steps: Positive | None = None
    steps_as: PathText | None = None
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_steps: NotNegative

    @property
    def is_exact(self) -> bool:
        """Whether the number of steps is given, and early stopping does not end the phase."""
        return self.epochs is None

    @model_validator(mode="after")
    def _one_length(self) -> Phase:
        given = {"epochs": self.epochs, "steps": self.steps, "steps_as": self.steps_as}
        found = [f"{name}={value}" for name, value in given.items() if value is not None]
        if len(found) != 1:
            raise ValueError(
                f"give one of epochs, steps and steps_as, and set the others to null; found "
                f"{', '.join(found) or 'none'}"
            )
        return self


class Train(Section):
    """The optimization."""

    batch_size: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)] | None
    mixed_precision: MixedPrecision
    evaluate_every: Positive
    patience: Positive | None


class Machine(Section):
    """What may change between a kill and its rerun: it changes rounding, and nothing else."""

    micro_batch_size: Positive
    gradient_checkpointing: bool
    save_every: Positive
    keep_checkpoints: Positive | None
    trackers: list[str]


class Config(Section):
    """Every setting of a training."""

    name: str
    about: str
    seed: Seed
    method: Literal["seq2seq", "sft", "classifier"]
    model: Model
    data: Data
    examples: Examples
    phases: Annotated[dict[str, Phase], Field(min_length=1)]
    train: Train
    machine: Machine

    @field_validator("phases")
    @classmethod
    def _names_are_folders(cls, value: dict[str, Phase]) -> dict[str, Phase]:
        for name in value:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r}: a phase is named by letters, digits, - and _")
        return value

    @model_validator(mode="after")
    def _made_new_as_encoder_decoder(self) -> Config:
        if self.method != "seq2seq" and self.model.name is None:
            raise ValueError(
                f"method {self.method} needs model.name: from_scratch makes a Blenderbot-small"
            )
        return self

    @model_validator(mode="after")
    def _only_classifiers(self) -> Config:
        if self.method != "classifier" and self.model.trainable_layers is not None:
            raise ValueError("model.trainable_layers is of method classifier; set it to null")
        if self.method == "classifier" and self.examples.role != "supporter":
            raise ValueError(
                "method classifier learns the strategies of supporters; set examples.role=supporter"
            )
        return self

    def settings(self) -> dict[str, Any]:
        """Return the config as plain JSON values."""
        return self.model_dump(mode="json")

    def fixed(self) -> dict[str, Any]:
        """Return what must not change while a training is resumed.

        What trainings of before had no key for is left out where it is as it was then.
        """
        found = {key: value for key, value in self.settings().items() if key != "machine"}
        if self.examples.role == "supporter":
            del found["examples"]["role"]
        if self.model.trainable_layers is None:
            del found["model"]["trainable_layers"]
        for phase in found["phases"].values():
            for key in [key for key in ("steps", "steps_as") if phase[key] is None]:
                del phase[key]
        return found


def shipped_configs() -> list[str]:
    """Name the configs that come with the package."""
    return _LOADER.shipped()


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Load a shipped config by name, or a file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`.
    """
    return _LOADER.check(Config, _LOADER.read(name, overrides))


def dump_config(config: Config) -> str:
    """Write a config as YAML; reading it back gives the same config."""
    return yaml.safe_dump(config.settings(), sort_keys=False, allow_unicode=True, width=100)
