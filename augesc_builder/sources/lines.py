"""Lines of text files, with the file and line named in every error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augesc_builder.errors import InputError


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    r"""Give ``(line number, line)`` for each non-blank line of a UTF-8 file; ``\n`` ends lines."""
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
    """Give ``(line number, value)`` for each non-blank line of a JSON-lines file."""
    for number, line in read_lines(path):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise InputError(
                f"not JSON ({error}), found {line[:60]!r}; mend or remove the line", path, number
            ) from None
