"""What vLLM is asked and answers, by whichever way: sampling, a request, a continuation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from augesc_builder.engine import Continuation, FinishReason, OnStep, Prompt, Sampling

_SEEDS = 1 << 63
"""vLLM takes a signed whole number of 64 bits."""


@dataclass(frozen=True)
class Request:
    """Row ``number``: tokens to continue by at most ``max_tokens`` more, drawn from ``seed``."""

    number: int
    prompt: list[int]
    seed: int
    max_tokens: int


def requests_for(
    prompts: Iterable[Prompt], max_tokens: int
) -> Iterator[Request | tuple[int, Continuation]]:
    """Yield the request of each prompt, or its row where ``max_tokens`` leave no room for one.

    ``max_tokens`` counts the prompt too, as everywhere here; vLLM counts what it makes.
    """
    for number, prompt in enumerate(prompts):
        room = min(max_tokens, prompt.limit or max_tokens) - len(prompt.token_ids)
        if room > 0:
            yield Request(number, [*prompt.token_ids], prompt.stream % _SEEDS, room)
        else:
            yield number, Continuation((), "prompt_too_long")


def sampling_for(sampling: Sampling, end: int) -> dict[str, Any]:
    """Return how every row is sampled, with nothing left to the defaults of a model.

    Only ``end`` ends a row, whatever else a model's configuration calls an end.
    """
    return {
        "temperature": 0.0 if sampling.greedy else sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "stop_token_ids": [end],
        "ignore_eos": True,
    }


_REASONS: dict[str, FinishReason] = {
    "stop": "eos",
    "length": "length",
    "not_finite": "not_finite",
}


def continuation_of(token_ids: Sequence[int], reason: str, end: int) -> Continuation:
    """Return a row as our own engine gives it.

    Raises ``KeyError`` for an end that is none of ours, such as an aborted request.
    """
    ours = _REASONS[reason]
    if ours == "not_finite":
        return Continuation((), ours)
    made = token_ids[:-1] if ours == "eos" and token_ids[-1:] == [end] else token_ids
    return Continuation(tuple(made), ours)


def stream_through(
    requests: Iterator[Request | tuple[int, Continuation]],
    window: int,
    ask: Callable[[Request], None],
    hear: Callable[[], tuple[int, Sequence[int], str]],
    end: int,
    on_step: OnStep,
) -> Iterator[tuple[int, Continuation]]:
    """Yield ``(number of the prompt, continuation)`` as rows end, ``window`` of them at a time.

    ``ask`` sends a request, ``hear`` waits for the next row of any: its number, its tokens and why
    they end, in vLLM's words.
    """
    at_work, more = 0, True
    while more or at_work:
        while more and at_work < window:
            request = next(requests, None)
            if isinstance(request, Request):
                ask(request)
                at_work += 1
            elif request is not None:
                on_step(1, 0)
                yield request
            else:
                more = False
        if at_work:
            number, token_ids, reason = hear()
            at_work -= 1
            on_step(1, len(token_ids))
            yield number, continuation_of(token_ids, reason, end)
