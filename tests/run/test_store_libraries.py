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
from augesc_builder.run.copies import folder_of, place_of
from augesc_builder.run.store import Store, is_address
from augesc_builder.run.store_words import options

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


def answered(code):
    """An error that says by HTTP what a store answered."""
    return type("HttpError", (Exception,), {"code": code})(f"answered {code}")


@pytest.fixture
def failing(monkeypatch):
    """Let looks and creations fail with an error; what was asked, and waited for, comes back."""
    asked, waited = [], []

    def fail_with(error):
        def fail(self, path, *_, **__):
            asked.append(path)
            raise error

        for name in ("info", "pipe_file"):
            monkeypatch.setattr(type(fsspec.filesystem("memory")), name, fail)
        monkeypatch.setattr("augesc_builder.run.store.time.sleep", waited.append)
        return asked, waited

    return fail_with


@pytest.mark.parametrize(
    "error",
    [
        OSError("Forbidden: b/bucket\nno rights"),
        PermissionError("no"),
        type("HttpError", (Exception,), {"code": 401})("invalid"),
        type("HfHubHTTPError", (OSError,), {"response": SimpleNamespace(status_code=403)})("no"),
    ],
)
def test_what_is_not_allowed_is_said_at_once(failing, error):
    asked, _ = failing(error)
    with pytest.raises(StoreError, match="not allowed"):
        Store("memory://bucket/run").exists("a")
    assert len(asked) == 1


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503, None])
def test_what_passes_is_tried_again_for_half_a_minute(failing, code):
    asked, waited = failing(answered(code) if code else ConnectionError("dropped"))
    with pytest.raises(StoreError, match="no good answer in 9 tries"):
        Store("memory://bucket/run").exists("a")
    assert len(asked) == 9
    assert len(waited) == 8
    assert 10 < sum(waited) < 40
    assert max(waited[:2]) < min(waited[-2:]) <= 10


@pytest.mark.parametrize("code", [400, 404, 410, 499])
def test_what_does_not_pass_is_said_at_once(failing, code):
    asked, _ = failing(answered(code))
    with pytest.raises(StoreError, match="check the address"):
        Store("memory://bucket/run").exists("a")
    assert len(asked) == 1


def test_whose_mark_is_second_is_told_by_a_code_too(failing, monkeypatch):
    failing(answered(412))
    monkeypatch.setattr(Store, "read", lambda *_: b"theirs")
    assert not Store("memory://bucket/run").create("a", b"mine")


def test_what_a_worker_says_of_itself_waits_for_nothing(failing, monkeypatch, tmp_path):
    monkeypatch.setenv("AUGESC_WORK", str(tmp_path))
    run = folder_of("memory://bucket/run")
    word = run / ".workers" / "a.json"
    word.parent.mkdir()
    word.write_text("{}")
    asked, waited = failing(answered(500))
    place_of(run).tell(word, at_once=True)
    assert (len(asked), waited) == (1, [])


def test_only_an_address_is_one():
    assert is_address("s3://bucket/run")
    assert not any(map(is_address, ["corpus", "/corpus", "file:///corpus"]))


def test_the_library_of_s3_gives_up_early_for_we_try_again():
    assert options("s3")["config_kwargs"]["retries"]["total_max_attempts"] == 2
    assert options("gs") == {}
