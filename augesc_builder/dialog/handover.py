"""Handing a person in danger over to people: a command or a URL of whoever runs a dialog system.

Both get the same JSON object, in UTF-8: ``text`` (what was written last), ``signs`` (what was seen
in it), ``messages`` (the conversation up to there) and ``time``. A command reads it from its
standard input, and no shell is in between. To a URL it is sent by POST; an answer of 2xx is taken
for yes, and no redirection is followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from augesc_builder.errors import HandOverError
from augesc_builder.text.prompts import Message

SECONDS = 10.0
"""How long a command or a server has before the conversation goes on without it."""


class HandOver(Protocol):
    """Whoever is told of danger."""

    @property
    def name(self) -> str:
        """What the person who writes is told of it: no secrets of whoever runs the program."""

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Hand a report over.

        Raises :class:`~augesc_builder.errors.HandOverError` where that fails.
        """


def danger_report(text: str, signs: Sequence[str], messages: Sequence[Message]) -> dict[str, Any]:
    """Return what is handed over."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "signs": list(signs),
        "text": text,
        "messages": [dict(message) for message in messages],
    }


def hand_over_to(target: str, seconds: float = SECONDS) -> HandOver:
    """Return the hand-over to a command line, or to a URL where it begins with http(s)://.

    Raises :class:`~augesc_builder.errors.HandOverError` where there is no such program or host:
    better now than when it is needed.
    """
    if target.lower().startswith(("http://", "https://")):
        return UrlHandOver(target, seconds)
    return CommandHandOver(target, seconds)


class CommandHandOver:
    """Starts a program for each report, which reads it from its standard input."""

    def __init__(self, command: str, seconds: float = SECONDS) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise HandOverError(f"--on-danger {command}: {str(error).lower()}") from None
        if not self._words or "\0" in command or shutil.which(self._words[0]) is None:
            raise HandOverError(
                f"--on-danger {command}: no such program; give one with its arguments, or a URL"
            )
        self._seconds = seconds

    @property
    def name(self) -> str:
        """The program's name."""
        return Path(self._words[0]).name

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Run the program; anything but exit code 0 is a failure."""
        try:
            process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what it starts itself is ended with it
            )
        except OSError as error:
            raise HandOverError(f"{self.name}: {error.strerror}") from None
        try:
            process.communicate(_as_json(report), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            raise HandOverError(f"{self.name}: not done after {self._seconds:g} s") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            raise HandOverError(f"{self.name}: exit code {process.returncode}")


class UrlHandOver:
    """Posts each report to a URL."""

    def __init__(self, url: str, seconds: float = SECONDS) -> None:
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        if not host or not url.isprintable() or " " in url:
            raise HandOverError(f"--on-danger {url}: not a URL with a host")
        self._url, self._seconds, self.name = url, seconds, host

    def __call__(self, report: Mapping[str, Any]) -> None:
        """Post; the whole exchange, and not each of its steps, has so many seconds."""
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(
            target=lambda: answers.put(self._post(_as_json(report))), daemon=True
        ).start()
        try:
            failure = answers.get(timeout=self._seconds)
        except queue.Empty:
            failure = f"no answer after {self._seconds:g} s"
        if failure:
            raise HandOverError(f"{self.name}: {failure}")

    def _post(self, body: bytes) -> str:
        """Post, and return what went wrong, if anything did."""
        request = Request(  # http and https only: see hand_over_to
            self._url, body, {"Content-Type": "application/json"}
        )
        try:
            with build_opener(_NoRedirect).open(request, timeout=self._seconds):
                return ""
        except HTTPError as error:
            return f"its answer was {error.code}"
        except URLError as error:
            return str(error.reason)
        except (OSError, HTTPException, ValueError) as error:  # not HTTP, or half of it
            return str(error) or type(error).__name__


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirection: a POST would become a GET that carries nothing."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return no request, which makes the answer an error."""


def _as_json(report: Mapping[str, Any]) -> bytes:
    text = json.dumps(report, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace")
