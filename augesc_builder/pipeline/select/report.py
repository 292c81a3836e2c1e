"""What choosing brings and costs: numbers of the best of one sample, of two, and so on.

All points are of the same queries, those of which the first sample met the requirements, so that
as many sessions stand beside each other at every point, and neither distinct n-grams nor the Vendi
score are moved by how many there are. Tokens are those of all samples up to there, rejected ones
included, for each session that is kept then. The number that a choice goes by is the lower (or
higher) for the choice itself: how much of that is real, another measure says, or people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.config.select import Select
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.lexical_diversity.counts import hashed_grams
from augesc_builder.metrics.tokenized import Spoken, mean, spoken
from augesc_builder.metrics.vendi.score import vendi_score
from augesc_builder.pipeline.generate.draws import tokens_beside
from augesc_builder.pipeline.select.choose import Candidate, choose
from augesc_builder.readers.parquet import read_table

Scores = dict[str, dict[str, float | None]]
"""The numbers of each session by its id, called ``MEASURE.NUMBER``."""

_QUERIES = 500
"""Queries whose sessions are compared, drawn by the seed: the Vendi score takes the cube of it."""

_NOT_SHOWN = "topic_drift.change_point"


@dataclass(frozen=True)
class Point:
    """The best of the first ``k`` samples.

    ``sessions`` are kept then, for ``tokens`` each; ``compared`` of them are what ``numbers`` and
    diversity are of.
    """

    k: int
    sessions: int
    tokens: float | None
    compared: int
    numbers: Mapping[str, float | None]

    def report(self) -> dict[str, Any]:
        """Return the point as JSON values."""
        return {**vars(self), "numbers": dict(self.numbers)}


def cost(
    candidates: Sequence[Candidate],
    settings: Select,
    scores: Scores,
    files: Sequence[Path],
    measured: Sequence[Path],
    generations: Sequence[Path],
    seed: int,
) -> list[Point]:
    """Return a point for each number of samples; ``files`` hold the candidates.

    ``measured`` are the tables of what was measured of all texts: without them tokens are unknown.
    ``generations`` are those texts, which tell what was drawn beside them.
    """
    most = 1 + max((one.sample for one in candidates), default=-1)
    if settings.per_query is None:
        most = min(most, 1)
    kept_at = [
        _kept([one for one in candidates if one.sample < k], settings) for k in range(1, most + 1)
    ]
    if not kept_at:
        return []
    drawn = sorted(
        dict.fromkeys(one.query_id for one in kept_at[0]), key=lambda key: hash_of(key, seed=seed)
    )[:_QUERIES]
    compared = [[one for one in kept if one.query_id in set(drawn)] for kept in kept_at]
    wanted = {one.session_id for kept in compared for one in kept}
    said = {key: spoken(messages) for key, messages in _messages(files) if key in wanted}
    tokens = _tokens(measured, generations)
    return [
        Point(
            k,
            len(kept),
            mean(sum(tokens[:k]), len(kept)) if len(tokens) >= k else None,
            len(some),
            {
                **_means([scores[one.session_id] for one in some]),
                **_diversity([said[one.session_id] for one in some]),
            },
        )
        for k, (kept, some) in enumerate(zip(kept_at, compared, strict=True), 1)
    ]


def _kept(candidates: Sequence[Candidate], settings: Select) -> list[Candidate]:
    verdicts = choose(candidates, settings.order, settings.per_query)
    return [one for one in candidates if verdicts[one.session_id].reason is None]


def _messages(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for file in files:
        table = read_table(file, ["session_id", "messages"])
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _tokens(measured: Sequence[Path], generations: Sequence[Path]) -> list[int]:
    """Return the tokens of all texts by sample number; empty where one was not counted.

    Backgrounds and draws that were dropped are among them.
    """
    found: dict[int, int] = {}
    for file in measured:
        table = read_table(file, ["sample", "total_tokens"])
        if table["total_tokens"].null_count:
            return []
        for sample, n in zip(*(column.to_pylist() for column in table.columns), strict=True):
            found[sample] = found.get(sample, 0) + n
    if not found:
        return []
    for row, n in chain.from_iterable(tokens_beside(file, ["sample"]) for file in generations):
        found[row["sample"]] = found.get(row["sample"], 0) + n
    return [found.get(sample, 0) for sample in range(1 + max(found, default=-1))]


def _means(sessions: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    names = [name for name in (sessions[0] if sessions else ()) if name != _NOT_SHOWN]
    columns = {name: [s[name] for s in sessions if s[name] is not None] for name in names}
    return {
        name: mean(sum(v for v in values if v is not None), len(values))
        for name, values in columns.items()
    }


def _diversity(sessions: Sequence[Spoken]) -> dict[str, float | None]:
    grams = [found for found, _ in hashed_grams(sessions)]
    return {
        **{f"distinct_{n}": mean(len(np.unique(of)), len(of)) for n, of in enumerate(grams, 1)},
        "vendi": vendi_score(sessions),
    }
