"""The two roles: who plays the person of a card, and who answers.

A model that was trained as a seeker begins with the card's situation, as the paper's seekers begin
with a query (section 6.1). Any other model is told who it is, and says its first words itself if it
is to. All systems hear the same first words, as both bots did of a person (section 7.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from augesc_builder.errors import CheckpointError
from augesc_builder.simulation.cards import Card
from augesc_builder.simulation.parties import EndpointSpeaker, LocalSpeaker, Moment
from augesc_builder.simulation.settings import SEEKER, Seeker
from augesc_builder.text.farewell import says_goodbye
from augesc_builder.text.prompts import Message

NOBODY = "-"
"""The system in the moment of a seeker's first words: there is none as yet."""

_OTHER = {"user": "assistant", "assistant": "user"}

_LABEL = re.compile(
    r"^\W{0,3}(?:seeker|user|person|client|me|i)\W{0,3}:[*_]{0,3}\s*", re.IGNORECASE
)
_OTHERS_LINE = re.compile(
    r"(?:^|\s)[*\"'(\[]{0,3}(?:supporter|assistant|therapist|counsell?or|helper|ai)\W{0,3}:.*$",
    re.IGNORECASE,
)


class SeekerRole:
    """Plays the persons of cards.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a model that learned to support.
    """

    def __init__(self, speaker: LocalSpeaker | EndpointSpeaker, settings: Seeker) -> None:
        self._speaker, self._settings = speaker, settings
        self.is_told, self._takes_system = True, True
        if isinstance(speaker, LocalSpeaker):
            model = speaker.model
            learned = model.examples.role if model.facts else None
            if learned == "supporter":
                raise CheckpointError(
                    f"{SEEKER}.folder: {model.name} learned the supporter's utterances; give a "
                    f"model that was trained with --set examples.role=seeker, or a chat model"
                )
            self.is_told = learned is None and not model.encoder.is_encoder_decoder
            self._takes_system = self.is_told and speaker.takes_system

    async def begin(self, card: Card, attempt: int) -> str:
        """Return a seeker's first words, or none."""
        if not self.is_told or self._settings.first_words == "situation":
            return card.situation
        return await self._say(card, [], Moment(card.card_id, NOBODY, 0, attempt))

    async def answer(
        self, card: Card, system: str, history: Sequence[Message], attempt: int
    ) -> str:
        """Return what the seeker says to a system next, or nothing."""
        return await self._say(card, history, Moment(card.card_id, system, len(history), attempt))

    def ends(self, text: str) -> bool:
        """Whether a seeker says goodbye."""
        return says_goodbye(text, self._settings.end_words)

    async def _say(self, card: Card, history: Sequence[Message], moment: Moment) -> str:
        if not self.is_told:
            return await self._speaker.say(list(history), moment)
        said = await self._speaker.say(self.told(card, history), moment)
        return own_words(said)

    def told(self, card: Card, history: Sequence[Message]) -> list[Message]:
        """Return what a model reads: who it is, and the conversation, in which it is the assistant.

        The card stands in a message of the role ``system``, or where the model's chat template has
        none, in the first of the user's.
        """
        prompt, begin = card.fill(self._settings.prompt), self._settings.begin
        said: list[Message] = [
            {"role": _OTHER[message["role"]], "content": message["content"]} for message in history
        ]
        if not self._takes_system:
            return [{"role": "user", "content": f"{prompt}\n\n{begin}"}, *said]
        return [
            {"role": "system", "content": prompt},
            {"role": "user", "content": begin},
            *said,
        ]


class SystemRole:
    """Answers seekers; ``prompt`` is what an endpoint is told beforehand.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a model that was trained as a seeker.
    """

    def __init__(
        self, name: str, speaker: LocalSpeaker | EndpointSpeaker, prompt: str | None
    ) -> None:
        self.name, self._speaker, self._prompt = name, speaker, prompt
        if isinstance(speaker, LocalSpeaker):
            speaker.model.check_supports()

    async def answer(self, card: Card, history: Sequence[Message], attempt: int) -> str:
        """Return the answer to a conversation, or none."""
        told: list[Message] = []
        if self._prompt:
            told.append({"role": "system", "content": self._prompt})
        moment = Moment(card.card_id, self.name, len(history), attempt)
        return await self._speaker.say([*told, *history], moment)


def own_words(text: str) -> str:
    """Return what a model wrote as a seeker, without quotes and labels, and what it wrote for both.

    A model that was not trained as one may write the supporter's next line as well.
    """
    text = _OTHERS_LINE.sub("", _LABEL.sub("", text.strip())).strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1].strip()
    return text
