"""What the pages of the quality study show and take: the store in between, and nothing else.

A :class:`Page` is drawn from what the store holds at that moment. What is sent is in the store
before a :class:`Go` sends the browser on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.form import Form, Option, Question, Slot, parts_with_slots
from augesc_builder.human_evaluation.state import Progress, seconds_open, select
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.human_evaluation.unfit import Unfit

REFUSED = "refused"
"""Something was sent that is not taken: ``reason``, and what it was."""
TOO_FAST = "too_fast"
"""A conversation was answered within fewer ``seconds`` than the study's ``min_seconds``."""
WITHDRAWN = "withdrawn"
"""Somebody asked that the answers they sent be left out of the study."""

CONSENT, CHECK, LEAVE, DONE = "consent", "check", "leave", "done"

_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_ITEM_FIELDS = {"nonce", "n", "go", "item"}


@dataclass(frozen=True)
class Page:
    """A template, and what it is filled with."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Go:
    """A step to go to; ``token`` where it is not the one of who asks; no step: what is next."""

    step: str = ""
    token: str = ""


@dataclass(frozen=True)
class Kept:
    """What was sent is in the store, and no page is asked for."""


@dataclass(frozen=True)
class Stream:
    """Server-sent events, as lines."""

    events: AsyncIterator[str]


Answer = Page | Go | Kept | Stream


class QualityPages:
    """The pages of one study, for anybody who has a link.

    Raises :class:`~augesc_builder.human_evaluation.unfit.Unfit` for what a page says no to; it is
    in the log then.
    """

    def __init__(self, study: Study, store: Store) -> None:
        self._study, self._store = study, store
        settings = study.settings
        self.always = {
            "lang": "en",
            "study": {
                "title": settings.title,
                "support": linked(settings.support),
                "contact": settings.contact,
            },
            "leave": None,
            "rated": (),
        }
        """What every template may ask for."""

    def whose(self, token: str) -> str | None:
        """Return the annotator of a token."""
        return self._study.tokens.annotator(token)

    # -- who comes -------------------------------------------------------------------------------

    def entrance(self, given: Mapping[str, str]) -> Answer:
        """Let in who comes from a crowd platform."""
        if not any(name in given for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")):
            raise Unfit.no_link()
        person = given.get("PROLIFIC_PID", "")
        try:
            if not person:
                raise StudyError("PROLIFIC_PID is missing", "bad_entry")
            annotator = self._store.enter(
                person, given.get("STUDY_ID", ""), given.get("SESSION_ID", "")
            )
        except StudyError as error:
            self._refuse("", "", error.reason, str(error))
            raise Unfit.bad_entry(str(error)) from None
        return Go(token=self._study.tokens.token_of(annotator))

    def stranger(self, *, is_first: bool) -> Answer:
        """Say no to a link that nobody has; the first of many is in the log."""
        if is_first:
            self._refuse("", "", "unknown_link", "a link that nobody has")
        raise Unfit.unknown_link()

    # -- what is shown ---------------------------------------------------------------------------

    def get(self, annotator: str, step: str) -> Answer:
        """Return the page of a step, or the way to the one that is next."""
        progress = self._store.progress(annotator)
        due = self._due(annotator, progress)
        if step == "":
            return Go(due)
        if step == LEAVE and progress.stage not in {"left", "screened_out", "timed_out"}:
            return self._page("quality_leave", LEAVE)
        if step == CONSENT == due:
            return self._consent()
        if step == CHECK == due:
            return self._check(progress)
        if step == DONE == due:
            return self._ended(annotator, progress)
        if step.isdecimal() and progress.place is not None:
            if not 1 <= int(step) <= len(progress.place.items):
                raise Unfit.nowhere()
            if self._is_closed():
                return Go(DONE)
            item = progress.place.items[int(step) - 1]
            if item in progress.finished or item == progress.next_item:
                self._store.record(kinds.OPENED, annotator, item)
                return self._session(annotator, progress, progress.place, item)
        elif step not in {CONSENT, CHECK, LEAVE, DONE} and not step.isdecimal():
            raise Unfit.nowhere()
        return Go(due)

    def _due(self, annotator: str, progress: Progress) -> str:
        """Return the step that is next for somebody; a place is given here."""
        if progress.stage in {"done", "left", "screened_out", "timed_out"} or self._is_closed():
            return DONE
        if progress.stage == "new":
            return CONSENT
        if progress.stage == "consented":
            return CHECK
        place = progress.place or self._store.assign(annotator)
        if place is None:
            raise Unfit.no_place()
        return str(place.items.index(progress.next_item or place.items[0]) + 1)

    def _is_closed(self) -> bool:
        return self._store.clock() > self._study.settings.end

    def _page(self, template: str, step: str, status: int = 200, **values: Any) -> Page:
        """Return a page with a form that is sent to the step it belongs to."""
        nonce = secrets.token_urlsafe(12)
        return Page(template, {"step": step, "nonce": nonce, "leave": LEAVE, **values}, status)

    def _consent(self, status: int = 200) -> Page:
        sizes = [len(place.items) for place in self._study.places]
        return self._page(
            "quality_consent",
            CONSENT,
            status,
            consent=self._study.settings.consent,
            total=max(sizes, default=0),
            missing=status != 200,
            leave=None,
        )

    def _check(
        self,
        progress: Progress,
        chosen: Mapping[str, int] | None = None,
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        slots = self._check_slots()
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

    def _check_slots(self) -> list[Slot]:
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

    def _session(
        self,
        annotator: str,
        progress: Progress,
        place: Place,
        item: str,
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
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
            chosen=self._store.answers(annotator, item),
            missing=set(missing),
        )

    def _ended(self, annotator: str, progress: Progress) -> Page:
        crowd = self._study.settings.crowd
        if progress.stage == "done":
            self._store.record(kinds.FINISHED, annotator, submission=kinds.FINISHED)
        can_change = progress.stage == "done" and not self._is_closed() and progress.place
        steps = range(1, len(progress.place.items) + 1) if can_change and progress.place else ()
        ending = Unfit.ended(progress.stage, crowd, is_closed=self._is_closed())
        return Page("quality_end", {**ending.values(), "rated": steps}, ending.status)

    # -- what is sent ----------------------------------------------------------------------------

    def post(self, annotator: str, step: str, form: Mapping[str, str]) -> Answer:
        """Take what was sent from the page of a step."""
        if not _NONCE.fullmatch(form.get("nonce", "")) or not form.get("n", "0").isdecimal():
            return self.unreadable(annotator, step, "no mark of the page it is from")
        submission = f"{form['nonce']}.{form.get('n', '0')}"
        if step == LEAVE:
            return self._leave(annotator, submission, discard=form.get("answers") == "discard")
        progress = self._store.progress(annotator)
        if step == CONSENT:
            return self._take_consent(annotator, progress, form, submission)
        if self._is_closed():
            self._refuse(annotator, form.get("item", ""), "expired", "sent after the end", form)
            raise Unfit.late()
        if step == CHECK:
            return self._take_check(annotator, progress, form, submission)
        if step.isdecimal():
            return self._take_answers(annotator, step, form, submission)
        return self.unreadable(annotator, step, "sent to a page that takes nothing")

    def unreadable(self, annotator: str, step: str, why: str) -> Answer:
        """Say no to what no page of ours sends."""
        self._refuse(annotator, "", "bad_form", f"{step[:40]}: {why}")
        raise Unfit.unreadable()

    def _refuse(
        self,
        annotator: str,
        item: str,
        reason: str,
        why: str,
        form: Mapping[str, str] | None = None,
    ) -> None:
        """Put what was refused into the log, so that nothing that somebody sent is lost."""
        sent = {key[:80]: value[:80] for key, value in list((form or {}).items())[:40]}
        item = item if item in self._study.items else ""
        self._store.record(
            REFUSED, annotator, item, {"reason": reason, "why": why[:200], "sent": sent}
        )

    def _take_consent(
        self, annotator: str, progress: Progress, form: Mapping[str, str], submission: str
    ) -> Answer:
        if progress.stage != "new" or self._is_closed():
            return Go()
        if form.get("go") == "decline":
            self._store.leave(annotator, submission)
            return Go(DONE)
        if form.get("agree") != "yes":
            return self._consent(422)
        self._store.arrive(annotator)
        self._store.consent(annotator, submission)
        return Go()

    def _take_check(
        self, annotator: str, progress: Progress, form: Mapping[str, str], submission: str
    ) -> Answer:
        if progress.stage != "consented":
            return Go()
        slots = self._check_slots()
        try:
            chosen = numbers(form, slots, _ITEM_FIELDS)
        except ValueError as error:
            return self.unreadable(annotator, CHECK, str(error))
        if missing := [slot.key for slot in slots if slot.key not in chosen]:
            return self._check(progress, chosen, missing, 422)
        answers = {i: chosen[slot.key] for i, slot in enumerate(slots)}
        self._store.comprehension(annotator, answers, submission)
        return Go()

    def _take_answers(
        self, annotator: str, step: str, form: Mapping[str, str], submission: str
    ) -> Answer:
        item, go = form.get("item", ""), form.get("go")
        try:
            before = self._store.progress(annotator)
            place = before.place
            if place is None or item not in place.items:
                raise StudyError("not one of theirs", "not_assigned")
            slots = self._study.slots(item, place.checks.get(item))
            try:
                chosen = numbers(form, slots, _ITEM_FIELDS)
            except ValueError as error:
                raise StudyError(str(error), "bad_answer") from None
            if chosen:
                self._store.answer(annotator, item, chosen, submission)
        except StudyError as error:
            self._refuse(annotator, item, error.reason, str(error), form)
            if error.reason == "bad_answer":
                raise Unfit.unreadable() from None
            raise (Unfit.late() if error.reason == "expired" else Unfit.not_yours()) from None
        if go == "keep":
            return Kept()
        position = place.items.index(item) + 1
        if go == "back":
            return Go(str(max(1, position - 1)))
        if missing := [slot.key for slot in slots if slot.key not in chosen]:
            progress = self._store.progress(annotator)
            return self._session(annotator, progress, place, item, missing, 422)
        self._flag_haste(annotator, item)
        return Go()

    def _flag_haste(self, annotator: str, item: str) -> None:
        """Note, once, that a conversation was answered faster than it can be read."""
        with self._store.log.reading() as connection:
            log = select(connection, "annotator = ?", annotator)
        seconds = seconds_open(log).get((annotator, item), 0.0)
        least = self._study.settings.min_seconds
        if seconds < least and not any(e.kind == TOO_FAST and e.item == item for e in log):
            body = {"seconds": round(seconds, 1), "min_seconds": least}
            self._store.record(TOO_FAST, annotator, item, body)

    def _leave(self, annotator: str, submission: str, *, discard: bool) -> Answer:
        if discard:
            self._store.record(WITHDRAWN, annotator, submission=WITHDRAWN)
        self._store.leave(annotator, submission)
        return Go(DONE)


def numbers(form: Mapping[str, str], slots: Iterable[Slot], others: set[str]) -> dict[str, int]:
    """Return the options that were chosen, by slot.

    Raises ValueError for a field or an option that the page does not have.
    """
    known = {slot.key: len(slot.question.options) for slot in slots}
    if strange := sorted(set(form) - set(known) - others):
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
    pieces = re.split(r"(https://[^\s<>\"']*[A-Za-z0-9/])", text)
    return [(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]
