"""What the pages of the interactive study show and take, beside those that all studies have.

A person talks with two systems and then compares them; which is which stands nowhere on a page.
All of it is drawn from the events. Only what a reply comes to until now is asked of
:class:`~augesc_builder.human_evaluation.replying.Replies`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

from augesc_builder.dialog.notice import PLACES, SERIOUS
from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.conversations import SCREEN, Screen, Talk
from augesc_builder.human_evaluation.pages.drawing import as_shown
from augesc_builder.human_evaluation.quality_pages import (
    Answer,
    Go,
    Page,
    QualityPages,
    Stream,
    grouped,
    linked,
    most_options,
    numbers,
)
from augesc_builder.human_evaluation.replying import Replies
from augesc_builder.human_evaluation.state import Progress
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.human_evaluation.talking import NotSaid, Refused, Talks, To
from augesc_builder.human_evaluation.unfit import Unfit

COMPARE, LIVE = "compare-", "live-"
"""The steps with the questions, and with what is written at this moment, before the position."""

_POLL, _SIGN_OF_LIFE = 0.1, 10.0
"""Seconds between two looks at a reply, and between two signs of life of a stream."""

_STATUS: dict[NotSaid, int] = {"empty": 422, "long": 422}


class InteractivePages(QualityPages):
    """The pages of one interactive study, for anybody who has a link."""

    def __init__(self, study: Study, store: Store, talks: Talks, replies: Replies) -> None:
        super().__init__(study, store)
        self._talks, self._replies = talks, replies
        self._limits = talks.settings

    # -- what is shown ---------------------------------------------------------------------------

    def get(self, annotator: str, step: str) -> Answer:
        """Return the page of a step, or the way to the one that is next."""
        if step.startswith(LIVE):
            return Stream(self.stream(annotator, step.removeprefix(LIVE)))
        if not step.startswith(COMPARE):
            return super().get(annotator, step)
        progress = self._store.progress(annotator)
        item = _item_at(progress, step.removeprefix(COMPARE))
        if progress.place is None or item is None or self._is_closed():
            return Go()
        talk = self._talks.read(annotator, item)
        if not talk.is_long_enough(self._limits.min_utterances):
            return Go(step.removeprefix(COMPARE))
        self._store.record(kinds.OPENED, annotator, item)
        return self._compare(annotator, progress.place, item, talk)

    def _consent(self, status: int = 200) -> Page:
        return self._page(
            "interactive_consent",
            "consent",
            status,
            consent=self._study.settings.consent,
            least=self._limits.min_utterances,
            told=self._talks.told,
            missing=status != 200,  # noqa: PLR2004
            leave=None,
        )

    def _session(
        self,
        annotator: str,
        progress: Progress,
        place: Place,
        item: str,
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        talk = self._talks.read(annotator, item)
        if talk.is_answered:
            return self._compare(annotator, place, item, talk, missing, status)
        return self._talk(annotator, place, item, talk, status=status)

    def _talk(
        self,
        annotator: str,
        place: Place,
        item: str,
        talk: Talk,
        *,
        drafts: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Page:
        """Return both conversations; what is due is asked for.

        ``drafts`` is what was written and not sent, ``refused`` why something was not taken, by
        side (``first``: the message to both).
        """
        self._replies.ask(annotator, item, talk)
        position = place.items.index(item) + 1
        least = self._limits.min_utterances
        sides = []
        for screen in SCREEN:
            conversation = talk.on(screen)
            # Why the questions are not open yet is counted on the page.
            sides.append(
                {
                    "screen": screen,
                    "talk": conversation,
                    "so_far": self._replies.text(annotator, item, conversation) or "",
                    "n_done": min(conversation.n_said, conversation.n_replies, least),
                    "n_failed": conversation.n_failed,
                }
            )
        return self._page(
            "interactive_talk",
            str(position),
            status,
            item=item,
            position=position,
            is_begun=talk.is_begun,
            sides=sides,
            least=least,
            is_open=talk.is_long_enough(least),
            compare=f"{COMPARE}{position}",
            live=f"{LIVE}{position}",
            drafts=drafts or {},
            refused=refused or {},
            most=self._limits.max_characters,
            **self._notice(),
        )

    def _compare(
        self,
        annotator: str,
        place: Place,
        item: str,
        talk: Talk,
        missing: Iterable[str] = (),
        status: int = 200,
    ) -> Page:
        slots = self._study.slots(item, place.checks.get(item))
        position = place.items.index(item) + 1
        return self._page(
            "interactive_compare",
            str(position),
            status,
            item=item,
            back=str(position),
            is_change=talk.is_answered,
            form=self._study.form,
            language=self._study.form.language,
            sides=[{"screen": screen, "talk": talk.on(screen)} for screen in SCREEN],
            slots=slots,
            groups=grouped(self._study.form, slots),
            most=most_options(slots),
            chosen=self._store.answers(annotator, item),
            missing=set(missing),
            **self._notice(),
        )

    def _notice(self) -> dict[str, Any]:
        return {
            "serious": SERIOUS,
            "places": [linked(place) for place in PLACES],
            "told": self._talks.told,
        }

    # -- what is sent ----------------------------------------------------------------------------

    def _take_answers(
        self, annotator: str, step: str, form: Mapping[str, str], submission: str
    ) -> Answer:
        """Take what is said, or the answers to the questions."""
        item, go = form.get("item", ""), form.get("go", "")
        progress = self._store.progress(annotator)
        if progress.place is None or item not in progress.place.items:
            self._refuse(annotator, item, "not_assigned", "not one of theirs", form)
            raise Unfit.not_yours()
        try:
            if go in {"on", "keep"}:
                return self._take_comparison(annotator, progress, item, form, submission)
            return self._take_message(annotator, progress.place, item, form)
        except StudyError as error:
            self._refuse(annotator, item, error.reason, str(error), form)
            if error.reason == "expired":
                raise Unfit.late() from None
            raise Unfit.unreadable() from None

    def _take_comparison(
        self,
        annotator: str,
        progress: Progress,
        item: str,
        form: Mapping[str, str],
        submission: str,
    ) -> Answer:
        place = cast(Place, progress.place)
        slots = self._study.slots(item, place.checks.get(item))
        try:
            chosen = numbers(form, slots, {"nonce", "n", "go", "item"})
        except ValueError as error:
            raise StudyError(str(error), "bad_answer") from None
        missing = [slot.key for slot in slots if slot.key not in chosen]
        if chosen and not missing:
            # All at once: an answer closes the conversations.
            self._talks.answer(annotator, item, chosen, submission)
            return Go()
        talk = self._talks.read(annotator, item)
        page = self._compare(annotator, place, item, talk, missing, 422)
        return Page(page.template, {**page.values, "chosen": chosen}, page.status)

    def _take_message(
        self, annotator: str, place: Place, item: str, form: Mapping[str, str]
    ) -> Answer:
        action, _, side = form.get("go", "").partition("-")
        step = str(place.items.index(item) + 1)
        drafts = {name: form.get(f"text-{name}", "") for name in (*SCREEN, "both")}
        refused: dict[str, str] = {}
        status = 200
        if action == "say" and side in drafts:
            try:
                n_said = _number(form.get(f"n-{side}", ""))
                self._talks.say(annotator, item, cast(To, side), drafts[side], n_said)
                drafts[side] = ""
            except Refused as refusal:
                refused[side], status = refusal.why, _STATUS.get(refusal.why, 409)
        elif action == "again" and side in SCREEN:
            self._talks.ask_again(annotator, item, cast(Screen, side))
        elif action != "look":
            raise StudyError(f"nothing to do: {form.get('go', '')!r:.40}", "bad_answer")
        talk = self._talks.read(annotator, item)
        self._replies.ask(annotator, item, talk)
        if not refused and not any(drafts.values()):
            return Go(step)
        # Without scripts what is written to the other bot is sent along, and is not to be lost.
        return self._talk(
            annotator, place, item, talk, drafts=drafts, refused=refused, status=status
        )

    # -- what is written at this moment ----------------------------------------------------------

    async def stream(self, annotator: str, step: str) -> AsyncIterator[str]:
        """Yield server-sent events while replies are written on the page of a step.

        ``text`` has the whole reply so far, ``turn`` says that a side is to be drawn anew, ``end``
        that nothing more is due.
        """
        due = await asyncio.to_thread(self._due_replies, annotator, step)
        shown: dict[str, str] = {}
        last = time.monotonic()
        yield "retry: 1000\n\n"
        while due:
            for screen, (item, conversation) in list(due.items()):
                text = self._replies.text(annotator, item, conversation)
                if text is None:
                    del due[screen]
                    yield _event("turn", {"side": screen})
                elif text != shown.get(screen, ""):
                    shown[screen] = text
                    yield _event("text", {"side": screen, "text": as_shown(text)})
                else:
                    continue
                last = time.monotonic()
            if time.monotonic() - last > _SIGN_OF_LIFE:
                last = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(_POLL)
        yield _event("end", {})

    def _due_replies(self, annotator: str, step: str) -> dict[str, tuple[str, Any]]:
        item = _item_at(self._store.progress(annotator), step)
        if item is None or self._is_closed():
            return {}
        talk = self._talks.read(annotator, item)
        self._replies.ask(annotator, item, talk)
        return {
            screen: (item, talk.on(screen)) for screen in SCREEN if talk.on(screen).turn == "system"
        }


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _item_at(progress: Progress, position: str) -> str | None:
    """Return the item at a position (from 1) of a person's place."""
    items = () if progress.place is None else progress.place.items
    known = {str(number): item for number, item in enumerate(items, 1)}
    return known.get(position)


def _number(text: str) -> int:
    """Return how many messages a page said it showed.

    Raises :class:`~augesc_builder.errors.StudyError` for what is no such number.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 4:  # noqa: PLR2004
        raise StudyError(f"no number of messages: {text!r:.40}", "bad_answer")
    return int(text)
