"""A Hub on loopback: the few endpoints that the real clients call to download from a repo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class HubStub(ThreadingHTTPServer):
    """Serves ``root/models/ORG/NAME`` and ``root/datasets/ORG/NAME``, each at one commit."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def commit_of(repo: str) -> str:
    return hashlib.sha1(repo.encode()).hexdigest()


@contextlib.contextmanager
def serving(root: Path) -> Iterator[HubStub]:
    server = HubStub(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStub

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].replace("%2F", "/")
        self.server.requests.append(path)
        kinds, repo = "(?:(models|datasets)/)?", "([^/]+/[^/]+)"
        if found := re.fullmatch(rf"/api/{kinds}{repo}/revision/(.+)", path):
            self._info(found[1] or "models", found[2], body=body)
        elif found := re.fullmatch(rf"/api/{kinds}{repo}/tree/(.+)", path):
            self._tree(found[1] or "models", found[2], body=body)
        elif found := re.fullmatch(rf"/api/{kinds}{repo}", path):
            self._info(found[1] or "models", found[2], body=body)
        elif found := re.fullmatch(rf"/{kinds}{repo}/resolve/(.+?)/([^/].*)", path):
            commit = commit_of(found[2])
            name = path.split(f"/resolve/{commit}/")[-1] if commit in path else found[4]
            self._file(found[1] or "models", found[2], name, body=body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _files(self, kind: str, repo: str) -> dict[str, Path]:
        folder = self.server.root / kind / repo
        return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}

    def _info(self, kind: str, repo: str, *, body: bool) -> None:
        files = self._files(kind, repo)
        if not files:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
            return
        info = {
            "_id": "0" * 24,
            "id": repo,
            "sha": commit_of(repo),
            "private": False,
            "siblings": [{"rfilename": name} for name in files],
        }
        self._send(200, json.dumps(info).encode(), {}, body=body)

    def _tree(self, kind: str, repo: str, *, body: bool) -> None:
        tree = [
            {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
            for name, path in self._files(kind, repo).items()
        ]
        self._send(200, json.dumps(tree).encode(), {}, body=body)

    def _file(self, kind: str, repo: str, name: str, *, body: bool) -> None:
        path = self._files(kind, repo).get(name)
        if path is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
            return
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": commit_of(repo)}
        self._send(200, path.read_bytes(), headers, body=body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if body:
            self.wfile.write(data)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
