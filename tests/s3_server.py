"""A real S3 server on loopback, moto's, that fails as stores do where it is told to.

``python -m tests.s3_server`` is a process of its own. What it is to do wrong is put at ``/_faults``
as JSON, see :data:`FAULTS`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.conftest import ROOT

FAULTS = {"errors": 0.0, "lost": 0.0, "dropped": 0.0, "slow": 0.0, "strip": False}
"""Shares of requests that are answered 500 before, or after they are carried out; whose connection
is cut; seconds that each may take; ``strip``: conditions are not heard."""

BUCKET = "bucket"


class S3Server:
    """A server in another process, and what clients of it need in their environment."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3_server"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.env = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._put(f"/{BUCKET}", b"")

    def fails(self, **faults: Any) -> None:
        """Do wrong what is named, and nothing else."""
        self._put("/_faults", json.dumps({**FAULTS, **faults}).encode())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _put(self, path: str, body: bytes) -> None:
        request = urllib.request.Request(f"{self.url}{path}", data=body, method="PUT")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=key/1/us-east-1/s3/")
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


class _Failing:
    """WSGI around the server."""

    def __init__(self, app: Any) -> None:
        self._app, self._faults = app, dict(FAULTS)
        self._draw, self._lock = random.Random(7), threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        if environ["PATH_INFO"] == "/_faults":
            length = int(environ["CONTENT_LENGTH"])
            self._faults = json.loads(environ["wsgi.input"].read(length))
            start("200 OK", [("Content-Length", "0")])
            return [b""]
        faults = self._faults
        drawn, slow = self._draw.random(), self._draw.random() * faults["slow"]
        time.sleep(slow)
        if drawn < faults["errors"]:
            # A body that is not read would be taken for the next request.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _error(environ, start)
        if drawn < faults["errors"] + faults["dropped"]:
            with contextlib.suppress(OSError):
                environ["werkzeug.socket"].shutdown(2)
            raise ConnectionAbortedError
        if faults["strip"]:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self._lock:  # S3 decides one after the other; moto looks, and then writes
            if drawn > 1 - faults["lost"]:
                b"".join(self._app(environ, lambda *_: lambda _: None))
                return _error(environ, start)
            return list(self._app(environ, start))


def _error(environ: dict[str, Any], start: Any) -> list[bytes]:
    text = b"<Error><Code>InternalError</Code><Message>We had a problem.</Message></Error>"
    if environ["REQUEST_METHOD"] == "HEAD":
        text = b""
    start(
        "500 Internal Server Error",
        [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))],
    )
    return [text]


def _serve() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = _Failing(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    server.serve_forever()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


@contextlib.contextmanager
def served() -> Iterator[S3Server]:
    """Yield a server."""
    server = S3Server()
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    _serve()
