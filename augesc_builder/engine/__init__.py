"""Decoding: prompts as tokens in, continuations as tokens out.

Nothing here knows of files, requirements or text. Every row draws from a random stream of its own,
so what is drawn for it depends neither on its neighbours nor on the order of the prompts. Rounding
in the model's arithmetic still may, where a batch has another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["eos", "length", "prompt_too_long"]


@dataclass(frozen=True)
class Prompt:
    """Tokens to continue, and the 128-bit key of the row's random stream."""

    token_ids: tuple[int, ...]
    stream: int


@dataclass(frozen=True)
class Continuation:
    """Generated tokens, without the end-of-sequence token, and why they end."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen (section 4.1); ``max_tokens`` counts the prompt too."""

    max_tokens: int
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.0


class Engine(Protocol):
    """What every decoding loop offers."""

    def generate(
        self, prompts: Sequence[Prompt], on_step: Callable[[int, int], None]
    ) -> list[Continuation]:
        """Continue every prompt, in order; ``on_step(rows finished, tokens made)`` each step."""
