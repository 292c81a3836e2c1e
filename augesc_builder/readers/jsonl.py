"""Lines of files, of text and of JSON: each by itself, so that a bad one spoils no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from augesc_builder.errors import InputError
from augesc_builder.readers.compressed import DamagedStreamError, kind_by_name, read_blocks
from augesc_builder.readers.records import USUAL, Limits, too_long

_BOM = b"\xef\xbb\xbf"

Line: TypeAlias = tuple[int, "bytes | InputError"]
"""A line and its number, from 1; or what is wrong with it."""


def read_lines(path: str | Path, limits: Limits = USUAL) -> Iterator[Line]:
    r"""Yield the non-blank lines of a file with their numbers; ``\n`` ends lines.

    A file whose name ends in ``.gz`` or ``.zst`` is decompressed. An error stands in the place of a
    line that is too long, and of all that stands behind damage in a compressed file.

    Raises :class:`~augesc_builder.errors.InputError` where the file cannot be read.
    """
    path = Path(path)
    number, rest = 0, b""
    skipping = False  # inside a line that is too long
    longest = limits.max_line_bytes
    try:
        for block in read_blocks(path, kind_by_name(path), limits):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for line in lines:
                number += 1
                if number == 1:
                    line = line.removeprefix(_BOM)  # noqa: PLW2901
                if skipping or len(line) > longest:
                    skipping = False
                    yield number, too_long(path, number, limits)
                elif line.strip():
                    yield number, line
            if skipping or len(rest) > longest:
                skipping, rest = True, b""
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    except DamagedStreamError as error:
        number += 1
        yield (
            number,
            InputError(f"cannot be read further ({error}); get the file again", path, number),
        )
        return
    if not number:
        rest = rest.removeprefix(_BOM)
    if skipping:
        yield number + 1, too_long(path, number + 1, limits)
    elif rest.strip():
        yield number + 1, rest


def text_of(line: bytes, path: str | PathLike[str], number: int) -> str:
    """Return the text of a line, without its end.

    Raises :class:`~augesc_builder.errors.InputError` where it is not UTF-8.
    """
    try:
        return line.decode().rstrip("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text: byte 0x{line[error.start]:02x} at column {error.start + 1}; convert "
            f"the file, for example with iconv",
            path,
            number,
        ) from None


def json_of(line: bytes, path: str | PathLike[str], number: int) -> Any:
    """Return the value of a line of JSON.

    Raises :class:`~augesc_builder.errors.InputError` where it is not JSON, is nested too deep, or
    holds half of a surrogate pair, which no table can store.
    """
    text = text_of(line, path, number)
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is no "
            f"character; mend or remove the line",
            path,
            number,
        ) from None
    except RecursionError:
        raise InputError(
            "brackets nested too deep to be read; mend or remove the line", path, number
        ) from None
    except ValueError as error:
        raise InputError(
            f"not JSON ({error}), found {text[:60]!r}; mend or remove the line", path, number
        ) from None
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_rows(path: str | Path, limits: Limits = USUAL) -> Iterator[Line]:
    """Yield the lines of a file of JSON lines; of one JSON list, its values as lines of their own.

    Lines are not parsed, and errors stand where :func:`read_lines` has them. Raises
    :class:`~augesc_builder.errors.InputError` for a list that is not one.
    """
    path = Path(path)
    lines = read_lines(path, limits)
    first = next(lines, None)
    if first is None:
        return
    if isinstance(first[1], InputError) or first[1].strip() != b"[":
        yield first
        yield from lines
        return
    parts = [b"["]
    for _, line in lines:
        if isinstance(line, InputError):
            raise line
        parts.append(line)
    try:
        values = [json.dumps(value).encode() for value in json.loads(b"\n".join(parts))]
    except RecursionError:
        raise InputError("begins as a JSON list, which is nested too deep", path) from None
    except ValueError as error:
        raise InputError(f"begins as a JSON list but is not one ({error})", path) from None
    for number, value in enumerate(values, 1):
        fits = len(value) <= limits.max_line_bytes
        yield number, value if fits else too_long(path, number, limits)
