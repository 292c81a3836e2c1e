"""Serving a study: its folder locked, its pages at an address, an end by a signal.

The pages themselves are an ASGI application, by the study's kind: of the quality study
(:mod:`.quality_app`) or the interactive one.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from augesc_builder.errors import ServeError
from augesc_builder.human_evaluation.pages.drawing import require_app
from augesc_builder.human_evaluation.pages.serving import Application, Guarded, listen
from augesc_builder.human_evaluation.quality_app import application
from augesc_builder.human_evaluation.quality_pages import QualityPages
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run import layout
from augesc_builder.run.progress import Progress

PORT = 8000
"""Where nothing else is asked for."""

_SECONDS_TO_FINISH = 5
"""How long requests that are being answered have, when the server is told to end."""

CROWD_QUERY = "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
"""What a platform fills in, as Prolific writes it."""

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")

OPENED = (
    "This address is open to every machine that can reach this one, and what goes over it can be "
    "read on the way: links, answers, conversations. Where that is more than a network of your "
    "own, keep --host 127.0.0.1 and put a web server with https in front."
)
"""What it means to listen elsewhere than on loopback."""


@dataclass(frozen=True)
class Site:
    """Where people find the pages: ``origin`` is empty where the server's own address is theirs."""

    origin: str
    path: str

    @classmethod
    def of(cls, prefix: str) -> Site:
        """Read what ``--url-prefix`` gives: a path such as ``/study``, or ``https://host/study``.

        Raises :class:`~augesc_builder.errors.ServeError` for anything else.
        """
        try:
            parts = urlsplit(prefix)
            is_site = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            parts, is_site = None, False
        path = parts.path.rstrip("/") if parts is not None else ""
        if (
            parts is None
            or set(prefix) & set("?#")  # also where nothing stands behind them
            or not _PATH.fullmatch(path)
            or not (is_site or (not parts.scheme and not parts.netloc))
        ):
            raise ServeError(
                f"--url-prefix: expected a path such as /study, or an address such as "
                f"https://example.org/study, found {prefix[:80]!r}"
            )
        return cls(f"{parts.scheme}://{parts.netloc}" if is_site else "", path)

    def seen_at(self, door: socket.socket) -> str:
        """Return the address that people are given, without a slash at the end."""
        return (self.origin or address_of(door)) + self.path


def serve_study(
    folder: Path, host: str, port: int, url_prefix: str, links: Path | None, progress: Progress
) -> None:
    """Serve a study until the process is told to end.

    Raises :class:`~augesc_builder.errors.ServeError` where the address cannot be had,
    :class:`~augesc_builder.errors.StudyError` where another server is at work on the study, and
    what opening the study raises.
    """
    require_app()
    site = Site.of(url_prefix)
    study = Study.open(folder)
    with (
        study.serving(),
        listen(host, port) as door,
        Store.open(study) as store,
        _pages(study, store, progress) as pages,
    ):
        app = application(pages, site.path, progress)
        if links is not None:
            write_links(study, site.seen_at(door), links)
        for line in _said(study, site, door):
            progress.say(line)
        run(app, door)
        progress.say("Stopped. Everything that was sent is in the study's folder.")


def write_links(study: Study, address: str, path: Path) -> None:
    """Write the personal links as CSV, ``annotator,link``, for nobody's eyes but the owner's.

    Raises :class:`~augesc_builder.errors.ServeError` where that cannot be.
    """
    rows = [f"{name},{address}/a/{token}\n" for name, token in study.tokens.links.items()]
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "it is there, and no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write("".join(["annotator,link\n", *rows]))
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise ServeError(
            f"--links: {path} cannot be written ({error.strerror}); give another file"
        ) from None


@contextlib.contextmanager
def _pages(study: Study, store: Store, progress: Progress) -> Iterator[QualityPages]:
    """Yield the pages of a study of either kind."""
    if study.settings.kind == "quality":
        yield QualityPages(study, store)
        return
    from augesc_builder.human_evaluation.interactive import open_pages

    with open_pages(study, store, progress) as pages:
        yield pages


def _said(study: Study, site: Site, door: socket.socket) -> Iterator[str]:
    """Yield what whoever starts the server is told before the first request."""
    yield from study.changed_corpora()
    address, settings = site.seen_at(door), study.settings
    if not study.tokens.links and not settings.crowd.enabled:
        yield "Nobody can come in: the study has no personal links, and crowd.enabled is false."
    if study.tokens.links:
        yield (
            f"{len(study.tokens.links)} personal links: {address}/a/TOKEN, with the tokens in "
            f"{study.folder / layout.TOKENS}"
        )
    if settings.crowd.enabled:
        yield f"From a crowd platform: {address}/?{CROWD_QUERY}"
    if settings.expires is not None:
        yield f"It closes at {settings.expires}."
    if not ipaddress.ip_address(door.getsockname()[0]).is_loopback:
        yield OPENED
    yield f"Serving {settings.title!r} at {address_of(door)}/"
    yield "Ctrl-C ends it; it can be started again at any time, and everybody goes on."


def address_of(door: socket.socket) -> str:
    """Return the address to open in a browser of this machine."""
    host, port = door.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if door.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: Application, door: socket.socket) -> None:
    """Answer requests until the process is told to end, by SIGTERM or Ctrl-C: that is no error.

    The address of a person is taken from a web server in front where that is on this machine.
    """
    import uvicorn

    config = uvicorn.Config(
        Guarded(app),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,  # addresses hold the links of people
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    with _ending_quietly():
        uvicorn.Server(config).run(sockets=[door])


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let a signal that has ended the server, which it then sends itself again, do nothing more."""
    asked = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
