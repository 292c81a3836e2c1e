"""Decoding: prompts as tokens in, continuations as tokens out.

Nothing here knows of files, requirements or text. Every row draws from a random stream of its own,
so what is drawn for it depends neither on its neighbours nor on the order of the prompts. Rounding
in the model's arithmetic still may, where a batch has another shape.

``continuous.py`` is continuous batching, ``prefill.py`` brings its prompts in, ``cache.py`` is its
KV cache with attention over it, ``models.py``, ``gptj.py`` and ``llama.py`` the models that run on
it, ``sampling.py`` draws the tokens, and ``memory.py`` says how many conversations fit. On CPU
``cpu_kernels.py`` compiles products, attention and the choice of tokens, with keys as in
``panel_cache.py``; on CUDA ``kernels.py`` attends for a decoding step and ``cuda_graphs.py``
captures it. ``tensor_parallel.py`` shards one model over several processes. ``static.py`` is static
batching, for any causal language model of ``transformers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["eos", "length", "prompt_too_long", "not_finite"]

OnStep = Callable[[int, int], None]
"""Called with ``(rows finished, tokens made)`` after each step."""


@dataclass(frozen=True)
class Prompt:
    """Tokens to continue, at least one, and the 128-bit key of the row's random stream.

    ``limit`` ends the row earlier than ``Sampling.max_tokens``; it counts the prompt too. A token
    of ``stops`` is the row's last. Raises :class:`ValueError` where there is no token.
    """

    token_ids: tuple[int, ...]
    stream: int
    limit: int | None = None
    stops: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.token_ids:
            raise ValueError("a prompt has at least one token, found none")


@dataclass(frozen=True)
class Continuation:
    """Generated tokens, without the end-of-sequence token, and why they end.

    One of the prompt's own ``stops`` ends them as ``eos`` too, and stands among them. A row with
    non-finite logits ends as ``not_finite``, without tokens.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled (section 4.1); ``max_tokens`` counts the prompt too.

    The order is that of ``transformers``: repetition penalty, temperature, ``top_k``, ``top_p``,
    ``min_p``; ``greedy`` takes the most likely token after the penalty. Raises
    :class:`ValueError` where a setting is out of its range.
    """

    max_tokens: int
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    greedy: bool = False

    def __post_init__(self) -> None:
        for name, value, fits, expected in (
            ("top_p", self.top_p, 0 < self.top_p <= 1, "in (0, 1]"),
            ("temperature", self.temperature, self.temperature > 0, "above 0 (or greedy)"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
            ("top_k", self.top_k, self.top_k is None or self.top_k > 0, "above 0, or none"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "in [0, 1]"),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}; expected a number {expected}")


class Engine(Protocol):
    """What every decoding engine offers."""

    def stream(
        self, prompts: Iterable[Prompt], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield ``(number of the prompt, continuation)`` as rows end; read prompts as needed."""


def generate(engine: Engine, prompts: Sequence[Prompt], on_step: OnStep) -> list[Continuation]:
    """Continue every prompt; the continuations stand in the prompts' order."""
    ended = dict(engine.stream(prompts, on_step))
    return [ended[i] for i in range(len(prompts))]
