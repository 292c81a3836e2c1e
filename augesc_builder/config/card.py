"""Section ``card`` of a recipe: the form in which a corpus is published."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from augesc_builder.config.base import Section

Share = Annotated[float, Field(gt=0, lt=1)]


def _leaves_some(shares: dict[str, float]) -> dict[str, float]:
    if not shares or sum(shares.values()) >= 1:
        raise ValueError(
            f"expected shares of validation or test whose sum is below 1, found {shares}; what "
            f"they leave is train, and null parts nothing"
        )
    return shares


Name = Annotated[str, Field(pattern="^(validation|test)$")]

Splits = Annotated[dict[Name, Share], AfterValidator(_leaves_some)]
"""The shares of queries whose sessions are set apart; the others are ``train``."""


class Card(Section):
    """How the corpus is published."""

    splits: Splits | None


CARD = {"splits": None}
"""What recipes of before there was such a section are read with: what is shipped."""
