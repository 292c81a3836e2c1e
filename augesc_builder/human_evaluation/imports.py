"""Ratings that people gave elsewhere: every one is checked first, and all are taken or none.

From CSV with the columns of our own export, or from Label Studio's JSON of tasks with annotations.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation import state
from augesc_builder.human_evaluation.store import IMPORT, JUDGE, Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.readers.csv_records import read_records
from augesc_builder.readers.records import BROKEN, broken
from augesc_builder.run.disk import sha256
from augesc_builder.run.progress import Progress

_ANNOTATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_NEEDED = ("session", "annotator", "question", "value")
_TRUE, _FALSE = {"true", "1"}, {"", "false", "0"}
_SHOWN = 10
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Given:
    """One rating of a file, and the line or task it stands in; ``option`` is from 1."""

    line: int
    annotator: str
    item: str
    key: str
    option: int
    seconds: float | None
    is_judge: bool


@dataclass
class _Sheet:
    """What a file says of one annotator and one item."""

    answers: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    line: int = 0


def import_ratings(study: Study, path: Path, progress: Progress) -> int:
    """Add the ratings of a file to a study; return how many sessions of how many people are new.

    Raises :class:`~augesc_builder.errors.InputError` with the lines that are wrong: none of the
    file is taken then.
    """
    if study.settings.kind != "quality":
        raise InputError("an interactive study takes no ratings from files", path)
    given = _label_studio(study, path) if _is_json(path) else _csv(study, path)
    with Store.open(study) as store:
        n_new, n_open = _take(store, given, path)
    progress.say(f"{n_new:,} rated sessions taken from {path}")
    if n_open:
        progress.say(f"  {n_open:,} of them lack answers, and count when the rest is there")
    return n_new


def _take(store: Store, given: list[Given], path: Path) -> tuple[int, int]:
    wrong: list[InputError] = []
    sheets: dict[tuple[str, str], _Sheet] = defaultdict(_Sheet)
    via: dict[str, str] = {}
    with store.log.writing() as connection:
        before = state.answers_of(connection)
        arrived = state.select(connection, "kind = ?", kinds.ARRIVED)
        known = {event.annotator: event.body.get("via", "") for event in arrived}
        own = set(store.study.tokens.links)
        for one in given:
            sheet = sheets[one.annotator, one.item]
            how = via.setdefault(one.annotator, JUDGE if one.is_judge else IMPORT)
            there = before.of(one.annotator, one.item).get(one.key)
            said = None
            if one.annotator in own or known.get(one.annotator, how) != how:
                said = f"{one.annotator} takes part in the study itself; rename them in the file"
            elif (how == JUDGE) != one.is_judge:
                said = f"{one.annotator} is a judge in some lines, and none in others"
            elif sheet.answers.get(one.key, one.option) != one.option:
                said = f"a second answer of {one.annotator} to {one.key} of {one.item}"
            elif there not in {None, one.option}:
                said = f"{one.annotator} has answered {one.key} of {one.item} otherwise before"
            if said is not None:
                wrong.append(InputError(said, path, one.line))
                continue
            sheet.answers[one.key] = one.option
            sheet.seconds, sheet.line = one.seconds, sheet.line or one.line
        if wrong:
            raise _all_of(wrong, path)
        facts = {"file": path.name, "sha256": sha256(path)}
        n_new = n_open = 0
        for name, how in via.items():
            if name not in known:
                store.log.append(connection, kinds.ARRIVED, name, "", {"via": how, **facts})
        for (name, item), sheet in sheets.items():
            if before.of(name, item).items() >= sheet.answers.items():
                continue
            body: dict[str, Any] = {"answers": sheet.answers}
            if sheet.seconds is not None:
                body["seconds"] = sheet.seconds
            store.log.append(connection, kinds.ANSWERED, name, item, body)
            n_new += 1
            slots = {slot.key for slot in store.study.slots(item)}
            n_open += not slots <= {*sheet.answers, *before.of(name, item)}
    return n_new, n_open


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _all_of(wrong: list[InputError], path: Path) -> InputError:
    """Return one error for all that is wrong in a file, of JSON by the number of the task."""
    place = "task" if _is_json(path) else "line"
    lines = [f"{place} {error.line}: {error.message}" for error in wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        lines.append(f"and {len(wrong) - _SHOWN:,} more")
    return InputError(f"nothing was taken; {' | '.join(lines)}", path)


# -- CSV -------------------------------------------------------------------------------------------


def _csv(study: Study, path: Path) -> list[Given]:
    records = read_records(path)
    header = next(records, None)
    names = [] if header is None or isinstance(header[1], InputError) else header[1]
    if missing := [name for name in _NEEDED if name not in names]:
        raise InputError(
            f"expected a CSV file with the columns {', '.join(_NEEDED)}; it lacks "
            f"{', '.join(missing)}",
            path,
        )
    found, wrong = [], []
    for line, cells in records:
        try:
            if isinstance(cells, InputError):
                raise cells
            found.append(_rating(study, dict(zip(names, cells, strict=True)), path, line))
        except InputError as error:
            wrong.append(error)
    if wrong:
        raise _all_of(wrong, path)
    return found


def _rating(study: Study, row: Mapping[str, str], path: Path, line: int) -> Given:
    turn = row.get("turn") or ""
    key = f"{row['question']}.{turn}" if turn else row["question"]
    if row.get("set") and row["session"] in study.items:
        actual = study.items[row["session"]].set
        if row["set"] != actual:
            raise InputError(
                f"{row['session']} is of the set {actual}, found {row['set']:.60}", path, line
            )
    slots = _slots(study, row["session"], path, line)
    if key not in slots:
        raise InputError(f"no question {key!r:.60} about {row['session']}", path, line)
    scores = slots[key]
    if row["value"] not in map(str, scores):
        expected = ", ".join(map(str, sorted(scores)))
        raise InputError(
            f"value: expected one of {expected}, found {row['value']!r:.40}", path, line
        )
    judge = (row.get("is_judge") or "").lower()
    if judge not in _TRUE | _FALSE:
        raise InputError(f"is_judge: expected true or false, found {judge!r:.40}", path, line)
    return Given(
        line,
        _annotator(row["annotator"], path, line),
        row["session"],
        key,
        scores.index(int(row["value"])) + 1,
        _seconds(row.get("seconds") or None, path, line),
        judge in _TRUE,
    )


def _slots(study: Study, item: str, path: Path, line: int) -> dict[str, tuple[int, ...]]:
    """Return the scores of the options of each slot of an item."""
    if item not in study.items:
        raise InputError(f"no session {item!r:.60} in this study", path, line)
    return {slot.key: slot.question.scores for slot in study.slots(item)}


def _annotator(name: Any, path: Path, line: int) -> str:
    if isinstance(name, str) and _ANNOTATOR.fullmatch(name):
        return name
    raise InputError(
        f"annotator: expected up to 64 letters, digits and . _ @ -, found {name!r:.80}", path, line
    )


def _seconds(given: Any, path: Path, line: int) -> float | None:
    if given is None:
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < 1e9:  # noqa: PLR2004
        raise InputError(f"seconds: expected a number from 0, found {given!r:.40}", path, line)
    return seconds


# -- Label Studio ----------------------------------------------------------------------------------


def _label_studio(study: Study, path: Path) -> list[Given]:
    tasks = _tasks(path)
    found: list[Given] = []
    wrong: list[InputError] = []
    for number, task in enumerate(tasks, 1):
        try:
            found += _annotations(study, task, path, number)
        except InputError as error:
            wrong.append(error)
        except BROKEN as error:
            wrong.append(broken(error, path, number))
    if wrong:
        raise _all_of(wrong, path)
    return found


def _tasks(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"larger than {_MOST_BYTES:,} bytes; split the export", path)
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({str(error)[:100]}); export tasks as JSON", path) from None
    if not isinstance(tasks, list):
        raise InputError("expected a list of tasks, as Label Studio exports JSON", path)
    return tasks


def _annotations(study: Study, task: Any, path: Path, number: int) -> Iterator[Given]:
    """Yield the ratings of a task; its number stands for a line."""
    unit = task["data"]["unit"]
    if not isinstance(unit, str):
        raise InputError(f"data.unit: expected a text, found {unit!r:.60}", path, number)
    item, dot, turn = unit.partition(".")
    slots = {slot.key: slot.question for slot in study.slots(item)} if item in study.items else {}
    if not slots:
        raise InputError(f"no session {item!r:.60} in this study", path, number)
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        annotator = _annotator(_who(annotation), path, number)
        seconds = _seconds(annotation.get("lead_time"), path, number)
        for result in annotation["result"]:
            key = f"{result['from_name']}{dot}{turn}"
            if key not in slots:
                raise InputError(f"no question {key!r:.60} about {item}", path, number)
            labels = [option.label for option in slots[key].options]
            match result["value"]["choices"]:
                case [str(label)] if label in labels:
                    option = labels.index(label) + 1
                case other:
                    raise InputError(
                        f"{key}: expected one of {labels}, found {other!r:.80}", path, number
                    )
            yield Given(number, annotator, item, key, option, seconds, False)


def _who(annotation: Mapping[str, Any]) -> Any:
    """Return who made an annotation: as we wrote it, or as Label Studio names its users."""
    user = annotation.get("annotator", annotation.get("completed_by"))
    if isinstance(user, dict):
        user = user.get("email") or user.get("id")
    return f"labelstudio-{user}" if isinstance(user, int) else user
