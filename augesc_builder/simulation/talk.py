"""Conversations of a seeker with every system about every card, some cards at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from augesc_builder.pipeline.generate.endpoint.asking import Stopped
from augesc_builder.simulation.cards import Card
from augesc_builder.simulation.parties import Speaker
from augesc_builder.simulation.roles import SeekerRole, SystemRole
from augesc_builder.text.prompts import Message

Ended = Literal["turns", "seeker", "silent_seeker", "silent_system"]
"""How a conversation ended: see :data:`~augesc_builder.tables.SIMULATED`."""


@dataclass
class Dialog:
    """A conversation about a card with a system; without a message where a seeker says nothing."""

    card: Card
    system: str
    messages: list[Message] = field(default_factory=list)
    ended: Ended = "silent_seeker"


@dataclass(frozen=True)
class Talk:
    """How conversations go: with whom, for how many turns, and how often the silent are asked."""

    seeker: SeekerRole
    systems: Sequence[SystemRole]
    turns: int
    tries: int

    async def about(self, card: Card, on_done: Callable[[int], None]) -> list[Dialog]:
        """Talk about a card with each system; the seeker's first words are the same to all."""
        first = await self._tried(lambda attempt: self.seeker.begin(card, attempt))
        found = []
        for system in self.systems:
            dialog = Dialog(card, system.name)
            if first:
                dialog.messages.append({"role": "user", "content": first})
                await self._go_on(dialog, system)
            found.append(dialog)
            on_done(1)
        return found

    async def _go_on(self, dialog: Dialog, system: SystemRole) -> None:
        card, messages = dialog.card, dialog.messages
        for turn in range(1, self.turns + 1):
            reply = await self._tried(lambda attempt: system.answer(card, messages, attempt))
            if not reply:
                dialog.ended = "silent_system"
                return
            messages.append({"role": "assistant", "content": reply})
            if turn == self.turns:
                dialog.ended = "turns"
                return
            said = await self._tried(
                lambda attempt: self.seeker.answer(card, system.name, messages, attempt)
            )
            if not said:
                dialog.ended = "silent_seeker"
                return
            messages.append({"role": "user", "content": said})
            if self.seeker.ends(said):
                dialog.ended = "seeker"
                return

    async def _tried(self, ask: Callable[[int], Awaitable[str]]) -> str:
        for attempt in range(self.tries):
            if said := await ask(attempt):
                return said
        return ""


async def talk_about_all(
    cards: Sequence[Card],
    talk: Talk,
    speakers: Sequence[Speaker],
    at_once: int,
    on_done: Callable[[int], None],
) -> list[Dialog]:
    """Return every conversation, card by card in their order; ``at_once`` cards at a time.

    The first error ends all, and is raised once those under way have ended.
    """
    found: list[list[Dialog]] = [[] for _ in cards]
    todo: Iterator[tuple[int, Card]] = iter(enumerate(cards))

    async def work() -> None:
        for number, card in todo:
            try:
                found[number] = await talk.about(card, on_done)
            except Stopped:
                return
            except BaseException:
                for speaker in speakers:
                    speaker.stop()
                raise

    try:
        workers = (work() for _ in range(min(at_once, len(cards))))
        ended = await asyncio.gather(*workers, return_exceptions=True)
    finally:
        for speaker in speakers:
            await speaker.close()
    for error in ended:
        if error is not None:
            raise error
    return [dialog for dialogs in found for dialog in dialogs]
