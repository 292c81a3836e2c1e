"""What people said of dialogs, read from the files of those who asked them.

One record, :class:`Judged`, for all: a dialog, or one utterance of it, with a number from each
person who judged it. Readers refuse a bad file in one line that names file, line (or dialog and
turn) and value.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from augesc_builder.errors import InputError
from augesc_builder.readers.jsonl import json_of, read_json_rows, read_lines, text_of
from augesc_builder.readers.records import BadLines, parse_each
from augesc_builder.sources.esconv import parse_session
from augesc_builder.sources.sessions import check_messages
from augesc_builder.text.prompts import Message

Rating: TypeAlias = float | None
"""A number that somebody gave, or ``None`` where they gave none."""

DEVELOPMENT, TEST = "development", "test"

_BITS = 256

PLANTED = "contradiction"
"""What is judged of a dialog with or without a planted contradiction."""


@dataclass(frozen=True)
class Judged:
    """A dialog, or the utterance ``turn`` of it (from 0), with what people said of it.

    ``ratings`` has the numbers of all raters by what was asked, and ``others`` those of judges who
    are no people, by what was asked and by name. What has the same ``dialog`` is drawn and split
    together. ``system`` names the machine that took part, where that is known.
    """

    dialog: str
    messages: tuple[Message, ...]
    turn: int | None
    ratings: Mapping[str, tuple[Rating, ...]]
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    system: str = ""


def parts_of(judged: Sequence[Judged]) -> list[str]:
    """Return the part of each, fixed by its dialog's name before anything is looked at.

    It is the last bit of the name's SHA-256. A file that was itself made by that bit, so that all
    of it is of one part, is divided by the bit in front of it, and so on.
    """
    digests = [int(hashlib.sha256(one.dialog.encode()).hexdigest(), 16) for one in judged]
    for bit in range(_BITS):
        odd = [digest >> bit & 1 for digest in digests]
        if len(set(odd)) > 1:
            return [TEST if one else DEVELOPMENT for one in odd]
    return [DEVELOPMENT] * len(digests)


def read_planted(path: Path) -> list[Judged]:
    """Read lines of ``original`` or ``contradiction``, the dialog's name, and its utterances.

    They stand apart by tabs. Speakers take turns; what is planted is the last utterance, which is
    what is judged.
    """

    def parse(line: bytes, number: int) -> Judged:
        label, *rest = text_of(line, path, number).split("\t")
        if label not in ("original", "contradiction"):
            raise InputError(
                f"expected original or contradiction in front, found {_brief(label)}", path, number
            )
        if len(rest) < 2:
            raise InputError(
                "expected the dialog's name and its utterances behind the label, apart by tabs; "
                f"found {_brief(rest)}",
                path,
                number,
            )
        name, *said = rest
        messages = tuple(
            Message(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(said)
        )
        ratings = {PLANTED: (float(label == "contradiction"),)}
        return Judged(name, messages, len(messages) - 1, ratings)

    return _all(read_lines(path), parse, path)


def read_abceval(path: Path) -> list[Judged]:
    """Read ABC-Eval's JSON: what people, and judges who are none, say of each system turn."""
    value = json_of(_bytes_of(path), path, 1)
    if not isinstance(value, dict):
        raise InputError(f"expected an object of dialogs, found {_brief(value)}", path)
    found = []
    for dialog, turns in value.items():
        if not isinstance(turns, list):
            raise InputError(
                f"dialog {_brief(dialog)}: expected a list of turns, found {_brief(turns)}", path
            )
        messages: list[Message] = []
        judged = []
        for number, turn in enumerate(turns, 1):
            where = f"dialog {_brief(dialog)}, turn {number}"
            for key, role in (("user", "user"), ("system", "assistant")):
                if not isinstance(turn, dict) or not isinstance(turn.get(key), str):
                    raise InputError(
                        f"{where}: expected a text at {key!r}, found {_brief(turn)}", path
                    )
                messages.append({"role": role, "content": turn[key]})
            judged.append((len(messages) - 1, *_behaviors(turn.get("behaviors"), where, path)))
        system = dialog.partition(")_")[2]
        found += [Judged(dialog, tuple(messages), *rest, system) for rest in judged]
    return _some(found, path)


