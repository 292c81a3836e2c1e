"""The store behind a Hub that speaks Xet: chunks of files in, files out.

What clients send is read by the published format (https://huggingface.co/docs/xet): a xorb is a
sequence of chunks, each behind a header of 8 bytes; a shard names files by the chunks that make
them. Hashes are taken for names: that a chunk has its hash is not checked, since the SHA-256 of
every whole file is.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

_RECORD = 48
_VERIFIED, _WITH_SHA256 = 1 << 31, 1 << 30


@dataclass
class XetStore:
    """Xorbs by their hashes, and the chunks of files by theirs."""

    xorbs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """The Xet hash of a file by its SHA-256."""

    def add_shard(self, shard: bytes) -> Iterator[tuple[str, bytes]]:
        """Take in the files that a shard describes; give each with its SHA-256."""
        at = _RECORD  # behind the head
        while shard[at : at + 32] != b"\xff" * 32:
            name = _name(shard[at : at + 32])
            flags, n_entries = struct.unpack_from("<II", shard, at + 32)
            at += _RECORD
            terms = []
            for _ in range(n_entries):
                xorb, (first, end) = shard[at : at + 32], struct.unpack_from("<II", shard, at + 40)
                terms.append((_name(xorb), first, end))
                at += _RECORD
            at += n_entries * _RECORD * bool(flags & _VERIFIED)
            data = b"".join(self._chunks(*term) for term in terms)
            self.files[name] = terms
            if flags & _WITH_SHA256:
                sha256 = _name(shard[at : at + 32])
                assert hashlib.sha256(data).hexdigest() == sha256
                self.names[sha256] = name
                at += _RECORD
                yield sha256, data

    def _chunks(self, xorb: str, first: int, end: int) -> bytes:
        return b"".join(_unpack(*chunk) for chunk in list(_parts(self.xorbs[xorb]))[first:end])

    def reconstruction(self, name: str, url: str) -> dict[str, Any]:
        """Say which chunks of which xorbs make a file, and where they are had."""
        terms, fetch = [], {}
        for xorb, first, end in self.files[name]:
            chunks = list(_parts(self.xorbs[xorb]))
            length = sum(len(_unpack(*chunk)) for chunk in chunks[first:end])
            terms.append(
                {"hash": xorb, "unpacked_length": length, "range": {"start": first, "end": end}}
            )
            size = sum(8 + len(packed) for _, packed, _ in chunks)
            fetch[xorb] = [
                {
                    "range": {"start": 0, "end": len(chunks)},
                    "url": f"{url}/{xorb}",
                    "url_range": {"start": 0, "end": size - 1},
                }
            ]
        return {"offset_into_first_range": 0, "terms": terms, "fetch_info": fetch}


def _parts(xorb: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the chunks of a xorb: how each is packed, its bytes, its size unpacked."""
    at = 0
    while at < len(xorb) and xorb[at] == 0:  # a footer begins with a letter
        packed = int.from_bytes(xorb[at + 1 : at + 4], "little")
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        yield xorb[at + 4], xorb[at + 8 : at + 8 + packed], size
        at += 8 + packed


def _unpack(kind: int, packed: bytes, size: int) -> bytes:
    if kind == 0:
        return packed
    data = pa.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True)
    if kind == 1:
        return data
    out, at = bytearray(size), 0  # every fourth byte stands together
    for i in range(4):
        n = len(range(i, size, 4))
        out[i::4] = data[at : at + n]
        at += n
    return bytes(out)


def _name(digest: bytes) -> str:
    """Write a hash as its text: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
