"""The header of a GGUF file, checked before a library believes it.

A GGUF holds keys with values (settings, a tokenizer), a table of tensors and the tensors. Its
counts and lengths come from whoever wrote it: read as they stand, one of 2**60 fills the memory.
All of them are checked here against what the file holds, and the tensors against where it ends, so
that a download that was cut short is told as such.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from augesc_builder.errors import CheckpointError, MissingExtraError
from augesc_builder.readers.packages import pip_line

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", start=10))
_STRING, _ARRAY = 8, 9
"""Types of values, by their numbers in the format."""

_LONGEST_ARRAY = 1 << 22
"""The largest vocabularies have some 300,000 tokens, and twice as many merges."""

_LONGEST_TEXT = 1 << 22
_MOST = 1 << 13
"""Keys, or tensors; a model of hundreds of billion parameters has some 2,000."""

_MOST_DIMENSIONS = 4
_ALIGNMENT = 32
"""Bytes to which the tensors are aligned where no key says so."""


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself: its architecture, and how much it holds."""

    architecture: str
    n_tensors: int
    n_values: int


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a file that is none, that is cut
    short, or whose counts cannot be, and where its tensors are of a type that ``gguf`` lacks;
    :class:`~augesc_builder.errors.MissingExtraError` without that package.
    """
    if find_spec("gguf") is None:
        raise MissingExtraError(f"{path.name} is read with the package gguf: {pip_line('gguf')}")
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise CheckpointError(f"{path.name} is no GGUF file: it does not begin with GGUF")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path.name, data).header()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


class _Reader:
    """A place in the bytes of a file that moves on with everything read."""

    def __init__(self, name: str, data: mmap.mmap) -> None:
        self.name, self.data, self.at = name, data, len(_MAGIC)

    def header(self) -> Header:
        version = self._one("I")
        if version not in _VERSIONS:
            raise self._broken(f"is of GGUF version {version}, and 2 and 3 can be read")
        n_tensors = self._count(_MOST, "tensors")
        n_keys = self._count(_MOST, "keys")
        facts: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self._text()
            facts[key] = self._value(self._one("I"))
        tensors = [self._tensor() for _ in range(n_tensors)]
        architecture = facts.get("general.architecture")
        if not isinstance(architecture, str):
            raise self._broken("does not name its architecture (general.architecture)")
        alignment = facts.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise self._broken(f"has a general.alignment of {alignment!r:.40}")
        start = -(-self.at // alignment) * alignment
        end = max((start + offset + size for _, size, offset in tensors), default=start)
        if end > len(self.data):
            raise self._broken(
                f"is cut short: its tensors end at byte {end:,}, and it has {len(self.data):,}; "
                f"download or install it again"
            )
        return Header(architecture, n_tensors, sum(n for n, _, _ in tensors))

    def _tensor(self) -> tuple[int, int, int]:
        """Return the values of the next tensor of the table, its bytes, and where they begin."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name, n_dimensions = self._text(), self._one("I")
        if n_dimensions > _MOST_DIMENSIONS:
            raise self._broken(f"has a tensor {name!r:.80} of {n_dimensions:,} dimensions")
        n = math.prod(self._one("Q") for _ in range(n_dimensions))
        kind, offset = self._one("I"), self._one("Q")
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise self._broken(
                f"has a tensor {name!r:.80} of type {kind}, which the installed gguf does not know"
            ) from None
        return n, n // block * size, offset

    def _value(self, kind: int) -> Any:
        """Return the value of a key; of an array only its length."""
        if kind == _STRING:
            return self._text()
        if kind in _SCALARS:
            return self._one(_SCALARS[kind])
        if kind != _ARRAY:
            raise self._broken(f"has a value of type {kind}, which the format does not have")
        inner = self._one("I")
        n = self._count(_LONGEST_ARRAY, "entries of an array")
        if inner in _SCALARS:
            self._skip(n * struct.calcsize(f"<{_SCALARS[inner]}"))
        elif inner == _STRING:
            for _ in range(n):
                self._skip(self._count(_LONGEST_TEXT, "bytes of a text"))
        else:
            raise self._broken(f"has an array of type {inner}, which cannot be read")
        return n

    def _text(self) -> str:
        begin = self.at + 8
        self._skip(self._count(_LONGEST_TEXT, "bytes of a text"))
        return self.data[begin : self.at].decode(errors="replace")

    def _count(self, most: int, what: str) -> int:
        n = self._one("Q")
        if n > most:
            raise self._broken(f"claims {n:,} {what}, and {most:,} are the most that is believed")
        return int(n)

    def _one(self, form: str) -> Any:
        begin = self.at
        self._skip(struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{form}", self.data, begin)[0]

    def _skip(self, n: int) -> None:
        self.at += n
        if self.at > len(self.data):
            raise self._broken("is cut short in its header; download or install it again")

    def _broken(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.name} {what}")