def _behaviors(
    value: Any, where: str, path: Path
) -> tuple[dict[str, tuple[Rating, ...]], dict[str, dict[str, float]]]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object at 'behaviors', found {_brief(value)}", path)
    ratings, others = {}, {}
    for name, labels in value.items():
        if not isinstance(labels, dict) or "human" not in labels:
            raise InputError(
                f"{where}: expected the labels of 'human' for {name!r}, found {_brief(labels)}",
                path,
            )

        def fail(found: Any, name: str = name) -> InputError:
            return InputError(f"{where}: expected 0 or 1 for {name!r}, found {found}", path)

        ratings[name] = _numbers(labels["human"], fail)
        other = {judge: _numbers(x, fail)[0] for judge, x in labels.items() if judge != "human"}
        if not {*ratings[name], *other.values()} <= {0, 1}:
            raise fail(_brief(labels))
        others[name] = {judge: x for judge, x in other.items() if x is not None}
    return ratings, others


def read_fed(path: Path) -> list[Judged]:
    """Read FED's JSON: dialogs (``context``) and turns (with a ``response``) with annotations.

    A turn belongs to the dialog that begins as it does. What is no number ("N/A (...)") is none.
    """

    def parse(line: bytes, number: int) -> tuple[str, Judged]:
        value = json_of(line, path, number)
        if not isinstance(value, dict) or not isinstance(value.get("context"), str):
            raise InputError(f"expected a text at 'context', found {_brief(value)}", path, number)
        response = value.get("response")
        text = value["context"] if response is None else f"{value['context']}\n{response}"
        messages = tuple(_spoken(text, path, number))
        ratings = _scores(value.get("annotations"), "annotations", path, number, words=True)
        turn = None if response is None else len(messages) - 1
        judged = Judged(value["context"], messages, turn, ratings, {}, str(value.get("system", "")))
        return value["context"], judged

    read = _all(_entries(path), parse, path)
    wholes = [context for context, judged in read if judged.turn is None]
    found = []
    for context, judged in read:
        whole = next((dialog for dialog in wholes if dialog.startswith(context)), context)
        found.append(replace(judged, dialog=whole))
    return found


def _spoken(text: str, path: Path, number: int) -> Iterator[Message]:
    """Yield the utterances of lines ``User: ...`` and ``System: ...``, and of what follows them."""
    roles = {"User": "user", "Seeker": "user", "System": "assistant", "Supporter": "assistant"}
    message: Message | None = None
    for line in text.split("\n"):
        speaker, colon, said = line.partition(":")
        if colon and speaker in roles:
            if message:
                yield message
            message = {"role": roles[speaker], "content": said.strip()}
        elif message:
            message["content"] = f"{message['content']} {line.strip()}".strip()
        elif line.strip():
            raise InputError(
                f"expected lines that begin with one of {', '.join(roles)} and a colon, found "
                f"{_brief(line)}",
                path,
                number,
            )
    if message:
        yield message


def read_lend_an_ear(path: Path) -> list[Judged]:
    """Read conversations of support with the ratings of experts, crowd and language models.

    The raters of ``ratings`` are the experts, in order; all others are judges.
    """

    def parse(line: bytes, number: int) -> Judged:
        value = json_of(line, path, number)
        keys = {"conversation_id": str, "conversation": str, "annotations": list}
        for key, kind in keys.items():
            if not isinstance(value, dict) or not isinstance(value.get(key), kind):
                raise InputError(f"lacks {key!r} of its kind: {_brief(value)}", path, number)
        experts: dict[str, list[Rating]] = {}
        others: dict[str, dict[str, float]] = {}
        for entry in value["annotations"]:
            if not isinstance(entry, dict) or len(entry) != 1:
                raise InputError(f"expected one rater, found {_brief(entry)}", path, number)
            rater, given = next(iter(entry.items()))
            for name, (score, *_) in _scores(given, rater, path, number).items():
                if rater.startswith("expert") and rater != "experts":
                    experts.setdefault(name, []).append(score)
                elif rater != "experts" and score is not None:  # that is their median
                    others.setdefault(name, {})[rater] = score
        messages = tuple(_spoken(value["conversation"], path, number))
        ratings = {name: tuple(scores) for name, scores in experts.items()}
        return Judged(value["conversation_id"], messages, None, ratings, others)

    return _all(_entries(path), parse, path)


