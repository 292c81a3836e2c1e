"""What the pages of the interactive study show and take, beside those that all studies have.

A person talks with two systems and then compares them. All of it is drawn from the events; only
what a reply comes to until now is asked of
:class:`~augesc_builder.human_evaluation.replying.Replies`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.conversations import SCREEN, Conversation, Screen, Talk
from augesc_builder.human_evaluation.interactive_views import COMPARE, LIVE, TalkViews
from augesc_builder.human_evaluation.pages.drawing import as_shown
from augesc_builder.human_evaluation.quality_pages import Answer, Go, QualityPages, Stream
from augesc_builder.human_evaluation.quality_views import Page
from augesc_builder.human_evaluation.replying import Replies
from augesc_builder.human_evaluation.state import Progress
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.human_evaluation.talking import NotSaid, Refused, Talks, To
from augesc_builder.human_evaluation.unfit import Unfit

_POLL, _SIGN_OF_LIFE = 0.1, 10.0
"""Seconds between two looks at a reply, and between two signs of life of a stream."""

_STATUS: dict[NotSaid, int] = {"empty": 422, "long": 422}


class InteractivePages(QualityPages):
    """The pages of one interactive study, for anybody who has a link."""

    def __init__(self, study: Study, store: Store, talks: Talks, replies: Replies) -> None:
        super().__init__(study, store)
        self.talks, self._replies = talks, replies
        self._views: TalkViews = TalkViews(study, talks.settings, talks.told)

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
        talk = self.talks.read(annotator, item)
        if not talk.is_long_enough(self.talks.settings.min_utterances):
            return Go(step.removeprefix(COMPARE))
        self._store.record(kinds.OPENED, annotator, item)
        chosen = self._store.answers(annotator, item)
        return self._views.comparison(progress.place, item, talk, chosen)

    def _session(
        self,
        annotator: str,
        progress: Progress,
        item: str,
        missing: Sequence[str] = (),
        status: int = 200,
    ) -> Page:
        if progress.place is None or item not in progress.place.items:  # lost in between
            raise Unfit.not_yours()
        talk = self.talks.read(annotator, item)
        if talk.is_answered:
            chosen = self._store.answers(annotator, item)
            return self._views.comparison(progress.place, item, talk, chosen, missing, status)
        return self._talk(annotator, progress.place, item, talk)

    def _talk(
        self,
        annotator: str,
        place: Place,
        item: str,
        talk: Talk,
        drafts: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Page:
        """Return the page with both conversations; what is due is asked for."""
        self._replies.ask(annotator, item, talk)

        def so_far(one: Conversation) -> str | None:
            return self._replies.text(annotator, item, one)

        return self._views.talk(place, item, talk, so_far, drafts or {}, refused or {}, status)

    # -- what is sent ----------------------------------------------------------------------------

    def _take_answers(self, annotator: str, form: Mapping[str, str], submission: str) -> Answer:
        """Take what is said, or the answers to the questions."""
        item, go = form.get("item", ""), form.get("go", "")
        place = self._store.progress(annotator).place
        if place is None or item not in place.items:
            self._refuse(annotator, item, "not_assigned", "conversations not theirs", form)
            raise Unfit.not_yours()
        try:
            if go in {"on", "keep"}:
                return self._take_comparison(annotator, place, item, form, submission)
            return self._take_message(annotator, place, item, form)
        except StudyError as error:
            self._refuse(annotator, item, error.reason, str(error), form)
            raise (Unfit.late() if error.reason == "expired" else Unfit.unreadable()) from None

    def _take_comparison(
        self, annotator: str, place: Place, item: str, form: Mapping[str, str], submission: str
    ) -> Answer:
        _, slots, chosen = self._answered(annotator, item, form)
        if missing := [slot.key for slot in slots if slot.key not in chosen]:
            talk = self.talks.read(annotator, item)
            return self._views.comparison(place, item, talk, chosen, missing, 422)
        self.talks.answer(annotator, item, chosen, submission)
        return Go()

    def _take_message(
        self, annotator: str, place: Place, item: str, form: Mapping[str, str]
    ) -> Answer:
        action, _, side = form.get("go", "").partition("-")
        drafts = {name: form.get(f"text-{name}", "") for name in (*SCREEN, "both")}
        refused: dict[str, str] = {}
        status = 200
        if action == "say" and side in drafts:
            try:
                n_said = _number(form.get(f"n-{side}", ""))
                self.talks.say(annotator, item, cast(To, side), drafts[side], n_said)
                drafts[side] = ""
            except Refused as refusal:
                refused[side], status = refusal.why, _STATUS.get(refusal.why, 409)
        elif action == "again" and side in SCREEN:
            self.talks.ask_again(annotator, item, side)
        elif action != "look":
            raise StudyError(f"nothing to do: {form.get('go', '')!r:.40}", "bad_answer")
        talk = self.talks.read(annotator, item)
        if refused or any(drafts.values()):
            # Without scripts what is written to the other bot is sent along: it is drawn again.
            return self._talk(annotator, place, item, talk, drafts, refused, status)
        self._replies.ask(annotator, item, talk)
        return Go(str(place.items.index(item) + 1))

    # -- what is written at this moment ----------------------------------------------------------

    async def stream(self, annotator: str, position: str) -> AsyncIterator[str]:
        """Yield server-sent events while replies are written to a person.

        ``text`` has the whole reply so far, ``turn`` says that a side is to be drawn anew, ``end``
        that nothing more is due.
        """
        due = await asyncio.to_thread(self._due_replies, annotator, position)
        shown: dict[Screen, str] = {}
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
            if due:
                await asyncio.sleep(_POLL)
        yield _event("end", {})

    def _due_replies(self, annotator: str, position: str) -> dict[Screen, tuple[str, Conversation]]:
        item = _item_at(self._store.progress(annotator), position)
        if item is None or self._is_closed():
            return {}
        talk = self.talks.read(annotator, item)
        self._replies.ask(annotator, item, talk)
        both = {screen: talk.on(screen) for screen in SCREEN}
        return {screen: (item, one) for screen, one in both.items() if one.turn == "system"}


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _item_at(progress: Progress, position: str) -> str | None:
    """Return the item at a position (from 1) of a person's place."""
    items = () if progress.place is None else progress.place.items
    return {str(number): item for number, item in enumerate(items, 1)}.get(position)


def _number(text: str) -> int:
    """Return how many messages a page said it showed.

    Raises :class:`~augesc_builder.errors.StudyError` for what is no such number.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 4:  # noqa: PLR2004
        raise StudyError(f"no number of messages: {text!r:.40}", "bad_answer")
    return int(text)
