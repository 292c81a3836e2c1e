"""Files of generations in the shards of the filter, any of which is read by itself.

What is held of a file is its path and its number of rows, and nothing of the rows.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from augesc_builder.errors import InputError
from augesc_builder.readers.chunks import Chunk, count_rows, read_chunks
from augesc_builder.readers.records import USUAL, Limits
from augesc_builder.sources import generations


class Parts:
    """The rows of files in shards of whole chunks, as ``shards_of`` cuts them."""

    def __init__(self, files: Sequence[Path], limits: Limits = USUAL) -> None:
        self.files, self.limits, self.chunk = tuple(files), limits, generations.CHUNK
        self.here = Path.cwd()
        rows = array("q", (count_rows(file, limits) for file in files))
        self._shards = generations.shards_of(rows, self.chunk)
        self._files = _sums(rows)
        self._begin = _sums([n for _, n in self._shards])

    def __len__(self) -> int:
        """Return how many shards there are."""
        return len(self._shards)

    @property
    def n_rows(self) -> int:
        """Return how many rows there are, those that are bad among them."""
        return self._begin[-1]

    def n_rows_of(self, shard: int) -> int:
        """Return how many rows a shard has."""
        return self._shards[shard][1]

    def n_chunks_of(self, shard: int) -> int:
        """Return how many chunks a shard has."""
        return self._shards[shard][0]

    def places(self, shard: int) -> Iterator[tuple[int, int]]:
        """Yield of each chunk of a shard the number of its file, and the rows before it there."""
        row = self._begin[shard]
        while row < self._begin[shard + 1]:
            # Of several that begin there, those before the last are empty.
            file = bisect_right(self._files, row) - 1
            yield file, row - self._files[file]
            row = min(row + self.chunk, self._files[file + 1])

    def rows_before(self, file: int) -> int:
        """Return how many rows the files before one have."""
        return self._files[file]


class Reading:
    """Reads shards one after the other; the next goes on in the file where the last one ended.

    So a file that can only be read from its beginning is read once, where shards are taken in
    order, and where some are left out.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._file, self._row = -1, 0
        self._chunks: Iterator[Chunk] = iter(())

    def chunks(self, shard: int) -> Iterator[Chunk]:
        """Yield the chunks of a shard.

        Raises :class:`~augesc_builder.errors.InputError` where a file is another than was counted.
        """
        for file, row in self._parts.places(shard):
            if file != self._file or row < self._row:
                self._open(file, row)
            for chunk in self._chunks:
                self._row = chunk.first_in_file + len(chunk.rows)
                if chunk.first_in_file == row:
                    yield replace(chunk, path=self._parts.files[file])
                    break
            else:
                raise InputError("has changed while it was read", self._parts.files[file])

    def _open(self, file: int, row: int) -> None:
        parts = self._parts
        # A worker elsewhere may stand in another folder; rows are of the file as it was given.
        path, before = parts.here / parts.files[file], parts.rows_before(file)
        self._file, self._row = file, row
        self._chunks = read_chunks(path, before, parts.chunk, parts.limits, skip=row)


def _sums(numbers: Sequence[int]) -> array[int]:
    """Return the sums of the numbers before each, and of all."""
    found = array("q", [0])
    for n in numbers:
        found.append(found[-1] + n)
    return found
