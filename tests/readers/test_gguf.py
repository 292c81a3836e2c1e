"""The header of a GGUF file that a stranger wrote."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import CheckpointError, MissingExtraError
from augesc_builder.readers import gguf as reader
from augesc_builder.readers.gguf import read_header
from tests.gguf_files import write_gguf

pytest.importorskip("gguf")

STRING, ARRAY, UINT8, UINT32 = 8, 9, 0, 4
MUCH = 1 << 60


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


ARCHITECTURE = key("general.architecture", STRING, text("llama"))


def header(*keys: bytes, tensors: bytes = b"", n_tensors: int = 0, version: int = 3, **counts: int):
    n_keys = counts.get("n_keys", len(keys))
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys) + tensors


def tensor(*dimensions: int, name: str = "t", kind: int = 0, offset: int = 0) -> bytes:
    n = len(dimensions)
    return text(name) + struct.pack(f"<I{n}QIQ", n, *dimensions, kind, offset)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path)


def test_what_a_header_says(whole):
    path, model = whole
    found = read_header(path)
    assert found.architecture == "llama"
    assert found.n_tensors == len(model.state_dict()) - 1  # the last is tied to the first
    assert found.n_values == sum(parameter.numel() for parameter in model.parameters())


def test_a_file_that_is_cut_anywhere_is_told_as_such(whole, tmp_path):
    raw = whole[0].read_bytes()
    short = tmp_path / "short.gguf"
    for n in [*range(8, 4000, 97), *range(4000, len(raw), 9973), len(raw) - 1]:
        short.write_bytes(raw[:n])
        with pytest.raises(CheckpointError, match=r"short\.gguf is cut short.*again"):
            read_header(short)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin with GGUF"),
        (b"GG", "does not begin with GGUF"),
        (b"\x80\x02}q\x00.", "does not begin with GGUF"),
        (header(ARCHITECTURE, version=1), "version 1, and 2 and 3"),
        (header(ARCHITECTURE, version=3 << 24), "version 50331648"),  # written the other way round
        (header(), "does not name its architecture"),
        (header(key("general.architecture", UINT32, b"\0" * 4)), "does not name its architecture"),
        (header(ARCHITECTURE, n_keys=MUCH), f"{MUCH:,} keys"),
        (header(ARCHITECTURE, n_tensors=MUCH), f"{MUCH:,} tensors"),
        (header(ARCHITECTURE, n_keys=2), "cut short in its header"),
        (header(struct.pack("<Q", MUCH)), f"{MUCH:,} bytes of a text"),
        (header(struct.pack("<Q", 1 << 20)), "cut short in its header"),
        (
            header(key("k", ARRAY, struct.pack("<IQ", UINT8, MUCH))),
            f"{MUCH:,} entries of an array",
        ),
        (header(key("k", ARRAY, struct.pack("<IQ", UINT8, 1 << 22))), "cut short in its header"),
        (header(key("k", ARRAY, struct.pack("<IQ", ARRAY, 1))), "array of type 9"),
        (header(key("k", ARRAY, struct.pack("<IQ", 77, 1))), "array of type 77"),
        (header(key("k", 77, b"")), "value of type 77"),
        (header(ARCHITECTURE, key("general.alignment", UINT32, b"\0" * 4)), "alignment of 0"),
        (header(ARCHITECTURE, key("general.alignment", STRING, text("a"))), "alignment of 'a'"),
        (header(ARCHITECTURE, n_tensors=1, tensors=tensor(2, 2, 2, 2, 2)), "of 5 dimensions"),
        (header(ARCHITECTURE, n_tensors=1, tensors=tensor(2, kind=9999)), "type 9999"),
        (header(ARCHITECTURE, n_tensors=1, tensors=tensor(MUCH, MUCH)), "tensors end at byte"),
        (header(ARCHITECTURE, n_tensors=1, tensors=tensor(1, offset=MUCH)), "tensors end at byte"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_cannot_be_is_one_line(content, says, tmp_path):
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=says) as told:
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("odd.gguf ")


def test_names_of_strangers_command_no_terminal(tmp_path):
    path = tmp_path / "odd.gguf"
    name = "\x1b]0;mine\x07\u202e"
    path.write_bytes(header(ARCHITECTURE, n_tensors=1, tensors=tensor(2, name=name, kind=9999)))
    with pytest.raises(CheckpointError, match=r"'\\x1b]0;mine\\x07\\u202e'"):
        read_header(path)


@given(st.data())
def test_a_damaged_file_is_read_or_refused(whole, data):
    raw = bytearray(whole[0].read_bytes()[:12_000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    path = whole[0].with_name("damaged.gguf")
    path.write_bytes(raw)
    with pytest.raises(CheckpointError):  # whatever else: it is cut short
        read_header(path)


def test_without_the_package_the_command_is_named(whole, monkeypatch):
    monkeypatch.setattr(reader, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps gguf==0\.19\.0$"):
        read_header(whole[0])


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path)
