"""What sections of settings have in common: immutable, and no key is ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from augesc_builder.config.paths import check_path

Positive = Annotated[int, Field(ge=1)]


NotNegative = Annotated[int, Field(ge=0)]


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What random streams and the column ``seed`` of the generations take."""


Fraction = Annotated[float, Field(ge=0, le=1)]


MixedPrecision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda given: "no" if given is False else given)
]
"""The type of the arithmetic; YAML reads a plain ``no`` as false."""


@dataclass(frozen=True)
class Place:
    """Marks a key whose text may be a path of the user's disk; if ``named``, or a name on the Hub.

    If ``address``, it is that of a machine of the user's.

    What is published names no path: :mod:`augesc_builder.config.published`.
    """

    named: bool = False
    address: bool = False


FILE, MODEL = Place(), Place(named=True)

PathText = Annotated[str, AfterValidator(check_path), FILE]
"""A file or folder, or the name of something that may stand in its place."""

ModelText = Annotated[str, AfterValidator(check_path), MODEL]
"""The folder of a model, or its name."""


AddressText = Annotated[str, Field(pattern=r"^https?://[^\s/]+"), Place(address=True)]
"""A server of the user's own."""


class Section(BaseModel):
    """A group of keys; immutable, and no key is ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class BackendSettings(Section):
    """What a backend's section has in common: the ``type`` that chooses it.

    ``free`` names keys that no text depends on: a run may be resumed with other values.
    ``obeys`` names the keys of ``prompt`` and ``generate`` beyond the paper's that it can do.
    ``several`` says whether several workers may be at one run, each with a backend of its own.
    """

    free: ClassVar[frozenset[str]] = frozenset()
    obeys: ClassVar[frozenset[str]] = frozenset()
    several: ClassVar[bool] = False

    type: str

    @property
    def gpus(self) -> int:
        """How many GPUs a worker has, where there are any; 0: it has no use for one."""
        return 1


class Bounds(Section):
    """An inclusive range."""

    min: int | float
    max: int | float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self
