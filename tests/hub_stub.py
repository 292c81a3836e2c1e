"""A Hub on loopback: the few endpoints that the real clients call to read and to write a repo.

Large files go through LFS, and those of clients that speak Xet through a store of chunks. Faults
can be put in the way of any request.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.xet_store import XetStore

LARGE = (".parquet", ".png", ".safetensors", ".bin", ".gguf")
"""What the Hub keeps as LFS objects."""

ROLES = {"hf_write": "write", "hf_read": "read"}
"""The tokens that the stub knows; all are of the user ``someone``."""


@dataclass
class Fault:
    """What happens to requests of ``method`` whose path matches: ``times`` times, then no more.

    ``how``: an HTTP status, ``drop`` (the connection closes without an answer), ``corrupt`` (a
    byte of what is sent, or received, is another), ``lose the answer`` (done, but not answered), or
    ``let somebody else push`` (a commit comes in between).
    """

    method: str
    path: str
    how: int | str
    times: int = 1


class HubStub(ThreadingHTTPServer):
    """Serves ``root/models/ORG/NAME`` and ``root/datasets/ORG/NAME``, the newest commit of each."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.commits: dict[str, int] = {}
        self.messages: list[str] = []
        self.private: dict[str, bool] = {}
        self.gated: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        self.xet = XetStore()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no error of ours."""

    def head(self, repo: str) -> str:
        return commit_of(repo, self.commits.get(repo, 0))

    def resolve(self, repo: str, revision: str) -> str:
        """Return the commit of a revision; any commit asked for is taken for the newest."""
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else self.head(repo)

    def forget(self) -> None:
        """Be a Hub without repos again; Xet's chunks stay, since its clients know of them."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        for state in (
            *(self.commits, self.messages, self.private, self.gated, self.tags),
            *(self.objects, self.faults, self.requests),
        ):
            state.clear()

    def files(self, kind: str, repo: str) -> dict[str, bytes]:
        folder = self.root / kind / repo
        files = (p for p in sorted(folder.rglob("*")) if p.is_file())
        return {str(p.relative_to(folder)): p.read_bytes() for p in files}

    def fault(self, method: str, path: str) -> int | str | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.how
        return None


def commit_of(repo: str, n: int = 0) -> str:
    return hashlib.sha1(f"{repo}{n or ''}".encode()).hexdigest()


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


