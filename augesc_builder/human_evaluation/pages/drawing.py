"""Pages drawn from templates, in which every value is a stranger's text."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.errors import MissingExtraError, install_extra

if TYPE_CHECKING:
    import jinja2
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

FOLDER = Path(__file__).parent

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, tab and line feed aside
    r"\u202a-\u202e"  # embeddings and overrides of the direction of writing; marks stay
    r"\ud800-\udfff\ufffe\uffff]"  # halves of pairs, no characters
)


def require_app() -> None:
    """Raise :class:`~augesc_builder.errors.MissingExtraError` where no page can be served."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"pages need the extra app ({error.name} is missing): {install_extra('app')}"
        ) from None


def as_shown(text: str) -> str:
    r"""Return a text as a page shows it: what HTML cannot hold, or turns lines around, written out.

    A lone surrogate, which no page could be encoded with, becomes the six characters ``\ud800``.
    """
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def render(template: str, /, **values: Any) -> str:
    """Return a page: a template of this folder, ``NAME.html.j2``, filled with values.

    Every value is escaped; a slot that has none is an error.
    """
    return _templates().get_template(f"{template}.html.j2").render(values)


def page(
    template: str, /, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """Return :func:`render`'s page as a response."""
    from starlette.responses import HTMLResponse

    return HTMLResponse(render(template, **values), status, dict(headers or {}))


def see_other(address: str) -> Response:
    """Return the answer to a form that was sent: the page to get next (a reload sends nothing)."""
    from starlette.responses import RedirectResponse

    return RedirectResponse(address, 303)


def static_routes() -> list[BaseRoute]:
    """Return the route of the styles and scripts of this folder, known by name; no other file."""
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
    from starlette.routing import Route

    def static(request: Request) -> Response:
        found = _static_files().get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        content, kind, _ = found
        # Its address holds its digest (`static` of the templates), so that it is loaded once.
        keep = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(content, headers=keep, media_type=kind)

    return [Route("/static/{name}", static)]


def error_pages() -> dict[Any, Any]:
    """Return ``exception_handlers`` of an application: what went wrong as a page of ours."""
    from starlette.exceptions import HTTPException

    def refused(_: Request, error: Exception) -> Response:
        status, detail = 500, ""
        if isinstance(error, HTTPException):
            status, detail = error.status_code, error.detail
        return page("message", status, title=_TITLES.get(status, "That did not work"), text=detail)

    return {HTTPException: refused}


_TITLES = {
    403: "Not allowed",
    404: "There is no such page",
    405: "There is no such page",
    413: "That was too long",
    429: "Too many requests; please wait a little",
}


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return (
            as_shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        )

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.globals["static"] = static_address
    return environment


@functools.cache
def _static_files() -> dict[str, tuple[bytes, str, str]]:
    """Return content, type and digest of every file that is handed out, by name."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            found[path.name] = content, _TYPES[path.suffix], digest
    return found


def static_address(name: str) -> str:
    """Return the address of a style or script of this folder, with its digest."""
    return f"/static/{name}?v={_static_files()[name][2]}"
