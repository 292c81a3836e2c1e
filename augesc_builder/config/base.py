"""What sections of settings have in common: immutable, and no key is ignored."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]


NotNegative = Annotated[int, Field(ge=0)]


Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A group of keys; immutable, and no key is ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class Bounds(Section):
    """An inclusive range."""

    min: int | float
    max: int | float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self