KINDS, REPO = "(?:(models|datasets)/)?", "([^/]+/[^/]+)"
REVISION = "(refs/[^/]+/[^/]+|[^/]+)"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStub

    def do_HEAD(self):
        self._handle("HEAD")

    def do_GET(self):
        self._handle("GET")

    def do_POST(self):
        self._handle("POST")

    def do_PUT(self):
        self._handle("PUT")

    def log_message(self, *_):
        pass

    def _handle(self, method: str) -> None:
        path = self.path.split("?")[0].replace("%2F", "/")
        self.server.requests.append(path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.method, self.corrupt, self.lose = method, False, False
        how = self.server.fault(method, path)
        if how == "drop":
            self.close_connection = True
            self.connection.close()
        elif isinstance(how, int):
            self._send(how, b'{"error": "injected"}', {"Retry-After": "0"})
        else:
            self.corrupt, self.lose = how == "corrupt", how == "lose the answer"
            if how == "let somebody else push":
                repo = re.search(rf"/api/{KINDS}{REPO}/", path)[2]
                self.server.commits[repo] = self.server.commits.get(repo, 0) + 1
            (self._write if method in {"POST", "PUT"} else self._read)(path)

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, path: str) -> None:
        if path == "/api/whoami-v2":
            self._whoami()
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/xet-(read|write)-token/(.+)", path):
            self._xet_token(found[3])
        elif path.startswith("/xet/"):
            self._xet_read(path.removeprefix("/xet"))
        elif path == "/api/models":
            self._models()
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/revision/(.+)", path):
            self._info(found[1] or "models", found[2], found[3])
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/tree/{REVISION}/?(.*)", path):
            self._tree(found[1] or "models", found[2], found[4])
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/refs", path):
            self._refs(found[2])
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}", path):
            self._info(found[1] or "models", found[2], "main")
        elif found := re.fullmatch(rf"/{KINDS}{REPO}/resolve/{REVISION}/(.+)", path):
            commit = self.server.resolve(found[2], found[3])
            self._file(found[1] or "models", found[2], commit, found[4])
        else:
            self._missing("RepoNotFound")

    def _whoami(self) -> None:
        role = ROLES.get(self._token())
        if role is None:
            self._send(401, b'{"error": "Invalid credentials"}', {})
            return
        token = {"displayName": "test", "role": role}
        me = {"type": "user", "name": "someone", "orgs": [], "auth": {"accessToken": token}}
        self._json(me)

    def _models(self) -> None:
        """List the models of the owner that is asked for."""
        (owner,) = re.findall(r"[?&]author=([^&]+)", self.path)
        folder = self.server.root / "models" / owner
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        self._json([{"_id": "0" * 24, "id": f"{owner}/{name}"} for name in names])

    def _info(self, kind: str, repo: str, revision: str) -> None:
        if not (self.server.root / kind / repo).is_dir():
            self._missing("RepoNotFound")
            return
        self._json(
            {
                "_id": "0" * 24,
                "id": repo,
                "sha": self.server.resolve(repo, revision),
                "private": self.server.private.get(repo, False),
                "gated": self.server.gated.get(repo, False),
                "siblings": [{"rfilename": name} for name in self.server.files(kind, repo)],
            }
        )

    def _refs(self, repo: str) -> None:
        def refs(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
            return [
                {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
                for name, commit in found.items()
            ]

        branches = refs("heads", {"main": self.server.head(repo)})
        tags = refs("tags", self.server.tags.get(repo, {}))
        self._json({"branches": branches, "converts": [], "tags": tags})

    def _entries(self, kind: str, repo: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, data in self.server.files(kind, repo).items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
            found.append(entry)
        folders = {str(p) for e in found for p in list(Path(e["path"]).parents)[:-1]}
        return [*found, *({"type": "directory", "path": f, "oid": "0" * 40} for f in folders)]

    def _tree(self, kind: str, repo: str, below: str) -> None:
        if not (self.server.root / kind / repo).is_dir():
            self._missing("RepoNotFound")
            return
        deep = "recursive=true" in self.path.lower()
        prefix = f"{below}/" if below else ""
        inside = [e for e in self._entries(kind, repo) if e["path"].startswith(prefix)]
        if below and not inside:
            self._missing("EntryNotFound")
            return
        self._json([e for e in inside if deep or "/" not in e["path"][len(prefix) :]])

    def _file(self, kind: str, repo: str, commit: str, name: str) -> None:
        data = self.server.files(kind, repo).get(name)
        if data is None:
            exists = (self.server.root / kind / repo).is_dir()
            self._missing("EntryNotFound" if exists else "RepoNotFound")
            return
        etag = _sha256(data) if name.endswith(LARGE) else _git(data)
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        if self.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        if etag in self.server.xet.names:
            kind_of = f"{self.server.url}/api/{kind}/{repo}/xet-read-token/{commit}"
            headers["X-Xet-Hash"] = self.server.xet.names[etag]
            headers["Link"] = f'<{kind_of}>; rel="xet-auth"'
        self._send(*self._ranged(data, headers))

    def _ranged(self, data: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Give what is to be sent of some data: all, or the range that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return 200, data, headers
        start, end = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
        where = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return 206, data[start : end + 1], headers | where

    # -- writing ---------------------------------------------------------------------------------

    def _write(self, path: str) -> None:  # noqa: PLR0912 - an endpoint each
        if found := re.fullmatch(rf"/api/{KINDS}{REPO}/paths-info/(.+)", path):
            wanted = re.findall(r"paths=([^&]+)", self.body.decode()) or (
                json.loads(self.body)["paths"] if self.body.startswith(b"{") else []
            )
            wanted = [name.replace("%2F", "/") for name in wanted]
            entries = self._entries(found[1] or "models", found[2])
            self._json([entry for entry in entries if entry["path"] in wanted])
        elif path.startswith("/xet/"):
            self._xet_write(path.removeprefix("/xet"))
        elif path == "/api/validate-yaml":
            self._validate()
        elif found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            data = bytes([self.body[0] ^ 1]) + self.body[1:] if self.corrupt else self.body
            self.server.objects[found[1]] = data
            self._send(200, b"", {})
        elif ROLES.get(self._token()) != "write":
            self._send(403, b'{"error": "You don\'t have the rights"}', {})
        elif path == "/api/repos/create":
            self._create()
        elif found := re.fullmatch(rf"/{KINDS}{REPO}\.git/info/lfs/objects/batch", path):
            self._batch()
        elif path == "/lfs-verify":
            self._verify()
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/settings", path):
            self.server.gated[found[2]] = json.loads(self.body)["gated"]
            self._json({})
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/tag/(.+)", path):
            self._tag(found[2], found[3])
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/preupload/(.+)", path):
            files = self.server.files(found[1] or "models", found[2])
            self._json({"files": [_mode(f["path"], files) for f in json.loads(self.body)["files"]]})
        elif found := re.fullmatch(rf"/api/{KINDS}{REPO}/commit/(.+)", path):
            with self.server.lock:
                self._commit(found[1] or "models", found[2])
        else:
            self._missing("RepoNotFound")

    def _create(self) -> None:
        given = json.loads(self.body)
        repo = f"{given.get('organization') or 'someone'}/{given['name']}"
        folder = self.server.root / f"{given.get('type', 'model')}s" / repo
        url = {"url": f"{self.server.url}/{given.get('type', 'model')}s/{repo}"}
        if folder.is_dir():
            self._send(409, json.dumps({"error": "exists", **url}).encode(), {})
            return
        folder.mkdir(parents=True)
        self.server.private[repo] = given.get("private") or given.get("visibility") == "private"
        self._json(url)

    def _tag(self, repo: str, revision: str) -> None:
        tags, name = self.server.tags.setdefault(repo, {}), json.loads(self.body)["tag"]
        if name in tags:
            self._send(409, b'{"error": "Tag reference exists already"}', {})
            return
        tags[name] = self.server.resolve(repo, revision)
        self._json({})

    def _validate(self) -> None:
        text = json.loads(self.body)["content"]
        errors = []
        try:
            if not isinstance(yaml.safe_load(text.split("---")[1]), dict):
                errors.append({"message": "the metadata must be keys and values"})
        except (IndexError, yaml.YAMLError) as error:
            errors.append({"message": str(error)})
        self._send(
            400 if errors else 200, json.dumps({"errors": errors, "warnings": []}).encode(), {}
        )

    def _batch(self) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid = wanted["oid"]
            entry = dict(wanted)
            if oid not in self.server.objects:
                upload = {"href": f"{self.server.url}/lfs/{oid}", "header": {}}
                verify = {"href": f"{self.server.url}/lfs-verify", "header": {}}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def _verify(self) -> None:
        oid = json.loads(self.body)["oid"]
        if _sha256(self.server.objects.get(oid, b"")) == oid:
            self._json({})
            return
        self.server.objects.pop(oid, None)
        self._send(422, b'{"error": "the checksum is another"}', {})

    def _commit(self, kind: str, repo: str) -> None:
        header, *operations = (json.loads(line) for line in self.body.splitlines() if line)
        head = self.server.head(repo)
        if header["value"].get("parentCommit") not in {None, head}:
            self._send(412, b'{"error": "A commit has happened since"}', {})
            return
        folder = self.server.root / kind / repo
        for operation in operations:
            value = operation["value"]
            path = folder / value["path"]
            if operation["key"] == "deletedFile":
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if operation["key"] == "lfsFile":
                path.write_bytes(self.server.objects[value["oid"]])
            else:
                path.write_bytes(base64.b64decode(value["content"]))
        self.server.commits[repo] = self.server.commits.get(repo, 0) + 1
        self.server.messages.append(header["value"]["summary"])
        new = self.server.head(repo)
        where = f"{self.server.url}/{'datasets/' * (kind == 'datasets')}{repo}/commit/{new}"
        self._json({"success": True, "commitOid": new, "commitUrl": where})

    # -- Xet -------------------------------------------------------------------------------------

    def _xet_token(self, what: str) -> None:
        if what == "write" and ROLES.get(self._token()) != "write":
            self._send(403, b'{"error": "You don\'t have the rights"}', {})
            return
        url, end = f"{self.server.url}/xet", 4_000_000_000
        headers = {
            "X-Xet-Cas-Url": url,
            "X-Xet-Access-Token": f"xet-{what}",
            "X-Xet-Token-Expiration": str(end),
        }
        found = {"casUrl": url, "accessToken": f"xet-{what}", "exp": end}
        self._send(200, json.dumps(found).encode(), headers)

    def _xet_read(self, path: str) -> None:
        if found := re.fullmatch(r"/v1/reconstructions/([0-9a-f]{64})", path):
            if found[1] in self.server.xet.files:
                xorbs = f"{self.server.url}/xet/xorbs"
                self._json(self.server.xet.reconstruction(found[1], xorbs))
                return
        elif found := re.fullmatch(r"/xorbs/([0-9a-f]{64})", path):
            data = self.server.xet.xorbs[found[1]]
            self._send(*self._ranged(data, {}))
            return
        self._missing("EntryNotFound")

    def _xet_write(self, path: str) -> None:
        with self.server.lock:
            if self._token() != "xet-write":
                self._send(403, b'{"error": "a token to write is wanted"}', {})
            elif found := re.fullmatch(r"/v1/xorbs/default/([0-9a-f]{64})", path):
                self.server.xet.xorbs[found[1]] = self.body
                self._json({"was_inserted": True})
            elif re.fullmatch(r"(/v1)?/shards?", path):
                self.server.objects.update(self.server.xet.add_shard(self.body))
                self._json({"result": 1})
            else:
                self._missing("EntryNotFound")

    # -- answering -------------------------------------------------------------------------------

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _missing(self, code: str) -> None:
        self._send(404, b'{"error": "not found"}', {"X-Error-Code": code})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        if self.lose:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.method != "HEAD":
            self.wfile.write(data)


def _mode(path: str, files: dict[str, bytes]) -> dict[str, Any]:
    large = path.endswith(LARGE)
    mode: dict[str, Any] = {"path": path, "uploadMode": "lfs" if large else "regular"}
    mode["shouldIgnore"] = False
    if path in files:
        mode["oid"] = (_sha256 if large else _git)(files[path])
    return mode


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
