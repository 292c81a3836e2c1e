"""Table 1 as the paper has it: of texts drawn at random, and how near that comes to the whole.

The paper's numbers are of 2,000 texts. Ours are of all of them; where there are more, those of as
many that are drawn stand beside, with intervals by drawing these again.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.config.requirements import Requirements
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.intervals import Estimate, Numbers, bootstrap
from augesc_builder.pipeline.filter.measure import measured_columns
from augesc_builder.pipeline.filter.requirements import active, decide
from augesc_builder.readers.parquet import read_table
from augesc_builder.tables import MEASURED

TEXTS = 2_000
"""Texts of each source that the paper's Table 1 is of (its caption)."""

RESAMPLES = 2_000


def sampled(
    measured: Iterable[Path],
    by_source: Mapping[str, Mapping[str, Any]],
    limits: Requirements,
    seed: int,
    n: int = TEXTS,
) -> dict[str, Any]:
    """Return Table 1 of ``n`` texts of each source that has more, in the form of the report.

    ``measured`` are the tables of what was measured, ``by_source`` is the report's. Which texts are
    drawn depends on the seed and on their queries' ids and sample numbers alone.
    """
    large = {source for source, part in by_source.items() if part["total"] > n}
    if not large:
        return {}
    drawn: dict[str, list[_Drawn]] = {source: [] for source in large}
    columns = [*MEASURED, *measured_columns(limits)]
    read = (
        itertools.count()
    )  # parts rows with the same id, of which a stranger's file may have some
    for file in measured:
        for row in read_table(file, columns).to_pylist():
            number = next(read)
            if row["source"] in large:
                hashed = hash_of(f"{row['query_id']}/{row['sample']}", seed=seed)
                _keep(drawn[row["source"]], (-hashed, -number, row), n)
    return {
        source: _table_1([row for *_, row in sorted(rows, key=_order)], limits, seed)
        for source, rows in sorted(drawn.items())
    }


_Drawn = tuple[int, int, dict[str, Any]]
"""A row behind its hash and its number, both negated: a heap has its smallest in front."""


def _order(drawn: _Drawn) -> tuple[int, int]:
    return drawn[:2]


def _keep(smallest: list[_Drawn], item: _Drawn, n: int) -> None:
    """Keep the rows with the ``n`` smallest hashes."""
    if len(smallest) < n:
        heapq.heappush(smallest, item)
    else:
        heapq.heappushpop(smallest, item)


def _table_1(rows: Sequence[Mapping[str, Any]], limits: Requirements, seed: int) -> dict[str, Any]:
    """Return the share of texts that fail each requirement, and that of those that fail none."""
    batch = {name: [row[name] for row in rows] for name in rows[0]}
    failed = decide(batch, limits.settings())["violations"]
    judged = [1.0] * len(rows)
    counted = [float(total is not None) for total in batch["total_tokens"]]
    names = [requirement.name for requirement in active(limits)]
    of = {
        **{name: [float(name in one) for one in failed] for name in names},
        "retained": [float(not one) for one in failed],
    }
    sums = np.array([judged, counted, *of.values()]).T  # (texts, 2 + requirements + 1)
    shares = {
        name: functools.partial(_ratio, above=at, below=int(name == "session_length"))
        for at, name in enumerate(of, 2)
    }
    found = bootstrap(sums, shares, RESAMPLES, seed)
    return {
        "texts": len(rows),
        "retention": _as_json(found.pop("retained")),
        "violations": {name: {"share": _as_json(share)} for name, share in found.items()},
    }


def _ratio(sums: Numbers, above: int, below: int) -> Numbers:
    found = np.full(len(sums), np.nan)
    np.divide(sums[:, above], sums[:, below], out=found, where=sums[:, below] > 0)
    return found


def _as_json(share: Estimate) -> dict[str, float | None]:
    return {"value": share.value, "low": share.low, "high": share.high}
