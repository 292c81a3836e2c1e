"""What the reports and the card of a corpus claim, beside what its data holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from augesc_builder.errors import InputError
from augesc_builder.hub.push import CARD
from augesc_builder.pipeline.card.metadata import (
    CONFIGS,
    digest,
    split_card,
)
from augesc_builder.run import layout
from augesc_builder.run.layout import (
    load_report,
    published_folder,
    run_of,
)
from augesc_builder.run.marks import parquet_files
from augesc_builder.text.safety import count_flags


def claims(corpus: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield what the reports claim and what the data holds: (where, claimed, found)."""
    report = load_report(corpus, "filter")
    kept, rejected = n_rows(corpus / layout.DATA), n_rows(corpus / layout.REJECTED)
    met = kept + n_rows(corpus / layout.NOT_SELECTED)  # where the best were chosen
    yield f"{layout.FILTER_REPORT}, retained", report["retained"], met
    yield f"{layout.FILTER_REPORT}, rejected", report["total"] - report["retained"], rejected
    violations: Counter[str] = Counter()
    for row in rows_of(corpus / layout.REJECTED):
        violations.update(row["violations"])
    for name, numbers in report["violations"].items():
        yield f"{layout.FILTER_REPORT}, {name}", numbers["count"], violations[name]
    sources: Counter[str] = Counter()
    flags = []
    for row in rows_of(corpus / layout.DATA):
        sources[row["source"]] += 1
        flags.append(row["safety_flags"])
    if run_of(corpus) != corpus:  # `augesc filter` measures none
        statistics = load_report(corpus, "statistics")
        yield f"{layout.STATISTICS}, sessions", statistics["sessions"], kept
        for name, part in statistics["by_source"].items():
            yield f"{layout.STATISTICS}, sessions of {name}", part["sessions"], sources[name]
    if (corpus / layout.QUALITY_REPORT).is_file():
        measured = load_report(corpus, "quality")
        yield f"{layout.QUALITY_REPORT}, sessions", measured["sessions"], kept
    found = count_flags(flags)
    for key, claimed in load_report(corpus, "safety").items():
        yield f"{layout.SAFETY_REPORT}, {key}", claimed, found[key]
    values, _ = split_card((corpus / CARD).read_text(encoding="utf-8"))
    for config in values.get("configs") or ():
        table = CONFIGS.get(config.get("config_name"))
        if table is not None:
            found_digest = f"content {digest(published_folder(corpus, table))}"
            yield f"{layout.CARD}, {config['config_name']}", config.get("description"), found_digest


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield source, flags and violations of the rows of a folder."""
    wanted = {"session_id", "source", "safety_flags", "violations"}
    for path in parquet_files(folder):
        file = pq.ParquetFile(path)
        columns = [name for name in file.schema_arrow.names if name in wanted]
        if "safety_flags" not in columns and "violations" not in columns:
            raise InputError("no column safety_flags; run the filter stage again", path)
        for batch in file.iter_batches(batch_size=1000, columns=columns):
            yield from batch.to_pylist()


def n_rows(folder: Path) -> int:
    """Return the rows of a folder of Parquet files."""
    return sum(pq.read_metadata(path).num_rows for path in parquet_files(folder))
