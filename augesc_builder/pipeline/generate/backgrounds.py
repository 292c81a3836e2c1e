"""Background first: the model continues a query into a background, then both into a conversation.

A background that is not fit to build on is drawn again, from the stream of its attempt.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Generator
from dataclasses import dataclass

from augesc_builder.config.generate import Background
from augesc_builder.engine import Continuation, Prompt
from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.text.prompt_form import PromptForm
from augesc_builder.text.prompts import BACKGROUND, ROLE, Message

EMPTY, UNFINISHED, COPY, ROLE_WORD, CONTRADICTION = (
    *("empty", "unfinished", "copy", "role_word"),
    "contradiction",
)
"""Why a background is drawn again: it has no words or none that a prompt can hold, its line had no
end, it has no word that is not in the query, it has the cue of an utterance in it, or it
contradicts the query."""


def contradicts(query: str, background: str) -> bool:
    """Whether a background says what clashes with the query, by the rules of ``consistency``."""
    said: list[Message] = [{"role": "user", "content": text} for text in (background, query)]
    (scored,) = Consistency().score([said])
    return bool(scored.session["contradictions"])


def _words(text: str) -> set[str]:
    return {word.strip(string.punctuation) for word in text.lower().split()}


@dataclass(frozen=True)
class Drawn:
    """The background of a conversation, why other draws of one were not fit, and all their tokens.

    There is no ``background`` where no draw was fit.
    """

    background: str | None
    faults: tuple[str, ...]
    n_tokens: int


@dataclass(frozen=True)
class Backgrounds:
    """Draws backgrounds; ``contradicts`` says whether one contradicts its query."""

    form: PromptForm
    settings: Background
    contradicts: Callable[[str, str], bool]

    def draw(
        self, query: str, persona: str | None, stream: Callable[[int], int]
    ) -> Generator[Prompt, Continuation, Drawn]:
        """Draw the background of a query, which begins with the ``persona`` where there is one.

        ``stream`` gives the key of the random stream of an attempt, from 0.
        """
        ids = self.form.for_background(query, persona or "")
        limit = len(ids) + self.settings.max_tokens
        faults: list[str] = []
        n_tokens = 0
        while len(faults) < self.settings.attempts:
            result = yield Prompt(ids, stream(len(faults)), limit, self.form.line_ends)
            n_tokens += len(result.token_ids)
            if result.finish_reason not in {"eos", "length"}:
                break  # the same will be said of the conversation
            background = self.form.background(result.token_ids)
            if persona and background:
                background = f"{persona} {background}"
            fault = self._fault(query, background, result)
            if fault is None:
                return Drawn(background, tuple(faults), n_tokens)
            faults.append(fault)
        return Drawn(None, tuple(faults), n_tokens)

    def _fault(self, query: str, background: str, result: Continuation) -> str | None:
        try:
            self.form.template.opening(background)
        except ValueError:
            return EMPTY
        if result.finish_reason != "eos":
            return UNFINISHED
        if any(f"{word}:" in background for word in (*ROLE, BACKGROUND)):
            return ROLE_WORD
        if not _words(background) - _words(query):
            return COPY
        return CONTRADICTION if self.contradicts(query, background) else None
