"""A real S3 server on loopback, moto's or Ceph's, that fails as stores do where it is told to.

``python -m tests.s3_server KIND`` is a process of its own. What it is to do wrong is put at
``/_faults`` as JSON, see :data:`FAULTS`. Before Ceph's it stands as a proxy.
"""

from __future__ import annotations

import contextlib
import http.client
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

from tests.ceph_server import Ceph
from tests.conftest import ROOT

FAULTS = {"errors": 0.0, "lost": 0.0, "dropped": 0.0, "slow": 0.0, "strip": False}
"""Shares of requests that are answered 500 before, or after they are carried out; whose connection
is cut; seconds that each may take; ``strip``: conditions are not heard."""

BUCKET = "bucket"

_KEY, _SECRET = "key", "secret"

_OF_A_CONNECTION = {"connection", "transfer-encoding", "keep-alive", "expect"}
"""Headers that are not passed on."""


class S3Server:
    """A server in another process, and what clients of it need in their environment."""

    def __init__(self, kind: str = "moto") -> None:
        self.kind = kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3_server", kind],
            stdin=subprocess.PIPE,  # ends it as it is closed, however we end
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.env = {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._make_bucket()

    def fails(self, **faults: Any) -> None:
        """Do wrong what is named, and nothing else."""
        body = json.dumps({**FAULTS, **faults}).encode()
        request = urllib.request.Request(f"{self.url}/_faults", data=body, method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _make_bucket(self) -> None:
        from botocore.session import get_session

        client = get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=_KEY,
            aws_secret_access_key=_SECRET,
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()


class _Failing:
    """WSGI around the server."""

    def __init__(self, app: Any, turn: contextlib.AbstractContextManager[Any]) -> None:
        self._app, self._faults = app, dict(FAULTS)
        self._draw, self._turn = random.Random(7), turn

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
        with self._turn:
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


class _PassedOn:
    """WSGI that asks another server, with the same words, for those are signed."""

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")

    def __call__(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        names = {name[5:].replace("_", "-"): name for name in environ if name[:5] == "HTTP_"}
        names["Content-Type"], names["Content-Length"] = "CONTENT_TYPE", "CONTENT_LENGTH"
        connection = http.client.HTTPConnection(self._host, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(
                environ["REQUEST_METHOD"],
                environ["RAW_URI"],
                skip_host=True,
                skip_accept_encoding=True,
            )
            for name, key in names.items():
                if environ.get(key) and name.lower() not in _OF_A_CONNECTION:
                    connection.putheader(name, environ[key])
            length = int(environ.get("CONTENT_LENGTH") or 0)
            connection.endheaders(environ["wsgi.input"].read(length) if length else None)
            answer = connection.getresponse()
            body = answer.read()
        headers = [each for each in answer.getheaders() if each[0].lower() not in _OF_A_CONNECTION]
        start(f"{answer.status} {answer.reason}", headers)
        return [body]


def _serve(kind: str) -> None:
    from werkzeug.serving import make_server

    ceph = Ceph(_KEY, _SECRET) if kind == "ceph" else None
    if ceph is not None:
        app = _Failing(_PassedOn(ceph.url), contextlib.nullcontext())
    else:
        from moto.server import DomainDispatcherApplication, create_backend_app

        # S3 decides one after the other; moto looks, and then writes.
        app = _Failing(DomainDispatcherApplication(create_backend_app), threading.Lock())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    if ceph is not None:
        ceph.close()
    os._exit(0)


@contextlib.contextmanager
def served(kind: str = "moto") -> Iterator[S3Server]:
    """Yield a server."""
    server = S3Server(kind)
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
