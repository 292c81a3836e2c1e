"""The two conversations of a person, read from the events: who said what, and whose turn it is.

What opens both is said to both; from then on each goes its own way. Nothing here is remembered:
the state is that of the events, whichever server wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from augesc_builder.human_evaluation.events import ANSWERED, DANGER, REPLIED, SAID, Event
from augesc_builder.human_evaluation.study import Item
from augesc_builder.text.prompts import Message, collapse

NO_REPLY = "no_reply"
"""A system had no reply: ``why`` (slow, broken, empty), ``reason``, ``seconds``."""
ASKED_AGAIN = "asked_again"
"""The person wants a reply that did not come."""
HANDED_OVER = "handed_over"
"""People were told of a sign of danger, or could not be: ``error``."""

Screen = Literal["left", "right"]
SCREEN: tuple[Screen, Screen] = ("left", "right")

MOST_UTTERANCES = 100
"""What a person says to a system at most."""

Turn = Literal["person", "system", "failed"]
"""Whose turn it is; ``failed``: a reply did not come, and the person may go on or ask again."""


@dataclass(frozen=True)
class Line:
    """What stands in a conversation: an utterance, the notice of danger, or that no reply came.

    ``id`` is that of the event. Of a notice, ``error`` is None while nobody was told, empty where
    people were, and else says why they could not be.
    """

    kind: Literal["user", "assistant", "danger", "no_reply"]
    text: str
    id: int
    error: str | None = None


@dataclass(frozen=True)
class Conversation:
    """One of the two; ``waits_for`` is the event that the system answers, where it is its turn."""

    system: str
    lines: tuple[Line, ...]
    turn: Turn
    waits_for: int | None

    @property
    def n_said(self) -> int:
        """Utterances of the person."""
        return sum(line.kind == "user" for line in self.lines)

    @property
    def n_replies(self) -> int:
        """Utterances of the system."""
        return sum(line.kind == "assistant" for line in self.lines)

    @property
    def n_failed(self) -> int:
        """Replies that did not come, since the last that did."""
        n = 0
        for line in self.lines:
            n = 0 if line.kind == "assistant" else n + (line.kind == "no_reply")
        return n

    @property
    def said(self) -> list[str]:
        """What the person wrote, in order."""
        return [line.text for line in self.lines if line.kind == "user"]

    @property
    def history(self) -> list[Message]:
        """The conversation as systems read it, every utterance on one line."""
        return [
            {"role": line.kind, "content": collapse(line.text)}
            for line in self.lines
            if line.kind in {"user", "assistant"}
        ]

    @property
    def is_full(self) -> bool:
        """Whether the person has said to it all that there is room for."""
        return self.n_said >= MOST_UTTERANCES


@dataclass(frozen=True)
class Talk:
    """The work of one person on one item: both conversations, as they stand on the screen."""

    left: Conversation
    right: Conversation
    is_answered: bool

    def on(self, screen: Screen) -> Conversation:
        """Return the conversation on one side of the screen."""
        return self.left if screen == "left" else self.right

    @property
    def is_begun(self) -> bool:
        """Whether the first message is sent."""
        return bool(self.left.lines or self.right.lines)

    @property
    def waiting(self) -> list[Conversation]:
        """Return those in which a reply is due."""
        return [one for one in (self.left, self.right) if one.turn == "system"]

    def is_long_enough(self, least: int) -> bool:
        """Whether the person and each system have said as much as the questions ask for."""
        both = (self.left, self.right)
        return all(min(one.n_said, one.n_replies) >= least for one in both)


def read_talk(item: Item, events: Iterable[Event]) -> Talk:
    """Return what the events of one person on one item say, in their order."""
    known = list(events)
    handed = {e.body["danger"]: str(e.body["error"] or "") for e in known if e.kind == HANDED_OVER}
    return Talk(
        _read(item.left or "", known, handed),
        _read(item.right or "", known, handed),
        is_answered=any(event.kind == ANSWERED for event in known),
    )


def _read(system: str, events: Sequence[Event], handed: dict[int, str]) -> Conversation:
    lines: list[Line] = []
    turn: Turn = "person"
    waits_for: int | None = None
    for event in events:
        body, to = event.body, event.body.get("system")
        if event.kind == DANGER:  # in both: whoever reads only one sees it
            lines.append(Line("danger", "", event.id, handed.get(event.id)))
        if to not in {None, system}:
            continue
        if event.kind == SAID:
            lines.append(Line("user", body["text"], event.id))
        elif event.kind == REPLIED:
            lines.append(Line("assistant", body["text"], event.id))
        elif event.kind == NO_REPLY:
            lines.append(Line("no_reply", body["why"], event.id))
        if event.kind in {SAID, ASKED_AGAIN}:
            turn, waits_for = "system", event.id
        elif event.kind == REPLIED:
            turn, waits_for = "person", None
        elif event.kind == NO_REPLY:
            turn, waits_for = "failed", None
    return Conversation(system, tuple(lines), turn, waits_for)


def open_dangers(events: Iterable[Event]) -> list[Event]:
    """Return the signs of danger that nobody was told of yet, though somebody is to be."""
    known = list(events)
    handed = {event.body["danger"] for event in known if event.kind == HANDED_OVER}
    return [event for event in known if event.kind == DANGER and event.id not in handed]
