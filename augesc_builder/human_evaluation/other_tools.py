"""A study in the forms of Potato and Label Studio: what is asked, about what, and the answers.

They are given units: a session, or (of a form about turns) a session up to one utterance, called
``s001`` or ``s001.3``. No unit tells which set it is from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import yaml

from augesc_builder.human_evaluation.form import Question
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.disk import write_synced
from augesc_builder.text.prompts import Message

ROLES = {"user": "Seeker", "assistant": "Supporter"}
"""How annotators read who speaks."""


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


def write_potato(store: Store, out: Path) -> str:
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
    write_synced(out / "potato.yaml", text)
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


def write_label_studio(store: Store, out: Path) -> str:
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
