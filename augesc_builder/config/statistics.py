"""Section ``statistics`` of a recipe: what is measured of a corpus, and beside what."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from augesc_builder.config.base import PathText, Positive, Section

_PRIOR = re.compile(r"(pooled)|(scaled|uninformative):([0-9.]+(?:[eE][+-]?[0-9]+)?)")


def parse_prior(text: str) -> tuple[str, float]:
    """Return kind and amount of a prior: ``pooled``, ``scaled:WORDS``, ``uninformative:COUNT``.

    Raises ``ValueError`` for anything else.
    """
    found = _PRIOR.fullmatch(text)
    try:
        amount = float(found[3] or 1) if found else 0.0
    except ValueError:  # more than one point
        amount = 0.0
    if not found or not 0 < amount < math.inf:
        raise ValueError(
            f"unknown prior {text!r:.60}; expected pooled, scaled:WORDS (as scaled:46e6) or "
            f"uninformative:COUNT (as uninformative:0.01)"
        )
    return found[1] or found[2], amount


def _checked(text: str) -> str:
    parse_prior(text)
    return text


class Statistics(Section):
    """What is measured of a corpus besides Table 2, and beside what (section 5)."""

    beside: dict[str, PathText] | None
    tested_on: dict[str, PathText] | None
    query_sample: Positive | None
    count_query: bool
    topic_sample: Positive | None
    stop_words: Literal["keep", "drop"]
    prior: Annotated[str, AfterValidator(_checked)]


STATISTICS = {
    **{"beside": None, "tested_on": None, "query_sample": 2000, "count_query": False},
    **{"topic_sample": 10_000, "stop_words": "keep", "prior": "pooled"},
}
"""What recipes of before there was such a section are read with: what is shipped."""
