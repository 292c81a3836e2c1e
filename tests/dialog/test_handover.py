"""Telling people of danger: programs and servers that do and do not do what they should."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from augesc_builder.dialog.handover import danger_report, hand_over_to
from augesc_builder.errors import HandOverError

TEXT = "i can't; $(touch owned) `touch owned` | touch owned \u00e9\u2615\n'\""
REPORT = danger_report(TEXT, ["suicide"], [{"role": "user", "content": TEXT}])


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


class TestCommands:
    def test_it_reads_the_report_and_no_shell_does(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code = "import sys; open('got', 'wb').write(sys.stdin.buffer.read()); print(sys.argv[1:])"
        hand_over_to(python(code) + " '$(touch owned)' ; touch owned")(REPORT)
        assert json.loads((tmp_path / "got").read_bytes()) == REPORT
        assert REPORT["text"] == TEXT
        assert [p.name for p in tmp_path.iterdir()] == ["got"]

    def test_half_a_letter_is_sent_as_it_can_be(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code = "import sys; open('got', 'wb').write(sys.stdin.buffer.read())"
        hand_over_to(python(code))(danger_report("\ud800 help", [], []))
        assert json.loads((tmp_path / "got").read_bytes())["text"] == "? help"

    def test_one_that_does_not_read(self):
        hand_over_to(python("pass"))({**REPORT, "text": "x" * 1_000_000})

    def test_one_that_fails(self):
        with pytest.raises(HandOverError, match=r"^python.*: exit code 7$"):
            hand_over_to(python("raise SystemExit(7)"))(REPORT)

    def test_one_that_is_gone_when_it_is_needed(self, tmp_path):
        program = tmp_path / "tell"
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
        told = hand_over_to(str(program))
        told(REPORT)
        program.unlink()
        with pytest.raises(HandOverError, match="tell: No such file"):
            told(REPORT)

    def test_one_that_never_ends_is_ended_with_what_it_began(self, tmp_path):
        code = (
            "import subprocess, time; child = subprocess.Popen(['sleep', '600']); "
            f"open('{tmp_path / 'pid'}', 'w').write(str(child.pid)); time.sleep(600)"
        )
        with pytest.raises(HandOverError, match="not done after 5 s"):
            hand_over_to(python(code), seconds=5)(REPORT)
        state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        for _ in range(200):  # whoever adopts it reaps it when they like
            if not state.exists() or state.read_text().split()[2] == "Z":
                return
            time.sleep(0.05)
        raise AssertionError("what it began is still there")


class Server:
    """A server on loopback that answers as it is told and keeps what it got."""

    def __init__(self, status: int = 204, location: str | None = None) -> None:
        self.got: list[tuple[str, bytes]] = []
        keep = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                keep.append((self.headers["Content-Type"], self.rfile.read(length)))
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - the library's name

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/tell?key=secret"

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def listening():
    """A socket whose connections nobody answers, unless a test does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class TestUrls:
    def test_it_is_posted(self):
        with Server() as server:
            told = hand_over_to(server.url)
            told(REPORT)
            assert told.name == "127.0.0.1"  # no secrets of whoever runs the program
        ((kind, body),) = server.got
        assert kind == "application/json"
        assert json.loads(body) == REPORT

    @pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
    def test_an_answer_that_is_no_yes(self, status):
        with (
            Server(status) as server,
            pytest.raises(HandOverError, match=rf"^127.0.0.1: its answer was {status}$"),
        ):
            hand_over_to(server.url)(REPORT)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirection_is_no_yes_and_is_not_followed(self, status):
        with Server() as other, Server(status, other.url) as server:
            with pytest.raises(HandOverError, match=f"its answer was {status}"):
                hand_over_to(server.url)(REPORT)
            assert not other.got

    def test_a_server_that_accepts_and_never_answers(self, listening):
        with pytest.raises(HandOverError, match=r"no answer after 0\.3 s|timed out"):
            hand_over_to(listening[1], seconds=0.3)(REPORT)

    def test_a_server_that_answers_a_letter_at_a_time(self, listening):
        """No single step takes long; the whole never ends."""
        server, url = listening

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    for c in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000:
                        connection.sendall(bytes([c]))
                        time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(HandOverError, match=r"no answer after 0\.5 s"):
            hand_over_to(url, seconds=0.5)(REPORT)

    @pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n"])
    def test_what_is_not_http(self, listening, answer):
        server, url = listening

        def answering() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        threading.Thread(target=answering, daemon=True).start()
        with pytest.raises(HandOverError, match=r"^127\.0\.0\.1: "):
            hand_over_to(url)(REPORT)

    def test_nobody_there(self, listening):
        server, url = listening
        server.close()
        with pytest.raises(HandOverError, match="refused"):
            hand_over_to(url)(REPORT)


@pytest.mark.parametrize(
    "target",
    ["", " ", "'", "no-such-program-of-that-name", "a\0b", "http://", "https:///x", "http://["],
)
def test_what_cannot_work_is_refused_at_once(target):
    with pytest.raises(HandOverError, match="--on-danger"):
        hand_over_to(target)
