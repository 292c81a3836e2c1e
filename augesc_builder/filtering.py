"""Generations to sessions and rejected rows, and the count of what failed (Table 1)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from datasets.utils import are_progress_bars_disabled

from augesc_builder.requirements import REQUIREMENTS, decide, failed, measure, passed
from augesc_builder.settings import Requirements
from augesc_builder.tables import GENERATIONS, REJECTED, SESSIONS, to_table


def filter_generations(
    generations: pa.Table, limits: Requirements
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Split a generations table into sessions and rejected rows; count violations by source."""
    with _quiet_bars():
        judged = (
            Dataset(generations.select(list(GENERATIONS)))
            .map(measure, batched=True, fn_kwargs={"role_words": limits.role_words.words})
            .map(decide, batched=True, fn_kwargs={"thresholds": limits.model_dump()})
        )
        kept, dropped = judged.filter(passed, batched=True), judged.filter(failed, batched=True)
    sessions = (
        {
            "session_id": f"{row['query_id']}-{row['sample']}",
            "source": row["source"],
            "query_id": row["query_id"],
            "messages": row["messages"],
            "n_tokens": row["total_tokens"],
        }
        for row in kept
    )
    rejected = ({name: row[name] for name in REJECTED} for row in dropped)
    counts: dict[str, Counter[str]] = {}
    for source, names in zip(judged["source"], judged["violations"], strict=True):
        counts.setdefault(source, Counter()).update(["total", *names, *(["kept"] * (not names))])
    return (
        to_table(sessions, SESSIONS),
        to_table(rejected, REJECTED),
        {source: dict(counter) for source, counter in sorted(counts.items())},
    )


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Silence the bars of ``datasets``, four a shard; the stage draws one over the shards."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def filter_report(counts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, Any]:
    """Merge the counts of all shards into ``filter_report.json``.

    Shares are of all texts; they are null where there are none. A text that fails several
    requirements counts for each, as in Table 1.
    """
    by_source: dict[str, Counter[str]] = {}
    for shard in counts:
        for source, numbers in shard.items():
            by_source.setdefault(source, Counter()).update(numbers)
    total: Counter[str] = Counter()
    for numbers in by_source.values():
        total.update(numbers)
    sources = {source: _report(by_source[source]) for source in sorted(by_source)}
    return {**_report(total), "by_source": sources}


def _report(numbers: Mapping[str, int]) -> dict[str, Any]:
    total, kept = numbers.get("total", 0), numbers.get("kept", 0)

    def share(n: int) -> float | None:
        return n / total if total else None

    return {
        "total": total,
        "retained": kept,
        "retention": share(kept),
        "violations": {
            name: {"count": numbers.get(name, 0), "share": share(numbers.get(name, 0))}
            for name in REQUIREMENTS
        },
    }
