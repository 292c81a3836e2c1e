"""What a judge is asked about an item, and what its answer says: strictly, or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from augesc_builder.human_evaluation.form import LEFT, RIGHT, Form, Question, Slot
from augesc_builder.text.prompts import SPEAKER, Message

_PERSON_AND_BOT = {"user": "Person", "assistant": "Bot"}
_FENCE = "```"
_NUMBER = re.compile(r"[1-9]")
_SHOWN = 80


class MalformedError(ValueError):
    """An answer is not of the form; the message says how, and can be told to the model."""


def guideline(form: Form, preamble: str) -> str:
    """Return what every request says: the preamble, and the form with options by number."""
    said = [preamble, form.title, form.instruction]
    for part in form.parts:
        said += [f"## {part.title}", *map(_question, part.questions)]
    return "\n\n".join(said)


def request(
    guide: str, slots: Sequence[Slot], conversations: Sequence[Sequence[Message]], again: str = ""
) -> list[dict[str, str]]:
    """Return the messages of a request.

    ``conversations`` is a session, or the left and the right one of a pair. Utterances are numbered
    from 0, as slots have them. ``again`` says what was wrong with the answer before.
    """
    is_pair = len(conversations) > 1
    names = ("The left conversation:", "The right conversation:") if is_pair else ("",)
    said = []
    for name, messages in zip(names, conversations, strict=True):
        said += [name, _as_json(messages, _PERSON_AND_BOT if is_pair else SPEAKER)]
    keys = json.dumps([slot.key for slot in slots])
    numbered = any(slot.turn is not None for slot in slots)
    said.append(
        "Answer with one JSON object and nothing else. It has exactly these keys"
        + (", the question and behind the dot the number of the utterance" if numbered else "")
        + f": {keys}. Each value is the number of the option that you choose, such as 1."
    )
    if again:
        said.append(f"Your last answer was not of this form: {again}.")
    return [
        {"role": "system", "content": guide},
        {"role": "user", "content": "\n\n".join(filter(None, said))},
    ]


def parse_answer(text: str, slots: Sequence[Slot]) -> dict[str, int]:
    """Return the options that were chosen, by slot.

    Taken is a JSON object with a whole number for each slot and nothing more, alone or as a block
    of code; for a single slot also the number alone. Raises :class:`MalformedError` for all else.
    """
    said = _without_fence(text.strip())
    if len(slots) == 1 and _NUMBER.fullmatch(said):
        return _checked({slots[0].key: int(said)}, slots)
    try:
        found = json.loads(said, object_pairs_hook=_unique)
    except MalformedError:
        raise
    except (ValueError, RecursionError):
        raise MalformedError(f"expected a JSON object alone, found {_brief(said)}") from None
    if not isinstance(found, dict):
        raise MalformedError(f"expected a JSON object, found {_brief(said)}")
    return _checked(found, slots)


def _without_fence(said: str) -> str:
    """Take what stands in a block of code out of it, where the block is all there is."""
    begin, _, rest = said.partition("\n")
    inside, _, behind = rest.rpartition("\n")
    is_block = begin.strip() in {_FENCE, f"{_FENCE}json"} and behind.strip() == _FENCE
    return inside.strip() if is_block else said


def swapped(answers: Mapping[str, int]) -> dict[str, int]:
    """Return answers about a pair as they are with its sides exchanged; a tie stays one."""
    return {key: {LEFT: RIGHT, RIGHT: LEFT}.get(n, n) for key, n in answers.items()}


def _checked(found: Mapping[str, Any], slots: Sequence[Slot]) -> dict[str, int]:
    keys = [slot.key for slot in slots]
    if missing := [key for key in keys if key not in found]:
        raise MalformedError(f"without {', '.join(missing[:5])}")
    if unknown := [key for key in found if key not in keys]:
        raise MalformedError(f"with {_brief(', '.join(unknown))}, which nobody asked for")
    for slot in slots:
        number, n = found[slot.key], len(slot.question.options)
        if type(number) is not int or not 1 <= number <= n:
            raise MalformedError(
                f"{slot.key}: expected a number from 1 to {n}, found {_brief(str(number))}"
            )
    return {key: found[key] for key in keys}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedError("with a key twice")
    return found


def _question(question: Question) -> str:
    lines = [f"{question.name} ({question.title}): {question.definition}"]
    lines += [f"{n}. {option.label}" for n, option in enumerate(question.options, 1)]
    if question.lead:
        lines.append(question.lead)
    return "\n".join([*lines, *(f"Example: {example}" for example in question.examples)])


def _as_json(messages: Sequence[Message], names: Mapping[str, str]) -> str:
    """Return a conversation as a list that nothing said in it can end."""
    lines = [
        json.dumps({"utterance": i, "speaker": names[m["role"]], "text": m["content"]})
        for i, m in enumerate(messages)
    ]
    return "[" + ",\n".join(lines) + "]"


def _brief(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…")
