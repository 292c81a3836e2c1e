"""Lines of text files, with the file and line named in every error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Yield ``(line number, line)`` for each non-blank line of a UTF-8 file; ``\n`` ends lines.

    Raises :class:`~augesc_builder.errors.InputError` where it cannot be read or is not UTF-8.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"not UTF-8 text: byte 0x{raw[error.start]:02x} at column "
                        f"{error.start + 1}; convert the file, for example with iconv",
                        path,
                        number,
                    ) from None
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise InputError("no such file; check the path", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None


def read_json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield ``(line number, value)`` for each non-blank line of a JSON-lines file.

    Raises :class:`~augesc_builder.errors.InputError` with file and line.
    """
    for number, line in read_lines(path):
        yield number, json_of(line, path, number)


def json_of(line: str, path: str | Path, number: int) -> Any:
    """Return the value of a line of JSON.

    Raises :class:`~augesc_builder.errors.InputError` where it is not JSON, or holds half of a
    surrogate pair, which no table can store.
    """
    try:
        value = json.loads(line)
        if _SURROGATE.search(line):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), which is no "
            f"character; mend or remove the line",
            path,
            number,
        ) from None
    except ValueError as error:
        raise InputError(
            f"not JSON ({error}), found {line[:60]!r}; mend or remove the line", path, number
        ) from None
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_rows(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines of JSON lines; of one JSON list, its values as lines of their own.

    Raises :class:`~augesc_builder.errors.InputError` with the file, and the line if known.
    """
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        return
    if first[1].strip() != "[":
        yield first
        yield from lines
        return
    text = "\n".join(["[", *(line for _, line in lines)])
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"begins as a JSON list but is not one ({error})", path) from None
    for number, value in enumerate(values, 1):
        yield number, json.dumps(value)
