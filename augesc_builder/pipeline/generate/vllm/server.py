"""A running ``vllm serve``: prompts to it and tokens from it, over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from queue import SimpleQueue
from typing import Any

from augesc_builder.engine import Continuation, OnStep, Prompt, Sampling
from augesc_builder.errors import EndpointError
from augesc_builder.pipeline.generate.vllm.exchange import (
    Request,
    requests_for,
    sampling_for,
    stream_through,
)

KEY = "VLLM_API_KEY"
"""Environment variable with the server's key, if it wants one; ``vllm serve`` reads it too."""

_AT_ONCE = 64
"""Requests that are under way together where nothing is said."""

_TRIES = 7
"""Times that a question is asked: for about a minute."""

_LONGEST_WAIT = 60.0
"""Seconds between two tries at most."""

_TIMEOUT = 3600.0
"""Seconds until an answer begins: a row comes whole, and may wait for many others before it."""

_LARGEST = 64 << 20
"""Bytes of an answer that are read."""

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer another time."""

Row = tuple[int, list[int], str]


class VllmServer:
    """An engine (:class:`~augesc_builder.engine.Engine`): the server at ``address``.

    ``model`` is a name there (one of an adapter too), ``None`` for the first; ``at_once`` the
    requests under way together. What fails for the moment is asked for again, for about a minute.

    Raises :class:`~augesc_builder.errors.EndpointError` where that does not help, where there is no
    such model, and where it has less room than ``sampling.max_tokens``.
    """

    def __init__(
        self, address: str, model: str | None, at_once: int | None, sampling: Sampling, end: int
    ) -> None:
        self.address = address.rstrip("/").removesuffix("/v1")
        self._at_once, self._sampling, self._end = at_once or _AT_ONCE, sampling, end
        self._stopped = threading.Event()
        found = self._ask("/v1/models")
        cards = {
            card["id"]: card
            for card in self._read(found, "data", list)
            if isinstance(card, dict) and isinstance(card.get("id"), str)
        }
        name = model or next(iter(cards), None)
        if name not in cards:
            raise EndpointError(
                f"{self.address} serves {', '.join(map(repr, cards)) or 'no model'}"
                + (f", not {model!r}; set generate.backend.model" if model else "")
            )
        room = cards[name].get("max_model_len")
        if isinstance(room, int) and room < sampling.max_tokens:
            raise EndpointError(
                f"{self.address} has room for {room:,} tokens a row, and generate.max_tokens is "
                f"{sampling.max_tokens:,}; lower it, or serve with "
                f"--max-model-len {sampling.max_tokens}"
            )
        version = self._read(self._ask("/version"), "version", str)
        self.facts = {"vllm": version}
        self._common = {"model": name, "return_token_ids": True, **sampling_for(sampling, end)}

    def __enter__(self) -> VllmServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ask nothing again."""
        self._stopped.set()

    def stream(
        self, prompts: Iterable[Prompt], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield ``(number of the prompt, continuation)`` as rows end; read prompts as needed."""
        todo: SimpleQueue[Request | None] = SimpleQueue()
        done: SimpleQueue[Row | Exception] = SimpleQueue()
        # Daemons: a row that is under way when the run ends is waited for by nobody.
        workers = [
            threading.Thread(target=self._work, args=(todo, done), daemon=True)
            for _ in range(self._at_once)
        ]
        for worker in workers:
            worker.start()

        def hear() -> Row:
            row = done.get()
            if isinstance(row, Exception):
                raise row
            return row

        try:
            yield from stream_through(
                requests_for(prompts, self._sampling.max_tokens),
                self._at_once,
                todo.put,
                hear,
                self._end,
                on_step,
            )
        finally:
            for _ in workers:
                todo.put(None)

    def _work(self, todo: SimpleQueue[Request | None], done: SimpleQueue[Row | Exception]) -> None:
        for request in iter(todo.get, None):
            try:
                done.put(self._row(request))
            except Exception as error:  # raised again where rows are waited for
                done.put(error)

    def _row(self, request: Request) -> Row:
        asked = {
            **self._common,
            "prompt": request.prompt,
            "seed": request.seed,
            "max_tokens": request.max_tokens,
        }
        choices = self._read(self._ask("/v1/completions", asked), "choices", list)
        choice = choices[0] if choices else {}
        token_ids = self._read(choice, "token_ids", list)
        reason = self._read(choice, "finish_reason", str)
        are_tokens = all(type(i) is int and i >= 0 for i in token_ids)
        if reason not in {"stop", "length"} or not are_tokens:
            raise EndpointError(f"{self.address}: a row ended by {reason!r:.80}, {token_ids!r:.80}")
        return request.number, token_ids, reason

    def _read(self, answer: Any, key: str, kind: type[Any]) -> Any:
        value = answer.get(key) if isinstance(answer, dict) else None
        if not isinstance(value, kind):
            raise EndpointError(
                f"{self.address}: expected an answer of vLLM with {key}, found {answer!r:.200}; "
                f"other servers are for generate.backend.type=openai_api"
            )
        return value

    def _ask(self, path: str, asked: dict[str, Any] | None = None) -> Any:
        """Return an answer, the same question asked again where it may help."""
        for number in range(1, _TRIES + 1):
            try:
                return self._once(path, asked)
            except (OSError, HTTPException, ValueError) as error:
                told = f"{self.address}{path}: {_told(error)}"
                if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
                    raise EndpointError(told) from None
                if number < _TRIES and not self._stopped.wait(_pause(number, error)):
                    continue
            raise EndpointError(
                f"{told}, {number} times; the same command resumes when vllm serve runs there"
            )
        raise AssertionError

    def _once(self, path: str, asked: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        body = None if asked is None else json.dumps(asked).encode()
        request = urllib.request.Request(self.address + path, body, headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            said = answer.read(_LARGEST)
            if answer.length:
                raise HTTPException(f"an answer that lacks {answer.length:,} bytes")
            return json.loads(said)


def _pause(number: int, error: Exception) -> float:
    """Return the seconds to wait behind try ``number``: twice as long each, or as the server says.

    Not all wait for as long, or all would come back together.
    """
    said = error.headers.get("Retry-After") if isinstance(error, urllib.error.HTTPError) else None
    asked = float(said) if said and said.isascii() and said.isdigit() else 0.0
    return min(max(2.0 ** (number - 1) * random.uniform(0.7, 1.3), asked), _LONGEST_WAIT)


def _told(error: Exception) -> str:
    """Return in a line what went wrong, in the server's words where it has any."""
    if isinstance(error, urllib.error.HTTPError):
        said = error.read(1 << 16).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = str(json.loads(said)["error"]["message"])
        return f"status {error.code}: {' '.join(said.split())[:300]}"
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:300] or type(error).__name__
