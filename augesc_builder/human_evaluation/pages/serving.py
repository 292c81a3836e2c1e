"""Applications behind strict headers, and a server whose mistakes are one line."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from augesc_builder.errors import ServeError
from augesc_builder.human_evaluation.pages.drawing import require_app
from augesc_builder.run.progress import Progress

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            *("default-src 'none'", "style-src 'self'", "script-src 'self'", "img-src 'self'"),
            *("connect-src 'self'", "form-action 'self'", "base-uri 'none'"),
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Of every answer; an answer that sets one itself keeps it.

Without a referrer, a browser sends ``Origin: null`` with a form: where a form is from is told by
``Sec-Fetch-Site``.
"""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

LONGEST_BODY = 1 << 20
"""Bytes of a request; a form of ours is far below."""

_LAST_PORT = 65_535


class Guarded:
    """An ASGI application behind :data:`HEADERS`.

    Requests that name another host than ``hosts`` are refused (``None``: any): a page elsewhere,
    whose name somebody turned to this machine, reads nothing. So are bodies over
    :data:`LONGEST_BODY`.
    """

    def __init__(self, app: Application, hosts: Collection[str] | None = None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.lower().encode() not in given
                    ),
                ]
            await send(message)

        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name not in self._hosts:
            await _refuse(strict, 421, "This address is for this machine alone.")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            await _refuse(strict, 413, "That was too long.")
            return
        await self._app(scope, _bounded(receive), strict)


def serve(app: Application, host: str, port: int, progress: Progress, address: str = "/") -> None:
    """Serve an application until it is interrupted; say where before the first request.

    ``port`` 0 is any free one. Hosts are checked where ``host`` is a loopback address. Raises
    :class:`~augesc_builder.errors.ServeError` where the port cannot be had, and
    :class:`~augesc_builder.errors.MissingExtraError` without the extra ``app``.
    """
    require_app()
    import uvicorn

    door = listen(host, port)
    is_loopback = host in {"localhost", "::1"} or host.startswith("127.")
    config = uvicorn.Config(
        Guarded(app, LOOPBACK | {host} if is_loopback else None),
        log_level="warning",
        access_log=False,  # addresses hold the links of people
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    shown = f"[{host}]" if ":" in host else host
    with door:
        progress.say(f"http://{shown}:{door.getsockname()[1]}{address}  (Ctrl+C ends)")
        try:
            uvicorn.Server(config).run(sockets=[door])
        except KeyboardInterrupt:  # uvicorn raises it again when it is done
            progress.say("Ended.")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises :class:`~augesc_builder.errors.ServeError` where the port cannot be had.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ServeError(f"cannot listen at {host}, port {port}: ports go from 0 to {_LAST_PORT}")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            reason = "something else listens there; give another --port, or 0 for any"
        else:
            number = error.errno if isinstance(error, OSError) else None
            reason = os.strerror(number) if number and number > 0 else str(error)
        raise ServeError(f"cannot listen at {host}, port {port}: {reason}") from None


def _bounded(receive: Receive) -> Receive:
    """Return ``receive`` that ends where a body of no declared length is too long."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LONGEST_BODY:
            from starlette.exceptions import HTTPException

            raise HTTPException(413)
        return message

    return bounded


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
