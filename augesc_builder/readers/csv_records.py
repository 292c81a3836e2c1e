"""Records of CSV files. A quote that is never closed spoils the line it stands in, and no other."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

from augesc_builder.errors import InputError
from augesc_builder.readers.records import USUAL, Limits, too_long

_PATIENCE = 8
"""Times that a character may be read in search of the end of a quote, on average."""

Record: TypeAlias = tuple[int, "list[str] | InputError"]
"""The cells of a record and the number of its first line, from 1; or what is wrong with it."""


def read_records(path: Path, limits: Limits = USUAL) -> Iterator[Record]:
    """Yield the records of a CSV file, the header first; a quoted cell may hold line ends.

    A record that breaks the form gives an error, and reading goes on with the line behind its
    *first* one: what stands behind a stray quote is not taken for a part of its text. Bytes that
    are not UTF-8 come as lone surrogates.

    Raises :class:`~augesc_builder.errors.InputError` where the file cannot be read.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_line_bytes))
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield from _records(_Lines(file, path, limits), path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None


class _Lines:
    """Lines for a CSV reader: those of a record that was none can be taken back."""

    def __init__(self, file: IO[str], path: Path, limits: Limits) -> None:
        self._file, self._path, self._limits = file, path, limits
        self._number = 0
        self._waiting: deque[tuple[int, str | InputError]] = deque()
        self.taken: list[tuple[int, str | InputError]] = []
        """The lines of the record that is being read."""
        self._size = 0
        self._n_read = self._n_given = 0  # characters

    def __iter__(self) -> Iterator[str]:
        while line := self._waiting.popleft() if self._waiting else self._next():
            self.taken.append(line)
            if isinstance(line[1], InputError):
                raise line[1]
            self._size += len(line[1])
            self._n_given += len(line[1])
            # Lines that open a quote whatever stands before them would all be looked behind anew.
            tired = len(self.taken) > 1 and self._n_given > _PATIENCE * self._n_read
            if tired or self._size > self._limits.max_line_bytes:
                raise InputError(
                    f"a quote is not closed within {self._size:,} characters; mend or remove the "
                    f"line, or give reading.max_line_bytes more",
                    self._path,
                    self.taken[0][0],
                )
            yield line[1]

    def begin(self) -> None:
        """Go on with the next record."""
        self.taken, self._size = [], 0

    def go_back(self) -> None:
        """Go on with the line behind the first one of the record."""
        self._waiting.extendleft(reversed(self.taken[1:]))
        self.begin()

    def _next(self) -> tuple[int, str | InputError] | None:
        longest = self._limits.max_line_bytes
        line = self._file.readline(longest + 1)
        if not line:
            return None
        self._number += 1
        self._n_read += len(line)
        if len(line) <= longest:
            return self._number, line
        while line and line[-1] not in "\r\n":
            line = self._file.readline(longest)
        return self._number, too_long(self._path, self._number, self._limits)


def _records(lines: _Lines, path: Path) -> Iterator[Record]:
    n_columns = 0
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            cells = next(reader, None)
            if cells is None:
                return
            n_columns = n_columns or len(cells)
            wrong: str | InputError = f"expected {n_columns} cells, found {len(cells)}"
        except csv.Error as error:
            cells, wrong = None, str(error)
        except InputError as error:
            cells, wrong = None, error
        number = lines.taken[0][0]
        if cells is not None and len(cells) in {0, n_columns}:
            if cells:
                yield number, cells
            lines.begin()
            continue
        if isinstance(wrong, str):
            said = f"not a record of CSV ({wrong}); mend or remove the line"
            wrong = InputError(said, path, number)
        yield number, wrong
        lines.go_back()
        reader = csv.reader(lines, strict=True)
