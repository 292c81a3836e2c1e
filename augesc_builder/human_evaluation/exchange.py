"""What a study holds, written out: as tables, as events, and for other tools."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from augesc_builder.errors import RunFolderError, StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.other_tools import write_label_studio, write_potato
from augesc_builder.human_evaluation.store import CROWD, Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.disk import disk_errors, new_folder, sync, write_synced
from augesc_builder.run.progress import Progress

RATINGS = pa.schema(
    [
        ("session", pa.string()),
        ("set", pa.string()),
        ("annotator", pa.string()),
        ("question", pa.string()),
        ("value", pa.int32()),
        ("seconds", pa.float64()),
        ("is_judge", pa.bool_()),
        ("turn", pa.int32()),
    ]
)
"""A row is one score; ``turn`` is null unless the form is about turns."""

PREFERENCES = pa.schema(
    [
        ("pair", pa.string()),
        ("participant", pa.string()),
        ("question", pa.string()),
        ("system_a", pa.string()),
        ("system_b", pa.string()),
        ("winner", pa.string()),
        ("seconds", pa.float64()),
        ("is_judge", pa.bool_()),
    ]
)
"""A row is one answer on a pair; ``winner`` is null for a tie."""

PEOPLE = pa.schema(
    [
        ("annotator", pa.string()),
        ("via", pa.string()),
        ("person", pa.string()),
        ("stage", pa.string()),
        ("finished", pa.int32()),
        ("of", pa.int32()),
        ("checks_passed", pa.int32()),
        ("checks", pa.int32()),
    ]
)
"""A row is somebody who came; ``person`` is the id by which a crowd platform pays them."""

_PRIVATE = ("person", "study_id", "session_id")
"""What an arrival says that no export of events repeats."""


def export(study: Study, out: Path, to: str, progress: Progress) -> None:
    """Write a study as ``csv``, ``parquet``, ``events``, ``people``, ``potato``, ``label-studio``.

    Raises :class:`~augesc_builder.errors.StudyError` for another form, and
    :class:`~augesc_builder.errors.RunFolderError` where ``out`` is in use.
    """
    forms: dict[str, Callable[[Store, Path], str]] = {
        "csv": _write_csv,
        "parquet": _write_parquet,
        "events": _write_events,
        "people": _write_people,
        "potato": write_potato,
        "label-studio": write_label_studio,
    }
    if to not in forms:
        raise StudyError(f"--to {to:.40}: expected one of {', '.join(forms)}")
    if to in _FOLDERS and study.settings.kind == "interactive":
        raise StudyError(
            f"--to {to}: conversations with systems come into being here; take csv, parquet or "
            f"events"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RunFolderError(f"{out} is there already; give another --out")
    for line in study.changed_corpora():
        progress.say(line)
    with Store.open(study) as store:
        if to in _FOLDERS:
            with new_folder(out) as work:
                said = forms[to](store, work)
        else:
            with disk_errors(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                said = forms[to](store, out)
    progress.say(f"{out}: {said}")


_FOLDERS = {"potato", "label-studio"}
"""Forms that are more than a file."""


# -- tables ----------------------------------------------------------------------------------------


def table_of(store: Store) -> pa.Table:
    """Return the ratings, or the preferences, of a study."""
    if store.study.settings.kind == "quality":
        return pa.Table.from_pylist([asdict(r) for r in store.ratings()], schema=RATINGS)
    rows = []
    for found in store.preferences():
        row = asdict(found)
        row["system_a"], row["system_b"] = row.pop("systems")
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=PREFERENCES)


def _write_csv(store: Store, out: Path) -> str:
    return _as_csv(table_of(store), out)


def _write_parquet(store: Store, out: Path) -> str:
    table = table_of(store)
    whole = out.with_name(f"{out.name}.new")
    try:
        pq.write_table(table, whole, write_page_checksum=True)
        sync(whole)
        whole.replace(out)
    finally:
        whole.unlink(missing_ok=True)
    return f"{table.num_rows:,} rows"


def _as_csv(table: pa.Table, out: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow(_cell(value) for value in row.values())
    write_synced(out, text.getvalue())
    return f"{table.num_rows:,} rows"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_events(store: Store, out: Path) -> str:
    """Write every event as a line of JSON, without what a platform told of a person."""
    lines = []
    for event in store.events():
        row = asdict(event)
        if event.kind == kinds.ARRIVED:
            row["body"] = {k: v for k, v in event.body.items() if k not in _PRIVATE}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_synced(out, "".join(lines))
    return f"{len(lines):,} events"


def _write_people(store: Store, out: Path) -> str:
    checks = store.checks()
    rows = []
    for event in store.events():
        if event.kind != kinds.ARRIVED:
            continue
        name, found = event.annotator, store.progress(event.annotator)
        passed, of = checks.get(name, (0, 0))
        rows.append(
            {
                "annotator": name,
                "via": found.via,
                "person": event.body.get("person") if found.via == CROWD else None,
                "stage": found.stage,
                "finished": len(found.finished),
                "of": 0 if found.place is None else len(found.place.items),
                "checks_passed": passed,
                "checks": of,
            }
        )
    said = _as_csv(pa.Table.from_pylist(rows, schema=PEOPLE), out)
    out.chmod(0o600)
    return f"{said}; it names people by a platform's ids: publish it nowhere"
