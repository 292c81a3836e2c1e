"""Bytes of files, decompressed in blocks: bounded memory, an end that is checked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from augesc_builder.errors import MissingExtraError, install_extra
from augesc_builder.readers.records import MIB, Limits

_FREE = 64 * MIB
"""Decompressed bytes that any file may have, however small it is."""

_LONGEST_WINDOW = 1 << 31
"""Of zstd, as the public archives of Reddit have it."""

_PIECE = 512
"""Compressed bytes of zstd that are taken at a time. Four can stand for 128 KiB, and all that comes
of a piece is in memory: 16 MiB at most."""

_SUFFIXES = {".zst": "zst", ".gz": "gz"}
_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}


class DamagedStreamError(Exception):
    """A compressed stream cannot be read further, or gives too much."""


def kind_by_name(path: Path) -> str | None:
    """Return how a file is compressed, by its suffix; ``None`` for one that is not."""
    return _SUFFIXES.get(path.suffix)


def kind_by_content(path: Path) -> str | None:
    """Return how a file is compressed, by its first bytes; ``None`` for one that is not."""
    with path.open("rb") as file:
        begins = file.read(max(map(len, _MAGIC)))
    return next((kind for magic, kind in _MAGIC.items() if begins.startswith(magic)), None)


def read_blocks(path: Path, kind: str | None, limits: Limits) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed to the end, where its checksum stands.

    Raises :class:`DamagedStreamError` where the stream is damaged, ends too early, or gives more
    than the limits allow, and ``OSError`` where the file cannot be opened.
    """
    with path.open("rb") as file:
        if kind is None:
            while block := file.read(MIB):
                yield block
            return
        n_bytes = 0
        blocks = _zst_blocks(file) if kind == "zst" else _stream_blocks(_open(file, kind))
        try:
            for block in blocks:
                n_bytes += len(block)
                if n_bytes > _FREE + limits.max_expansion * file.tell():
                    raise DamagedStreamError(
                        f"more than {limits.max_expansion} bytes come of each that is read, as of "
                        f"no text; give reading.max_expansion more if it is one"
                    )
                yield block
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DamagedStreamError(
                f"{reason}: truncated, or not compressed as its name says"
            ) from None


def _open(file: IO[bytes], kind: str) -> IO[bytes]:
    opened: Any = {"gz": gzip.GzipFile, "bz2": bz2.BZ2File, "xz": lzma.LZMAFile}[kind]
    stream: IO[bytes] = opened(fileobj=file) if kind == "gz" else opened(file)
    return stream


def _stream_blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(MIB):
        yield block


def _zst_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress zstd, frame after frame."""
    zstandard = _zstandard()
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
    frame, begun, gathered = decompressor.decompressobj(), False, io.BytesIO()
    while piece := file.read(_PIECE):
        while piece:
            try:
                gathered.write(frame.decompress(piece))
            except zstandard.ZstdError as error:
                yield gathered.getvalue()
                raise EOFError(str(error)) from None
            begun, piece = not frame.eof, frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = decompressor.decompressobj()
        if gathered.tell() >= MIB:
            yield gathered.getvalue()
            gathered = io.BytesIO()
    yield gathered.getvalue()
    if begun:
        raise EOFError("the last zstd frame has no end")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError(f".zst dumps need zstandard: {install_extra('reddit')}") from None
    return zstandard
