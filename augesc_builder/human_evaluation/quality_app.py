"""The quality study as an ASGI application: addresses in, pages out; what they hold is elsewhere.

::

    /                    who came from a crowd platform, known by PROLIFIC_PID
    /a/TOKEN             the next thing to do of whoever has this link
    /a/TOKEN/consent     what one agrees to
    /a/TOKEN/check       the comprehension check
    /a/TOKEN/3           the third conversation and its questions
    /a/TOKEN/leave       a way out
    /a/TOKEN/done        how it ended

Every page is drawn from the store when it is asked for. What is sent goes into the store before
the answer is: a redirection, so that a reload sends nothing again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from augesc_builder.errors import AugescError, DiskError
from augesc_builder.human_evaluation.guesses import Guesses
from augesc_builder.human_evaluation.pages.drawing import (
    page,
    see_other,
    static_address,
    static_routes,
)
from augesc_builder.human_evaluation.quality_pages import Answer, Go, QualityPages, Stream
from augesc_builder.human_evaluation.quality_views import Page
from augesc_builder.human_evaluation.unfit import Unfit
from augesc_builder.run.progress import Progress

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.requests import Request
    from starlette.responses import Response

    from augesc_builder.human_evaluation.pages.serving import Application, Message, Receive, Send

LONGEST_FORM = 64 * 1024
"""Bytes of what a page sends."""

_MOST_FIELDS = 2000

_THREADS = 8
"""That work with the store at a time: more would only wait for each other."""


def application(pages: QualityPages, path: str, progress: Progress) -> Application:
    """Return the application; ``path`` stands before every address, and is empty or ``/study``.

    Requests are answered with and without it: a web server in front may take it off.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    answers = _Answers(pages, path, progress)
    app = Starlette(
        routes=[
            *static_routes(),
            Route("/", answers.entrance),
            Route("/a/{token}", answers.step),
            Route("/a/{token}/{step}", answers.step, methods=["GET", "POST"]),
        ],
        exception_handlers={
            **dict.fromkeys((404, 405, 413), answers.nowhere),
            500: answers.broken,
        },
    )

    async def below(scope: Message, receive: Receive, send: Send) -> None:
        if path and (scope["path"] + "/").startswith(f"{path}/"):
            scope = {**scope, "path": scope["path"][len(path) :] or "/"}
        await app(scope, receive, send)

    return below


class _Answers:
    """What is answered to a request."""

    def __init__(self, pages: QualityPages, path: str, progress: Progress) -> None:
        self._pages, self._path, self._progress = pages, path, progress
        self._guesses = Guesses()
        self._threads: CapacityLimiter | None = None

    async def entrance(self, request: Request) -> Response:
        """Let in who came from a crowd platform, under the link that is theirs."""
        given = dict(request.query_params)
        return await self._drawn("", lambda: self._pages.entrance(given))

    async def step(self, request: Request) -> Response:
        """Draw a page of whoever has this link, or take what was sent from it."""
        token, client = request.path_params["token"], _client(request)
        if wait := self._guesses.wait(client, token):
            return self._draw(Unfit.guessed(wait), "", {"Retry-After": str(wait)})
        annotator = self._pages.whose(token)
        if annotator is None:
            first = self._guesses.wrong(client)
            return await self._drawn("", lambda: self._pages.stranger(is_first=first))
        self._guesses.right(client, token)
        step = request.path_params.get("step", "")
        if request.method != "POST":
            return await self._drawn(token, lambda: self._pages.get(annotator, step))
        try:
            form = await _form_of(request)
        except ValueError as error:
            said = str(error)
            return await self._drawn(token, lambda: self._pages.unreadable(annotator, step, said))
        return await self._drawn(token, lambda: self._pages.post(annotator, step, form))

    async def nowhere(self, request: Request, error: Exception) -> Response:
        """Say that there is no such page."""
        return self._draw(Unfit.nowhere(getattr(error, "status_code", 404)), "")

    async def broken(self, request: Request, error: Exception) -> Response:
        """Say that something is wrong with the server; the error itself goes to its terminal."""
        return self._draw(Unfit.broken(is_full=False), "")

    async def _drawn(self, token: str, work: Callable[[], Answer]) -> Response:
        """Let a thread work with the store, and answer with what it gives."""
        from anyio import CapacityLimiter, to_thread
        from starlette.responses import Response, StreamingResponse

        if self._threads is None:
            self._threads = CapacityLimiter(_THREADS)
        try:
            found = await to_thread.run_sync(work, limiter=self._threads)
        except Unfit as unfit:
            return self._draw(unfit, token)
        except AugescError as error:
            self._progress.say(f"not kept: {error}")
            return self._draw(Unfit.broken(is_full=isinstance(error, DiskError)), token)
        if isinstance(found, Go):
            return see_other(self._address(found.token or token, found.step))
        if isinstance(found, Page):
            return page(found.template, found.status, **self._values(token, found.values))
        if isinstance(found, Stream):
            # What stands in front of the server is not to hold it back.
            headers = {"X-Accel-Buffering": "no"}
            return StreamingResponse(found.events, 200, headers, "text/event-stream")
        return Response(status_code=204)

    def _draw(self, unfit: Unfit, token: str, headers: Mapping[str, str] | None = None) -> Response:
        values = self._values(token, unfit.values())
        return page("quality_end", unfit.status, headers, **values)

    def _values(self, token: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a template needs, addresses put in."""
        return {
            **self._pages.always,
            **values,
            "static": self._static,
            "to": lambda step: self._address(token, str(step)),
        }

    def _address(self, token: str, step: str) -> str:
        return f"{self._path}/a/{quote(token, safe='')}" + (f"/{step}" if step else "")

    def _static(self, name: str) -> str:
        return self._path + static_address(name)


def _client(request: Request) -> str:
    return request.client.host if request.client is not None else ""


_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


async def _form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; raise ValueError for what no page of ours sends."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ValueError(f"content of type {kind[:60] or 'none'}")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise ValueError(f"more than {LONGEST_FORM} bytes")
    fields = parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        errors="strict",
        max_num_fields=_MOST_FIELDS,
    )
    form = dict(fields)
    if len(form) < len(fields):
        raise ValueError("a field twice")
    if any(_HIDDEN.search(text) for field in fields for text in field):
        raise ValueError("control characters")
    return form
