"""TODO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from augesc_builder import paper
from augesc_builder.pipeline.filter.requirements import (
    REQUIREMENTS,
)
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.sources.base import source_label

TABLE_1_HEADINGS = {
    "format": "format",
    "session_length": "session length",
    "total_utterances": "total",
    "continuous_utterances": "continuous",
    "balanced_utterances": "balanced",
    "role_words": "role words",
    "seeker_utterance_length": "seeker length",
    "supporter_utterance_length": "supporter length",
}
"""The requirements as Table 1 calls them, short enough for a console."""


def filter_table(report: Mapping[str, Any], model: str = "ours") -> str:
    """Write Table 1: a source a row, ours first, then the paper's, a requirement a column."""
    sources = report["by_source"]
    rows = {f"{model} ({source_label(name)})": part for name, part in sources.items()}
    if len(rows) != 1:
        rows[f"{model} (all)"] = report
    rows |= {f"paper: {name}": part for name, part in report["paper"].items()}
    return markdown_table(
        ["% of texts", *TABLE_1_HEADINGS.values(), "RETAINED"],
        [[name, *map(_percent, _shares(part))] for name, part in rows.items()],
    )


def _shares(report: Mapping[str, Any]) -> list[float | None]:
    shares = (report["violations"][name]["share"] for name in TABLE_1_HEADINGS)
    return [*shares, report["retention"]]


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def count(measured: pa.Table, violations: Iterable[list[str]]) -> dict[str, dict[str, int]]:
    """Count, for each source: texts, violations of each requirement, kept and unmeasured ones."""
    counts: dict[str, Counter[str]] = {}
    rows = zip(
        measured["source"].to_pylist(),
        measured["total_tokens"].to_pylist(),
        violations,
        strict=True,
    )
    for source, tokens, names in rows:
        counts.setdefault(source, Counter()).update(
            ["total", *names, *(["kept"] * (not names)), *(["no_tokens"] * (tokens is None))]
        )
    return {source: dict(counter) for source, counter in sorted(counts.items())}


def merge(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, Counter[str]]:
    """Add up the counts of several chunks, source by source."""
    merged: dict[str, Counter[str]] = {}
    for part in counts:
        for source, numbers in part.items():
            merged.setdefault(source, Counter()).update(numbers)
    return merged


def filter_report(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, Any]:
    """Merge counts into ``filter_report.json``, with the paper's rows beside ours.

    Shares are of all texts; they are null where there are none. A text that fails several
    requirements counts for each, as in Table 1. ``session_length`` is null where no tokens were
    counted; where some were, its share is of those, and ``not_measured`` says how many were not.
    """
    by_source = merge(counts)
    total: Counter[str] = Counter()
    for numbers in by_source.values():
        total.update(numbers)
    sources = {source: _report(by_source[source]) for source in sorted(by_source)}
    return {**_report(total), "by_source": sources, "paper": _papers()}


def _report(numbers: Mapping[str, int]) -> dict[str, Any]:
    total, kept = numbers.get("total", 0), numbers.get("kept", 0)
    violations: dict[str, dict[str, Any]] = {}
    for name in REQUIREMENTS:
        not_measured = numbers.get("no_tokens", 0) if name == "session_length" else 0
        judged, n = total - not_measured, numbers.get(name, 0)
        violations[name] = {
            "count": n if judged or not total else None,
            "share": n / judged if judged else None,
            **({"not_measured": not_measured} if not_measured else {}),
        }
    return {
        "total": total,
        "retained": kept,
        "retention": kept / total if total else None,
        "violations": violations,
    }


def _papers() -> dict[str, Any]:
    """Give the rows of the paper's Table 1 in the form of ours, as shares."""
    rows = {}
    for name, (*shares, retention) in paper.TABLE_1.items():
        violations = zip(REQUIREMENTS, shares, strict=True)
        rows[name] = {
            "retention": round(retention / 100, 3),
            "violations": {key: {"share": round(share / 100, 3)} for key, share in violations},
        }
    return rows
