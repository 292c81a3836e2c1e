"""What the pages of the quality study hold: records of the study in, a template's values out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from augesc_builder.human_evaluation.form import Form, Option, Question, Slot, parts_with_slots
from augesc_builder.human_evaluation.state import Progress
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.human_evaluation.unfit import Unfit

_ADDRESS = re.compile(r"(https://[^\s<>\"']*[A-Za-z0-9/])")

CONSENT, CHECK, LEAVE, DONE = "consent", "check", "leave", "done"
"""The steps that have a name; a conversation's is its number."""


@dataclass(frozen=True)
class Page:
    """A template, and what it is filled with."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


class Views:
    """The pages of one study."""

    def __init__(self, study: Study) -> None:
        self._study = study

    @property
    def always(self) -> dict[str, Any]:
        """What every template may ask for."""
        settings = self._study.settings
        return {
            "lang": "en",
            "study": {
                "title": settings.title,
                "support": linked(settings.support),
                "contact": settings.contact,
            },
            "leave": None,
            "rated": (),
        }

    def leave(self) -> Page:
        """Return the page on which one leaves."""
        return self._page("quality_leave", LEAVE)

    def _page(self, template: str, step: str, status: int = 200, **values: Any) -> Page:
        """Return a page with a form that is sent to the step it belongs to."""
        nonce = secrets.token_urlsafe(12)
        return Page(template, {"step": step, "nonce": nonce, "leave": LEAVE, **values}, status)

    def consent(self, *, lacks: bool = False) -> Page:
        """Return what one agrees to."""
        sizes = [len(place.items) for place in self._study.places]
        return self._page(
            "quality_consent",
            CONSENT,
            422 if lacks else 200,
            consent=self._study.settings.consent,
            total=max(sizes, default=0),
            missing=lacks,
            leave=None,
        )

    def check(
        self,
        progress: Progress,
        chosen: Mapping[str, int] | None = None,
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        """Return the comprehension check, below what the form says of the work."""
        slots = self.check_slots()
        return self._page(
            "quality_check",
            CHECK,
            status,
            form=self._study.form,
            slots=slots,
            most=most_options(slots),
            chosen=chosen or {},
            missing=set(missing),
            was_wrong=progress.tries > 0 and not missing,
            tries_left=self._study.settings.comprehension.tries - progress.tries,
        )

    def check_slots(self) -> list[Slot]:
        """Return the questions of the comprehension check, as if they were a form's."""
        return [
            Slot(
                Question.model_construct(
                    name=f"check{number}",
                    title=f"Question {number + 1}",
                    definition=asked.question,
                    options=tuple(Option(label=label) for label in asked.options),
                    lead=None,
                    examples=(),
                )
            )
            for number, asked in enumerate(self._study.settings.comprehension.questions)
        ]

    def session(
        self,
        progress: Progress,
        place: Place,
        item: str,
        chosen: Mapping[str, int],
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        """Return a conversation beside its questions."""
        slots = self._study.slots(item, place.checks.get(item))
        position = place.items.index(item) + 1
        return self._page(
            "quality_session",
            str(position),
            status,
            item=item,
            position=position,
            total=len(place.items),
            n_done=len(progress.finished),
            is_change=item in progress.finished,
            messages=self._study.items[item].messages,
            language=self._study.form.language,
            slots=slots,
            groups=grouped(self._study.form, slots),
            most=most_options(slots),
            chosen=chosen,
            missing=set(missing),
        )

    def ended(self, ending: Unfit, steps: Sequence[int]) -> Page:
        """Return how it ended, with the conversations that can still be changed."""
        return Page("quality_end", {**ending.values(), "rated": steps}, ending.status)


def numbers(
    form: Mapping[str, str], slots: Iterable[Slot], others: Iterable[str]
) -> dict[str, int]:
    """Return the options that were chosen, by slot.

    Raises ValueError for a field or an option that the page does not have.
    """
    known = {slot.key: len(slot.question.options) for slot in slots}
    if strange := sorted(set(form) - set(known) - set(others)):
        raise ValueError(f"no question {strange[0]!r:.60}")
    found = {}
    for key, n_options in known.items():
        value = form.get(key)
        if value is None:
            continue
        if value not in {str(number) for number in range(1, n_options + 1)}:
            raise ValueError(f"{key}: no option {value!r:.40}")
        found[key] = int(value)
    return found


def grouped(form: Form, slots: list[Slot]) -> list[tuple[str, list[Slot]]]:
    """Return what is asked under headings: parts of the form, or utterances one by one."""
    if form.about != "turns":
        return [group for group in parts_with_slots(form, slots) if group[1]]
    groups: dict[str, list[Slot]] = {}
    for slot in slots:
        heading = "" if slot.turn is None else f"Utterance {slot.turn + 1}"
        groups.setdefault(heading, []).append(slot)
    return list(groups.items())


def most_options(slots: Iterable[Slot]) -> int:
    """Return how many options a question has at most."""
    return max(len(slot.question.options) for slot in slots)


def linked(text: str) -> list[tuple[str, bool]]:
    """Cut a text of the study's owner at its https addresses; they become links."""
    pieces = _ADDRESS.split(text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]
