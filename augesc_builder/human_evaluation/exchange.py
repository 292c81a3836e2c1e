"""What a study holds, as tables, and in the forms of Potato and Label Studio.

Another tool is given units: a session, or (of a form about turns) a session up to one utterance,
called ``s001`` or ``s001.3``. No unit tells which set it is from.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from augesc_builder.errors import RunFolderError, StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.form import Question
from augesc_builder.human_evaluation.store import CROWD, Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.disk import disk_errors, new_folder, sync, write_synced
from augesc_builder.run.progress import Progress
from augesc_builder.text.prompts import Message

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

ROLES = {"user": "Seeker", "assistant": "Supporter"}
"""How annotators read who speaks."""


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
        "potato": _write_potato,
        "label-studio": _write_label_studio,
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


# -- other tools -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """What another tool shows at a time: an item, or an item up to one of its turns."""

    item: str
    turn: int | None
    messages: tuple[Message, ...]

    @property
    def id(self) -> str:
        """Its name there."""
        return self.item if self.turn is None else f"{self.item}.{self.turn}"

    @property
    def dialogue(self) -> list[dict[str, str]]:
        """Its utterances, with who speaks."""
        return [{"speaker": ROLES[m["role"]], "text": m["content"]} for m in self.messages]


def units_of(study: Study) -> Iterator[Unit]:
    """Yield the units of a study, in the order of its items."""
    for item in study.items.values():
        turns = dict.fromkeys(slot.turn for slot in study.slots(item.id))
        for turn in turns:
            shown = item.messages if turn is None else item.messages[: turn + 1]
            yield Unit(item.id, turn, shown)


Chosen = dict[str, dict[str, dict[str, int]]]
"""Options by annotator, unit and question."""


def chosen_options(store: Store) -> tuple[Chosen, dict[tuple[str, str], float | None]]:
    """Return what was chosen in every unit that is complete, and the seconds for each item."""
    numbers = {
        q.name: {score: i for i, score in enumerate(q.scores, 1)}
        for q in store.study.form.questions
    }
    found: Chosen = {}
    seconds: dict[tuple[str, str], float | None] = {}
    for rating in store.ratings():
        unit = rating.session if rating.turn is None else f"{rating.session}.{rating.turn}"
        by_unit = found.setdefault(rating.annotator, {})
        by_unit.setdefault(unit, {})[rating.question] = numbers[rating.question][rating.value]
        seconds[rating.annotator, rating.session] = rating.seconds
    return found, seconds


def _write_potato(store: Store, out: Path) -> str:
    """Write a task folder: items, configuration, and what each annotator has done."""
    study = store.study
    chosen, _ = chosen_options(store)
    units = {unit.id: unit for unit in units_of(study)}
    (out / "data").mkdir()
    rows = [{"id": unit.id, "conversation": unit.dialogue} for unit in units.values()]
    _json_lines(out / "data" / "items.jsonl", rows)
    config = {
        "annotation_task_name": study.settings.title,
        "task_dir": ".",
        "data_files": ["data/items.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "conversation"},
        "instance_display": {"fields": [{"key": "conversation", "type": "dialogue"}]},
        "output_annotation_dir": "annotation_output",
        "annotation_schemes": [
            {
                "annotation_type": "radio",
                "name": question.name,
                "description": f"{question.title}: {question.definition}",
                "labels": [option.label for option in question.options],
            }
            for question in study.form.questions
        ],
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
    write_synced(out / "config.yaml", text)
    questions = {q.name: q for q in study.form.questions}
    for annotator, by_unit in chosen.items():
        folder = out / "annotation_output" / annotator
        folder.mkdir(parents=True)
        lines = [
            {
                "id": unit,
                "label_annotations": {
                    name: {questions[name].options[number - 1].label: "true"}
                    for name, number in answers.items()
                },
                "span_annotations": {},
            }
            for unit, answers in by_unit.items()
        ]
        _json_lines(folder / "annotated_instances.jsonl", lines)
    return f"{len(units):,} items and the answers of {len(chosen):,} annotators, for Potato"


def _json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_synced(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_label_studio(store: Store, out: Path) -> str:
    """Write tasks with annotations, and the labelling configuration that they fit."""
    study = store.study
    chosen, seconds = chosen_options(store)
    questions = {q.name: q for q in study.form.questions}
    tasks: list[dict[str, Any]] = []
    for unit in units_of(study):
        annotations = [
            {
                "annotator": annotator,  # who that is here; Label Studio has numbers of its own
                "lead_time": seconds[annotator, unit.item],
                "was_cancelled": False,
                "result": [
                    {
                        "id": f"{unit.id}-{annotator}-{name}",
                        "from_name": name,
                        "to_name": "dialogue",
                        "type": "choices",
                        "value": {"choices": [questions[name].options[number - 1].label]},
                    }
                    for name, number in by_unit[unit.id].items()
                ],
            }
            for annotator, by_unit in chosen.items()
            if unit.id in by_unit
        ]
        data = {"unit": unit.id, "dialogue": unit.dialogue}
        tasks.append({"data": data, "annotations": annotations})
    write_synced(out / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_synced(out / "config.xml", label_studio_config(study.form.questions))
    return f"{len(tasks):,} tasks and the answers of {len(chosen):,} annotators, for Label Studio"


def label_studio_config(questions: tuple[Question, ...]) -> str:
    """Return the labelling configuration of Label Studio for these questions."""
    lines = [
        "<View>",
        '  <Paragraphs name="dialogue" value="$dialogue" layout="dialogue" nameKey="speaker"/>',
    ]
    for question in questions:
        said = f"{question.title}: {question.definition}"
        lines.append(f"  <Header value={quoteattr(said)}/>")
        lines.append(
            f'  <Choices name={quoteattr(question.name)} toName="dialogue" choice="single-radio" '
            f'required="true">'
        )
        lines += [f"    <Choice value={quoteattr(o.label)}/>" for o in question.options]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])
