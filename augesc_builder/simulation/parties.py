"""Whoever talks in a simulation: a model of this machine, or one behind an address.

Each utterance is in a journal before the next is asked for. A simulation that was stopped asks for
nothing again that is there: it goes through what was said, and on from where that ends.
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from augesc_builder.engine.sampling import stream_key
from augesc_builder.errors import AugescError, CheckpointError
from augesc_builder.pipeline.generate.endpoint.asking import Asking, Stopped
from augesc_builder.pipeline.generate.endpoint.client import EMPTY, EOS, Answer, Endpoint
from augesc_builder.pipeline.generate.endpoint.journal import Journal
from augesc_builder.pipeline.generate.endpoint.lines import Place, digest_of
from augesc_builder.run.heartbeat import one_line
from augesc_builder.simulation.settings import ENDPOINTS, Party, SimulationSettings
from augesc_builder.text.prompts import Message, collapse

if TYPE_CHECKING:
    from augesc_builder.dialog.model import DialogModel

_LONGEST = 8_000
"""Characters of an utterance that are kept, whatever somebody writes."""

_TEST: tuple[Message, ...] = (
    {"role": "system", "content": "x"},
    {"role": "user", "content": "y"},
)


@dataclass(frozen=True)
class Moment:
    """Which utterance it is: that behind ``turn`` messages with a system about a card.

    ``attempt`` counts how often somebody was asked who said nothing.
    """

    card: str
    system: str
    turn: int
    attempt: int

    def place(self, section: str) -> Place:
        """Return its place in a journal."""
        return Place(f"{section}/{self.system}/{self.card}", self.attempt, self.turn)

    @property
    def key(self) -> str:
        """Return what is drawn by: the card and the turn, whichever system it is."""
        return f"{self.card}/{self.turn}/{self.attempt}"


class Speaker(Protocol):
    """Whoever says the next utterance of a conversation."""

    async def say(self, messages: Sequence[Message], moment: Moment) -> str:
        """Return an utterance on one line, or none; messages are as the model itself sees them.

        Raises :class:`~augesc_builder.errors.AugescError` where nothing more will be said.
        """

    def stop(self) -> None:
        """Let nothing more be asked."""

    async def close(self) -> None:
        """Let go of what is held."""


class LocalSpeaker:
    """A dialog model of this machine, one utterance at a time: its arithmetic has no company.

    All share a ``thread``. Raises :class:`~augesc_builder.errors.CheckpointError` where it cannot
    be loaded.
    """

    def __init__(
        self,
        section: str,
        party: Party,
        settings: SimulationSettings,
        journal: Journal,
        thread: ThreadPoolExecutor,
    ) -> None:
        from augesc_builder.dialog.model import Decoding, DialogModel

        self._section, self._journal, self._thread = section, journal, thread
        with_section = f"{section}.folder"
        try:
            self.model: DialogModel = DialogModel(str(party.folder))
        except CheckpointError as error:
            raise CheckpointError(f"{with_section}: {error}") from error
        replies = settings.replies
        self._decoding = Decoding(
            max_tokens=replies.max_tokens,
            top_p=replies.top_p,
            temperature=replies.temperature,
            no_repeat_ngram=replies.no_repeat_ngram,
            seed=settings.seed,
        )
        self._stopped = False

    @property
    def takes_system(self) -> bool:
        """Whether the model's chat template takes a message of the role ``system``."""
        try:
            self.model.encoder.whole(_TEST)
        except AugescError:
            return False
        return True

    async def say(self, messages: Sequence[Message], moment: Moment) -> str:
        """Return what the model says, by a random stream of the card's own."""
        place, asked = moment.place(self._section), digest_of({"messages": list(messages)})
        known = self._journal.answer(place, asked)
        if known is not None:
            return known.text
        if self._stopped:
            raise Stopped
        request, begun = uuid.uuid4().hex, time.monotonic()
        self._journal.asked(request, place, asked, (0, 0))
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._thread, self._reply, messages, moment.key)
        answer = Answer(text, EOS if text else EMPTY, 0, 0)
        await self._journal.answered(request, answer, time.monotonic() - begun)
        return text

    def _reply(self, messages: Sequence[Message], key: str) -> str:
        if self._stopped:
            raise Stopped
        keep_first = messages[0]["role"] == "system"
        try:
            said = self.model.reply(messages, self._decoding, key, keep_first=keep_first)
        except AugescError as error:
            raise CheckpointError(f"{self._section}.folder: {error}") from error
        except Exception as error:  # a model's code can fail in any way
            why = one_line(f"{type(error).__name__}: {error}")
            raise CheckpointError(
                f"{self._section}.folder: {self.model.name} fails ({why}); give another model"
            ) from error
        return legible(said)

    def stop(self) -> None:
        """Let nothing more be asked."""
        self._stopped = True

    async def close(self) -> None:
        """Let go of nothing: the thread is shared."""
        self._stopped = True


class EndpointSpeaker:
    """A model that speaks OpenAI's protocol of chat, within the limits of the settings.

    Raises :class:`~augesc_builder.errors.EndpointError` where its key is missing, and
    :class:`~augesc_builder.errors.MissingExtraError` without the client.
    """

    def __init__(
        self, section: str, party: Party, settings: SimulationSettings, journal: Journal
    ) -> None:
        asked = settings.asked(party)
        self._section, self._settings, self._model = section, settings, asked.model
        self._endpoint = Endpoint(asked, section)
        self._asking = Asking(asked, self._endpoint, journal, ENDPOINTS)

    async def say(self, messages: Sequence[Message], moment: Moment) -> str:
        """Return what is answered; nothing where the endpoint refuses these messages alone."""
        replies = self._settings.replies
        body: Mapping[str, Any] = {
            "model": self._model,
            "messages": list(messages),
            "max_tokens": replies.max_tokens,
            "temperature": replies.temperature,
            "top_p": replies.top_p,
            "seed": stream_key(self._settings.seed, moment.key, 0) % (1 << 31),
        }
        answer = await self._asking.ask(moment.place(self._section), body)
        return legible(answer.text)

    def stop(self) -> None:
        """Let no other request be sent."""
        self._asking.stop()

    async def close(self) -> None:
        """Let go of connections."""
        await self._endpoint.close()


def speaker_of(
    section: str,
    party: Party,
    settings: SimulationSettings,
    journals: Callable[[bool], Journal],
    thread: ThreadPoolExecutor,
) -> LocalSpeaker | EndpointSpeaker:
    """Load a model, or get ready to ask an endpoint; ``journals`` gives that of either.

    Raises what the two raise.
    """
    if party.base_url is None:
        return LocalSpeaker(section, party, settings, journals(False), thread)
    return EndpointSpeaker(section, party, settings, journals(True))


def legible(text: str) -> str:
    """Return a text on one line, without control characters and halves of surrogate pairs."""
    one = "".join(" " if c in "\n\t\r" else c for c in text[:_LONGEST])
    kept = collapse("".join(c for c in one if unicodedata.category(c) not in {"Cc", "Cs"}))
    shows = any(not c.isspace() and unicodedata.category(c) != "Cf" for c in kept)
    return kept.strip() if shows else ""
