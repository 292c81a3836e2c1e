"""Section ``select`` of a recipe: which of the sessions that met the requirements are kept."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

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


def _known(by: str) -> str:
    if by not in _BY:
        near = difflib.get_close_matches(by, _BY, n=1)
        raise ValueError(
            f"unknown number {by!r:.60}; expected one of {', '.join(_BY)}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return by


class Select(Section):
    """The choice among sessions that met the requirements: no requirement of its own.

    ``by`` names a measure of ``quality`` and a number that it has for each session, as
    ``consistency.contradiction``; the ``per_query`` best of each query are kept.
    """

    by: Annotated[str, AfterValidator(_known)] | None = None
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
    def measures(self) -> set[str]:
        """Return the names of the measures that the choice needs."""
        found = {"topic_drift"} if self.cut_at_drift else set()
        return found if self.by is None else {*found, self.by.partition(".")[0]}
