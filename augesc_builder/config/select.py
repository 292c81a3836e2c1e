"""Section ``select`` of a recipe: which of the sessions that met the requirements are kept."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from augesc_builder.config.base import Positive, Section

NUMBERS: Mapping[str, tuple[str, ...]] = {
    "consistency": ("contradiction", "contradictions", "role_confusions"),
    "topic_drift": ("drift", "drifted"),
    "informativeness": ("new_words", "new_facts", "new_share"),
    "support_strategies": (
        *("asks", "reflects", "comforts", "suggests", "informs", "other", "strategies"),
    ),
}
"""The numbers that measures have for a session, and that sessions can be ranked by."""

_BY = [f"{measure}.{name}" for measure, names in NUMBERS.items() for name in names]


By = str | dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]]
"""A number of a session, with the name of its measure in front, or several with weights."""


def _known(by: By) -> By:
    if not by:
        raise ValueError("no number; give one, or several with weights")
    for name in [by] if isinstance(by, str) else by:
        if name not in _BY:
            near = difflib.get_close_matches(name, _BY, n=1)
            raise ValueError(
                f"unknown number {name!r:.60}; expected one of {', '.join(_BY)}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        if not isinstance(by, str) and not by[name]:
            raise ValueError(f"{name}: a weight of 0 says nothing; leave it out")
    return by


class Select(Section):
    """The choice among sessions that met the requirements: no requirement of its own.

    ``by`` names a measure of ``quality`` and a number that it has for each session, as
    ``consistency.contradiction``, or several with their weights, whose sum is the score; the
    ``per_query`` best of each query are kept.
    """

    by: Annotated[By, AfterValidator(_known)] | None = None
    order: Literal["lowest", "highest"] = "lowest"
    per_query: Positive | None = None
    cut_at_drift: bool = False

    @model_validator(mode="after")
    def _asks_for_something(self) -> Select:
        if (self.by is None) != (self.per_query is None):
            raise ValueError("by and per_query go together: give both, or null for both")
        if self.by is None and not self.cut_at_drift:
            raise ValueError("asks for nothing; give by and per_query, or cut_at_drift: true")
        return self

    @property
    def weights(self) -> Mapping[str, float]:
        """Return the numbers that the choice goes by, with their weights; none for no choice."""
        if self.by is None:
            return {}
        return {self.by: 1.0} if isinstance(self.by, str) else self.by

    @property
    def measures(self) -> set[str]:
        """Return the names of the measures that the choice needs."""
        found = {"topic_drift"} if self.cut_at_drift else set()
        return found | {name.partition(".")[0] for name in self.weights}

    def score(self, numbers: Mapping[str, float | None]) -> float | None:
        """Return the score of a session by its numbers; ``None`` where one is not known."""
        parts = [(weight, numbers.get(name)) for name, weight in self.weights.items()]
        known = [weight * number for weight, number in parts if number is not None]
        return math.fsum(known) if parts and len(known) == len(parts) else None
