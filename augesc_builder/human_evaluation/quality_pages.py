"""What the pages of the quality study show and take: the store in between, and nothing else.

A :class:`Page` is drawn from what the store holds at that moment. What is sent is in the store
before a :class:`Go` sends the browser on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.events import Event
from augesc_builder.human_evaluation.form import Slot
from augesc_builder.human_evaluation.quality_views import (
    CHECK,
    CONSENT,
    DONE,
    LEAVE,
    Page,
    Views,
    numbers,
)
from augesc_builder.human_evaluation.state import Progress, seconds_open, select
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.human_evaluation.unfit import Unfit

REFUSED = "refused"
"""Something was sent that is not taken: ``reason``, and what it was."""
TOO_FAST = "too_fast"
"""A conversation was answered within fewer ``seconds`` than the study's ``min_seconds``."""

_GONE = ("left", "screened_out", "timed_out")
"""Stages of those who have no place any more."""

_NUMBER = re.compile(r"[0-9]{1,4}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{8,64}")
_FIELDS = ("nonce", "n", "go", "item")
"""That a form has beside its questions."""

_TOLD = {"not_assigned": Unfit.not_yours, "expired": Unfit.late}
"""What people are told, by the reason of what the store refuses."""


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
    """Server-sent events, as text."""

    events: AsyncIterator[str]


Answer = Page | Go | Kept | Stream


