"""How the tables of the findings are written: a column a cell, numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from augesc_builder.metrics.intervals import Estimate, Numbers, bootstrap
from augesc_builder.run.markdown import markdown_table

_DRAWS = 2000


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a Markdown table of columns, each with its rows by their names."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    return markdown_table(["", *columns], rows)


def ratio(sums: Numbers, scale: float = 1, after: Callable[[Numbers], Numbers] = np.asarray) -> str:
    """Return the first column by the second, over all rows, with its interval over rows."""

    def metric(rows: Numbers) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            return after(rows[:, 0] / rows[:, 1]) * scale

    return estimate(bootstrap(sums, {"": metric}, _DRAWS, 13)[""]) if len(sums) else "-"


def estimate(found: Estimate) -> str:
    """Return a number with its interval, where it has one."""
    if found.value is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.value:.3g}"
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"
