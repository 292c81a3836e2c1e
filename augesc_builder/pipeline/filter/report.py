"""Counts of what the requirements rejected: ``filter_report.json`` and the paper's Table 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from augesc_builder import paper
from augesc_builder.pipeline.filter.requirements import REQUIREMENTS
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.sources.registry import source_label

Counts = Mapping[str, Mapping[str, int]]
"""For each source: texts, violations of each requirement, kept and unmeasured ones."""


def filter_table(report: Mapping[str, Any], model: str = "ours") -> str:
    """Return Table 1: a source a row, ours first, then the paper's, a requirement a column."""
    return markdown_table(*filter_rows(report, model))


def filter_rows(
    report: Mapping[str, Any], model: str = "ours"
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of :func:`filter_table`."""
    sources = report["by_source"]
    rows = {f"{model} ({source_label(name)})": part for name, part in sources.items()}
    if len(rows) != 1:
        rows[f"{model} (all)"] = report
    rows |= {f"paper: {name}": part for name, part in report["paper"].items()}
    return requirement_rows(rows, list(report["violations"]))


def requirement_rows(
    parts: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return the headings of Table 1, and its rows for ``parts`` of the form of a report."""
    return (
        ["% of texts", *map(heading, names), "RETAINED"],
        [[name, *map(_percent, _shares(part, names))] for name, part in parts.items()],
    )


def heading(name: str) -> str:
    """Return the heading of a requirement, maybe one of a plugin that is not installed here."""
    return REQUIREMENTS[name].heading if name in REQUIREMENTS else name.replace("_", " ")


def _shares(report: Mapping[str, Any], names: Sequence[str]) -> list[float | None]:
    violations = report["violations"]
    return [*(violations.get(name, {}).get("share") for name in names), report["retention"]]


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


def merge(counts: Iterable[Counts]) -> dict[str, Counter[str]]:
    """Return the sum of the counts of several chunks, source by source."""
    merged: dict[str, Counter[str]] = {}
    for part in counts:
        for source, numbers in part.items():
            merged.setdefault(source, Counter()).update(numbers)
    return merged


def filter_report(counts: Iterable[Counts], names: Sequence[str]) -> dict[str, Any]:
    """Merge counts into ``filter_report.json``, with the paper's rows beside ours.

    ``names`` are the requirements that judged. Shares are of all texts; they are null where there
    are none. A text that fails several requirements counts for each, as in Table 1.
    ``session_length`` is null where no tokens were counted; where some were, its share is of those,
    and ``not_measured`` says how many were not.
    """
    by_source = merge(counts)
    total: Counter[str] = Counter()
    for numbers in by_source.values():
        total.update(numbers)
    sources = {source: _report(by_source[source], names) for source in sorted(by_source)}
    return {**_report(total, names), "by_source": sources, "paper": _papers(names)}


def _report(numbers: Mapping[str, int], names: Sequence[str]) -> dict[str, Any]:
    total, kept = numbers.get("total", 0), numbers.get("kept", 0)
    violations: dict[str, dict[str, Any]] = {}
    for name in names:
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


def _papers(names: Sequence[str]) -> dict[str, Any]:
    """Return the rows of the paper's Table 1 in the form of ours, as shares."""
    return {
        model: {
            "retention": round(row["retention"] / 100, 3),
            "violations": {
                name: {"share": round(REQUIREMENTS[name].paper[model] / 100, 3)}
                for name in names
                if model in REQUIREMENTS[name].paper
            },
        }
        for model, row in paper.TABLE_1.items()
    }
