"""An answer as it is written, in server-sent events: each is a stranger's, and none is trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from augesc_builder.pipeline.generate.endpoint.client import (
    EMPTY,
    ENDS,
    EOS,
    Answer,
    Endpoint,
    Part,
    Text,
    Trouble,
)

_LONGEST = 1 << 22
"""Bytes of an answer; more is no answer to anything that was asked."""


class StreamingEndpoint(Endpoint):
    """An endpoint of mode ``chat`` whose answers are shown while they are written."""

    async def stream(
        self, body: Mapping[str, Any], request_id: str, show: Callable[[str], None]
    ) -> Answer:
        """Send one request; ``show`` gets the whole text so far, each time that it grows.

        An endpoint that does not stream is taken as it is. Raises :class:`Trouble` where nothing
        came that can be used, and where it breaks off.
        """
        try:
            return await self._stream(body, request_id, show)
        except self._errors.APIError as error:
            raise self._trouble(error) from None

    async def _stream(
        self, body: Mapping[str, Any], request_id: str, show: Callable[[str], None]
    ) -> Answer:
        create = self._client.chat.completions.with_streaming_response.create
        headers = {"X-Request-Id": request_id, "X-Client-Request-Id": request_id}
        asked = {**body, "stream": True, "extra_body": dict(self._settings.extra_body)}
        text, ended = "", None
        async with create(**asked, extra_headers=headers) as answer:
            if "event-stream" not in answer.headers.get("content-type", ""):
                content = b"".join([piece async for piece in _bounded(answer.iter_bytes())])
                found = self._answer(content)
                show(found.text)
                return found
            async for data in _events(_bounded(answer.iter_bytes())):
                piece, reason = _said(data)
                ended = reason or ended
                if piece:
                    text += piece
                    show(self._hide(text))
        if ended is None:
            raise Trouble("broken off before its end", again=True, paid=True, replied=True)
        reason = ENDS.get(ended, "other")
        text = self._hide(text)
        return Answer(text, EMPTY if reason == EOS and not text.strip() else reason, None, None)


class _Delta(Part):
    content: Text | None = None
    refusal: Text | None = None


class _Choice(Part):
    delta: _Delta | None = None
    finish_reason: Any = None


class _Chunk(Part):
    choices: tuple[_Choice, ...] = ()
    error: Any = None


def _said(data: str) -> tuple[str, str | None]:
    """Return what an event adds to the text, and how the text ends, if it does."""
    found = _Chunk.read(data, "an event that is not the JSON that was expected")
    if found.error is not None:
        raise Trouble("an error instead of the rest", again=True, paid=True, replied=True)
    if not found.choices:
        return "", None
    choice = found.choices[0]
    piece = (choice.delta and (choice.delta.content or choice.delta.refusal)) or ""
    return piece, None if choice.finish_reason is None else str(choice.finish_reason)


async def _events(content: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of events; their end is marked, or is that of the answer."""
    rest = b""
    async for piece in content:
        *lines, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line.removeprefix(b"data:").strip().decode("utf-8", "replace")
                if data == "[DONE]":
                    return
                yield data


async def _bounded(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes, up to a length; whichever error the connection has is a trouble."""
    n = 0
    try:
        async for piece in content:
            n += len(piece)
            if n > _LONGEST:
                break
            yield piece
    except Exception as error:  # of httpx or httpx2, as the client's version has it
        reason = f"broken off ({type(error).__name__})"
        raise Trouble(reason, again=True, paid=True, replied=True) from None
    if n > _LONGEST:
        raise Trouble(f"more than {_LONGEST:,} bytes", paid=True, replied=True)
