"""What people and systems say to each other, written into the log one event after the other.

A rule is looked at in the transaction that writes: what is sent twice, from two windows or beside a
reply that is late, is kept once. The first sign of danger is written together with the message it
stands in, so that the notice is there before any reply.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Literal

from augesc_builder.dialog.handover import HandOver, danger_report
from augesc_builder.dialog.notice import Watch
from augesc_builder.errors import AugescError, HandOverError, StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.conversations import (
    ASKED_AGAIN,
    HANDED_OVER,
    NO_REPLY,
    SCREEN,
    Conversation,
    Screen,
    Talk,
    open_dangers,
    read_talk,
)
from augesc_builder.human_evaluation.events import Event
from augesc_builder.human_evaluation.settings import Interactive
from augesc_builder.human_evaluation.state import select
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.systems import NoReply, Reply, is_blank, legible
from augesc_builder.run.heartbeat import one_line

To = Literal["left", "right", "both"]

NotSaid = Literal["empty", "long", "not_yet", "known", "full", "over"]
"""Why a message is not taken: it has no text, too much of it, the reply before it is not there
yet, another message was sent in its place, the conversation is full, or the study is over."""


class Refused(Exception):  # noqa: N818 - what the person is told, and no failure
    """A message is not taken, and why."""

    def __init__(self, why: NotSaid) -> None:
        super().__init__(why)
        self.why = why


class Talks:
    """The conversations of one study.

    ``on_danger`` is told of signs of danger, each once at least: what was not told of when a server
    died is told of by the next. ``warn`` hears what went wrong, for the study's owner.
    """

    def __init__(
        self,
        store: Store,
        settings: Interactive,
        on_danger: HandOver | None,
        warn: Callable[[str], None],
    ) -> None:
        self._store, self.settings, self._on_danger = store, settings, on_danger
        self._warn = warn
        self._watch = Watch(None, lambda error: warn(str(error)))
        self._telling: set[int] = set()
        self._guard = threading.Lock()

    def read(self, annotator: str, item: str) -> Talk:
        """Return how both conversations stand."""
        with self._store.log.reading() as connection:
            return self._read(connection, annotator, item)

    def say(self, annotator: str, item: str, to: To, text: str, n_said: int) -> None:
        """Keep what a person says, and the signs of danger that are in it.

        ``n_said`` is how many messages of the person the page showed there: a message that is sent
        twice is kept once. Raises :class:`Refused`.
        """
        text = legible(text).strip()
        with self._store.log.writing() as connection:
            talk = self._read(connection, annotator, item)
            heard = [talk.on(screen) for screen in SCREEN if to in {"both", screen}]
            if talk.is_answered:
                raise Refused("over")
            if _is_repeated(heard, text, n_said):
                return
            if (to == "both") == talk.is_begun:
                raise Refused("known")
            self._check(heard, text, n_said)
            system = None if to == "both" else heard[0].system
            body = {"system": system, "text": text}
            self._store.log.append(connection, kinds.SAID, annotator, item, body)
            # A sign may begin in what was said before, to this system or to the other.
            before = [one.said for one in heard]
            before.append(_said_last(connection, annotator, item))
            signs = dict.fromkeys(sign for one in before for sign in self._watch.signs(one, text))
            if signs:
                found = {"system": system, "signs": [*signs]}
                self._store.log.append(connection, kinds.DANGER, annotator, item, found)
        self.tell(annotator, item)

    def ask_again(self, annotator: str, item: str, screen: Screen) -> None:
        """Note that a person wants a reply that did not come; where one is due, nothing is."""
        with self._store.log.writing() as connection:
            talk = self._read(connection, annotator, item)
            if talk.on(screen).turn == "failed" and not talk.is_answered:
                body = {"system": talk.on(screen).system}
                self._store.log.append(connection, ASKED_AGAIN, annotator, item, body)

    def keep(
        self,
        annotator: str,
        item: str,
        asked: Conversation,
        reply: Reply | NoReply,
        seconds: float,
    ) -> None:
        """Keep a reply, or that there is none, unless what it answers has got one meanwhile."""
        body = {"system": asked.system, "seconds": round(seconds, 3), "to": asked.waits_for}
        if isinstance(reply, NoReply):
            kind = NO_REPLY
            body |= {"why": reply.why, "reason": reply.reason}
        else:
            kind = kinds.REPLIED
            body |= {"text": reply.text, "left_out": reply.left_out}
        with self._store.log.writing() as connection:
            talk = self._read(connection, annotator, item)
            now = next(one for one in (talk.left, talk.right) if one.system == asked.system)
            if now.waits_for == asked.waits_for:
                self._store.log.append(connection, kind, annotator, item, body)
        if isinstance(reply, NoReply):
            self._warn(f"{asked.system}: no reply to {annotator} ({reply.reason})")

    def answer(
        self, annotator: str, item: str, answers: dict[str, int], submission: str | None
    ) -> bool:
        """Keep the answers to the questions; whether they are new.

        Raises :class:`~augesc_builder.errors.StudyError`: ``bad_answer`` while the conversations
        are too short, and what :meth:`Store.answer` raises.
        """
        least = self.settings.min_utterances
        if not self.read(annotator, item).is_long_enough(least):
            raise StudyError(
                f"the questions open after {least} messages of the person and {least} of each "
                f"system in both conversations",
                "bad_answer",
            )
        return self._store.answer(annotator, item, answers, submission)

    # -- danger ----------------------------------------------------------------------------------

    @property
    def told(self) -> str | None:
        """Who is told of signs of danger, as participants are told it; None for nobody."""
        return None if self._on_danger is None else self._on_danger.name

    def tell_all(self) -> None:
        """Tell of the danger that nobody was told of when the server before this one ended."""
        if self._on_danger is None:
            return
        left = open_dangers(self._store.events())
        for annotator, item in dict.fromkeys((event.annotator, event.item) for event in left):
            self.tell(annotator, item)

    def tell(self, annotator: str, item: str) -> None:
        """Tell of danger in somebody's messages that nobody was told of yet; wait for nothing."""
        if self._on_danger is None:
            return
        with self._store.log.reading() as connection:
            events = _events(connection, annotator, item)
        for danger in open_dangers(events):
            with self._guard:
                is_new = danger.id not in self._telling
                self._telling.add(danger.id)
            if is_new:
                arguments = (self._on_danger, danger, events)
                threading.Thread(target=self._tell, args=arguments, daemon=True).start()

    def _tell(self, on_danger: HandOver, danger: Event, events: list[Event]) -> None:
        until = [event for event in events if event.id <= danger.id]
        said = next(event for event in reversed(until) if event.kind == kinds.SAID)
        talk = read_talk(self._store.study.items[danger.item], until)
        system = danger.body["system"]
        heard = talk.right if system == talk.right.system else talk.left
        report = {
            **danger_report(said.body["text"], danger.body["signs"], heard.history),
            "study": self._store.study.settings.name,
            "participant": danger.annotator,
        }
        error = None
        try:
            on_danger(report)
        except HandOverError as failure:
            error = one_line(str(failure)) or "it failed"
            self._warn(f"danger in a message of {danger.annotator} was handed to nobody: {error}")
        body = {"danger": danger.id, "error": error}
        try:
            self._store.record(HANDED_OVER, danger.annotator, danger.item, body)
        except AugescError as failure:
            self._warn(str(failure))
        finally:
            with self._guard:
                self._telling.discard(danger.id)

    # -- inside ----------------------------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection, annotator: str, item: str) -> Talk:
        return read_talk(self._store.study.items[item], _events(connection, annotator, item))

    def _check(self, heard: list[Conversation], text: str, n_said: int) -> None:
        """Raise :class:`Refused` where a message cannot be said now."""
        if is_blank(text):
            raise Refused("empty")
        if len(text) > self.settings.max_characters:
            raise Refused("long")
        for one in heard:
            if one.is_full:
                raise Refused("full")
            if one.turn == "system":
                raise Refused("not_yet")
            if one.n_said != n_said:
                raise Refused("known")


def _events(connection: sqlite3.Connection, annotator: str, item: str) -> list[Event]:
    return select(connection, "annotator = ? AND item = ?", annotator, item)


def _is_repeated(heard: list[Conversation], text: str, n_said: int) -> bool:
    """Whether the very message stands where this one would have stood."""
    return all(one.said[n_said : n_said + 1] == [text] for one in heard)


def _said_last(connection: sqlite3.Connection, annotator: str, item: str) -> list[str]:
    """Return the message before the last, to whichever system; none where there is none."""
    said = [e for e in _events(connection, annotator, item) if e.kind == kinds.SAID]
    return [event.body["text"] for event in said[-2:-1]]
