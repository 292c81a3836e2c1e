"""Counts of what the requirements rejected: ``filter_report.json`` and the paper's Table 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from augesc_builder import paper
from augesc_builder.pipeline.filter.requirements import REQUIREMENTS
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.run.progress import Progress
from augesc_builder.sources.registry import source_label

Counts = Mapping[str, Mapping[str, int]]
"""For each source: texts, violations of each requirement, kept and unmeasured ones."""


def filter_table(report: Mapping[str, Any], model: str = "ours") -> str:
    """Return Table 1: a source a row, ours first, then the paper's, a requirement a column.

    Of a source with more than 2,000 texts those of as many stand below, as the paper's are, each
    share with its 95% interval. Below the table stands where the paper disagrees with itself.
    """
    table = markdown_table(*filter_rows(report, model))
    return f"{table}\n\n{paper.TABLE_1_FOOTNOTE}" if report["paper"] else table


def filter_rows(
    report: Mapping[str, Any], model: str = "ours"
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of :func:`filter_table`."""
    sources = report["by_source"]
    rows: dict[str, Mapping[str, Any]] = {}
    for name, part in sources.items():
        rows[f"{model} ({source_label(name)})"] = part
        if (sample := report.get("samples", {}).get(name)) is not None:
            rows[f"{model} ({source_label(name)}), {sample['texts']:,} drawn"] = sample
    if len(sources) != 1:
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


Share = float | Mapping[str, float | None] | None
"""A share, or one of a sample with its interval."""


def _shares(report: Mapping[str, Any], names: Sequence[str]) -> list[Share]:
    violations = report["violations"]
    return [*(violations.get(name, {}).get("share") for name in names), report["retention"]]


def _percent(share: Share) -> str:
    if isinstance(share, Mapping):
        low, high = _percent(share["low"]), _percent(share["high"])
        return f"{_percent(share['value'])} [{low}, {high}]"
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


def say(report: Mapping[str, Any], progress: Progress, *, stripped: bool = False) -> None:
    """Print Table 1, and what was not measured; ``stripped`` says what was asked for."""
    progress.say(filter_table(report))
    progress.say(f"\nKept {report['retained']:,} of {report['total']:,} texts.")
    if missing := report["violations"]["session_length"].get("not_measured"):
        progress.say(
            f"session_length was not measured for {missing:,} of them, which have no token counts: "
            f"give --tokenizer NAME or DIR, or --recipe for that of its model."
        )
    elif stripped and report["counted"] == "generated":
        progress.say(
            "session_length is of the tokens as generated. The paper counts them without what is "
            "taken away at lines' beginnings: give --tokenizer NAME or DIR for that."
        )
