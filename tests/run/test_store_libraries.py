"""What libraries of stores do each in its own way: the Hub's remembers, Google's says little."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from huggingface_hub import hf_file_system

from augesc_builder.errors import StoreError
from augesc_builder.run.store import Store

ADDRESS = "hf://buckets/me/bucket/run"


class Hub:
    """What the library asks the Hub for, of a bucket in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def bucket_info(self, bucket):
        assert bucket == "me/bucket"

    def list_bucket_tree(self, _bucket, prefix=None, recursive=False):
        for path, held in sorted(self.files.items()):
            if not prefix or path == prefix or path.startswith(f"{prefix}/"):
                facts = {"type": "file", "path": path, "size": len(held), "xetHash": held.hex()}
                yield hf_file_system.BucketFile(**facts)

    def batch_bucket_files(self, _bucket, add=(), delete=(), copy=()):
        time.sleep(0.05)  # the way there
        for content, path in add:
            self.files[path] = Path(content).read_bytes()
        for path in delete:
            self.files.pop(path, None)
        for *_, digest, path in copy:
            self.files[path] = bytes.fromhex(digest)


@pytest.fixture
def hub(monkeypatch):
    found = Hub()

    def read(self, path, *_, **__):
        self.info(path)
        return found.files[path.removeprefix("buckets/me/bucket/")]

    monkeypatch.setattr(hf_file_system, "HfApi", lambda **_: found)
    monkeypatch.setattr(hf_file_system.HfFileSystem, "cat_file", read)
    return found


def test_what_others_write_on_the_hub_is_seen(hub):
    store = Store(ADDRESS)
    store.put("a/first", b"1")
    assert store.exists("a/first")
    assert [each.key for each in store.list("a")] == ["a/first"]
    # another machine
    hub.files |= {"run/a/second": b"2", "run/a/first": b"new"}
    assert store.exists("a/second")
    assert store.info("a/first").bytes == 3
    assert store.read("a/second") == b"2"
    assert [each.key for each in store.list("a", deep=True)] == ["a/first", "a/second"]
    del hub.files["run/a/first"]
    assert not store.exists("a/first")
    assert store.read("a/first") is None
    assert [each.key for each in store.list("a")] == ["a/second"]
    assert store.copy("a/second", "b")
    store.delete("a/second")
    assert [each.key for each in store.list("", deep=True)] == ["b"]


def test_threads_do_not_forget_what_another_one_reads(hub, monkeypatch):
    monkeypatch.setattr("augesc_builder.run.store.random.uniform", None)  # no try but the first
    store = Store(ADDRESS)
    hub.files |= {f"run/{n}": b"1" for n in range(10)}
    missed: list[object] = []

    def look() -> None:
        try:
            missed.extend(n for n in range(10) for _ in range(10) if not store.exists(f"{n}"))
        except Exception as error:
            missed.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    every = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(every)
    assert missed == []


def test_the_hub_has_no_conditional_put(hub):
    assert not Store(ADDRESS).creates_once("probe")
    assert hub.files == {}


@pytest.mark.parametrize(
    "error",
    [
        OSError("Forbidden: b/bucket\nno rights"),
        PermissionError("no"),
        type("HttpError", (Exception,), {"code": 401})("Invalid Credentials"),
        type("HfHubHTTPError", (OSError,), {"response": SimpleNamespace(status_code=403)})("no"),
    ],
)
def test_what_is_not_allowed_is_said_at_once(monkeypatch, error):
    asked = []

    def info(self, path):
        asked.append(path)
        raise error

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", info)
    with pytest.raises(StoreError, match="not allowed"):
        Store("memory://bucket/run").exists("a")
    assert len(asked) == 1