class QualityPages:
    """The pages of one study, for anybody who has a link.

    Raises :class:`~augesc_builder.human_evaluation.unfit.Unfit` for what a page says no to; it is
    in the log then.
    """

    def __init__(self, study: Study, store: Store) -> None:
        self._study, self._store = study, store
        self._views = Views(study)
        self.always = self._views.always

    def whose(self, token: str) -> str | None:
        """Return the annotator of a token."""
        return self._study.tokens.annotator(token)

    # -- who comes -------------------------------------------------------------------------------

    def entrance(self, given: Mapping[str, str]) -> Answer:
        """Let in who comes from a crowd platform."""
        if not any(name in given for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")):
            raise Unfit.no_link()
        ids = (given.get(name, "") for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID"))
        try:
            annotator = self._store.enter(*ids)
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
        if step == LEAVE and progress.stage not in _GONE:
            return self._views.leave()
        due = self._due(annotator, progress)
        named: dict[str, Callable[[], Answer]] = {
            CONSENT: self._views.consent,
            CHECK: lambda: self._views.check(progress),
            DONE: lambda: self._ended(annotator, progress),
        }
        if step == due and due in named:
            return named[due]()
        if _NUMBER.fullmatch(step):
            return self._conversation(annotator, progress, int(step), due)
        if step not in {"", LEAVE, *named}:
            raise Unfit.nowhere()
        return Go(due)

    def _conversation(self, annotator: str, progress: Progress, number: int, due: str) -> Answer:
        """Return a conversation that was answered or is next; for others the one that is next."""
        place = progress.place
        if place is None or self._is_closed():
            return Go(due)
        if not 1 <= number <= len(place.items):
            raise Unfit.nowhere()
        item = place.items[number - 1]
        if item not in progress.finished and item != progress.next_item:
            return Go(due)
        self._store.record(kinds.OPENED, annotator, item)
        return self._session(annotator, progress, item)

    def _due(self, annotator: str, progress: Progress) -> str:
        """Return the step that is next for somebody; a place is given here."""
        if progress.stage in {"done", *_GONE} or self._is_closed():
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

    def _ended(self, annotator: str, progress: Progress) -> Page:
        crowd = self._study.settings.crowd
        if progress.stage == "done":
            self._store.record(kinds.FINISHED, annotator, submission=kinds.FINISHED)
        steps: Sequence[int] = ()
        if any(event.kind == kinds.WITHDRAWN for event in self._log(annotator)):
            ending = Unfit.withdrawn()
        else:
            ending = Unfit.ended(progress.stage, crowd)
            if progress.stage == "done" and progress.place and not self._is_closed():
                steps = range(1, len(progress.place.items) + 1)
        return self._views.ended(ending, steps)

    def _session(
        self,
        annotator: str,
        progress: Progress,
        item: str,
        missing: Sequence[str] = (),
        status: int = 200,
    ) -> Answer:
        if progress.place is None or item not in progress.place.items:  # lost in between
            raise Unfit.not_yours()
        chosen = self._store.answers(annotator, item)
        return self._views.session(progress, progress.place, item, chosen, missing, status)

    def _log(self, annotator: str) -> list[Event]:
        with self._store.log.reading() as connection:
            return select(connection, "annotator = ?", annotator)

    # -- what is sent ----------------------------------------------------------------------------

    def post(self, annotator: str, step: str, form: Mapping[str, str]) -> Answer:
        """Take what was sent from the page of a step."""
        if not _NONCE.fullmatch(form.get("nonce", "")) or not _NUMBER.fullmatch(form.get("n", "0")):
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
        if _NUMBER.fullmatch(step):
            return self._take_answers(annotator, form, submission)
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
            return self._views.consent(lacks=True)
        self._store.arrive(annotator)
        self._store.consent(annotator, submission)
        return Go()

    def _take_check(
        self, annotator: str, progress: Progress, form: Mapping[str, str], submission: str
    ) -> Answer:
        if progress.stage != "consented":
            return Go()
        slots = self._views.check_slots()
        try:
            chosen = numbers(form, slots, _FIELDS)
        except ValueError as error:
            return self.unreadable(annotator, CHECK, str(error))
        if missing := [slot.key for slot in slots if slot.key not in chosen]:
            return self._views.check(progress, chosen, missing, 422)
        answers = {i: chosen[slot.key] for i, slot in enumerate(slots)}
        self._store.comprehension(annotator, answers, submission)
        return Go()

    def _take_answers(self, annotator: str, form: Mapping[str, str], submission: str) -> Answer:
        item, go = form.get("item", ""), form.get("go")
        try:
            place, slots, chosen = self._answered(annotator, item, form)
            if chosen:
                self._store.answer(annotator, item, chosen, submission)
        except StudyError as error:
            self._refuse(annotator, item, error.reason, str(error), form)
            raise _TOLD.get(error.reason, Unfit.unreadable)() from None
        if go == "keep":
            return Kept()
        if go == "back":
            return Go(str(max(1, place.items.index(item))))
        if missing := [slot.key for slot in slots if slot.key not in chosen]:
            return self._session(annotator, self._store.progress(annotator), item, missing, 422)
        self._flag_haste(annotator, item)
        return Go()

    def _answered(
        self, annotator: str, item: str, form: Mapping[str, str]
    ) -> tuple[Place, list[Slot], dict[str, int]]:
        """Return the place of somebody, what is asked about an item, and what was answered."""
        place = self._store.progress(annotator).place
        if place is None or item not in place.items:
            raise StudyError("a conversation that is not one of theirs", "not_assigned")
        slots = self._study.slots(item, place.checks.get(item))
        try:
            return place, slots, numbers(form, slots, _FIELDS)
        except ValueError as error:
            raise StudyError(str(error), "bad_answer") from None

    def _flag_haste(self, annotator: str, item: str) -> None:
        """Note, once, that a conversation was answered faster than it can be read."""
        log = self._log(annotator)
        seconds = seconds_open(log).get((annotator, item), 0.0)
        least = self._study.settings.min_seconds
        if seconds < least and not any(e.kind == TOO_FAST and e.item == item for e in log):
            body = {"seconds": round(seconds, 1), "min_seconds": least}
            self._store.record(TOO_FAST, annotator, item, body)

    def _leave(self, annotator: str, submission: str, *, discard: bool) -> Answer:
        if discard:
            self._store.record(kinds.WITHDRAWN, annotator, submission=kinds.WITHDRAWN)
        self._store.leave(annotator, submission)
        return Go(DONE)