def read_scored(path: Path) -> list[Judged]:
    """Read lines ``{"messages": [...], "scores": {"name": 4}}``: of a conversation, or a turn.

    A score is a number, or a list with one of each rater (``null`` where there is none). ``turn``
    is the number of the utterance that was judged, from 0; without it the conversation was.
    Lines with the same ``id`` are of the same conversation; without it, those of the same words.
    """

    def parse(line: bytes, number: int) -> Judged:
        value = json_of(line, path, number)
        if not isinstance(value, dict):
            raise InputError(f"expected an object, found {_brief(value)}", path, number)
        messages = tuple(check_messages(value.get("messages"), path, number))
        if not messages:
            raise InputError("no messages; remove the line", path, number)
        turn, name = value.get("turn"), value.get("id")
        if turn is not None and (type(turn) is not int or not 0 <= turn < len(messages)):
            raise InputError(
                f"'turn': expected a number from 0 to {len(messages) - 1}, found {_brief(turn)}",
                path,
                number,
            )
        if name is not None and not isinstance(name, str):
            raise InputError(f"'id': expected a text, found {_brief(name)}", path, number)
        ratings = _scores(value.get("scores"), "scores", path, number)
        dialog = name or json.dumps([m["content"] for m in messages])
        return Judged(dialog, messages, turn, ratings)

    return _all(read_json_rows(path), parse, path)


def read_survey(path: Path) -> list[Judged]:
    """Read sessions of ESConv's form with what the seeker said afterwards (``survey_score``).

    A session is named by its words. One that was not asked about has no scores.
    """

    def parse(line: bytes, number: int) -> Judged:
        value = json_of(line, path, number)
        session = parse_session(value, f"{path.stem}-{number}", path, number)
        survey = value.get("survey_score")
        asked = survey.get("seeker") if isinstance(survey, dict) else None
        ratings = _scores(asked, "survey_score", path, number) if asked else {}
        dialog = json.dumps([m["content"] for m in session.messages])
        return Judged(dialog, session.messages, None, ratings)

    return _all(read_json_rows(path), parse, path)


def _scores(
    value: Any, key: str, path: Path, number: int, *, words: bool = False
) -> dict[str, tuple[Rating, ...]]:
    if not isinstance(value, dict) or not value:
        raise InputError(
            f"{key!r}: expected an object of scores by name, found {_brief(value)}", path, number
        )

    def fail(found: Any) -> InputError:
        return InputError(
            f"{key!r}: expected a number, or a list of them, for {name!r}, found {found}",
            path,
            number,
        )

    found = {}
    for name, given in value.items():
        numbers = [None if words and isinstance(x, str) else x for x in _listed(given)]
        found[name] = _numbers(numbers, fail)
    return found


def _numbers(given: Any, fail: Callable[[Any], InputError]) -> tuple[Rating, ...]:
    found: list[Rating] = []
    for one in _listed(given):
        try:
            number = None if one is None else float(one)
        except (TypeError, ValueError, OverflowError):
            raise fail(_brief(one)) from None
        if isinstance(one, bool) or (number is not None and not math.isfinite(number)):
            raise fail(_brief(one))
        found.append(number)
    if not found:
        raise fail(_brief(given))
    return tuple(found)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the values of one JSON list, however it is broken into lines, with their numbers."""
    value = json_of(_bytes_of(path), path, 1)
    if not isinstance(value, list):
        raise InputError(f"expected a list, found {_brief(value)}", path)
    for number, entry in enumerate(value, 1):
        yield number, json.dumps(entry).encode()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None


def _all(rows: Any, parse: Callable[[bytes, int], Any], path: Path) -> list[Any]:
    return _some(list(BadLines(strict=True).good(parse_each(rows, parse, path))), path)


def _some(found: list[Any], path: Path) -> list[Any]:
    if not found:
        raise InputError("empty; expected what people said of dialogs", path)
    return found


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
