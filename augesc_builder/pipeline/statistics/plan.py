"""Which rows of which sets a shard counts: told by numbers of rows, with no list of shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.pipeline.statistics.measure import Measuring
from augesc_builder.readers.chunks import PARQUET, Chunk, read_chunks
from augesc_builder.readers.records import USUAL, Limits

_SHARD, _SMALL, _FEW = 10_000, 2_000, 8
"""Rows of a shard; where there are not so many, rows that make several shards worth it, and how
many shards there are then, at most."""

_OF_LINES = 32
"""Shards of a file of lines, at most: each reads past all that stand before it."""

_RANGE = 1 << 19
"""Sessions whose hashes one worker holds at a time, as hashes spread."""

_CHUNK = 2_000
"""Sessions that are read at a time."""


@dataclass(frozen=True)
class Part:
    """A set of sessions, the rows of each of its files, and what is measured of it.

    What is ``beside`` is told apart from the sets that the report is of.
    """

    name: str
    files: tuple[Path, ...]
    rows: tuple[int, ...]
    what: Measuring
    beside: bool = False

    def keeps(self, measurement: str) -> bool:
        """Whether a measurement that keeps something of each session is asked for."""
        return measurement in self.what.names


@dataclass(frozen=True)
class Plan:
    """The sets that are measured, cut into shards: the same for the same files, anywhere."""

    parts: tuple[Part, ...]
    limits: Limits = USUAL
    here: Path = field(default_factory=Path.cwd)
    """Where paths of files begin."""

    size: int = field(init=False)
    """Rows of a shard."""

    n_ranges: int = field(init=False)
    """How many ranges hashes are parted into, a power of two."""

    def __post_init__(self) -> None:
        total = sum(sum(part.rows) for part in self.parts)
        n = max(-(-total // _SHARD), min(_FEW, -(-total // _SMALL)), 1)
        lines = (
            rows
            for part in self.parts
            for file, rows in zip(part.files, part.rows, strict=True)
            if file.suffix != PARQUET
        )
        size = max(-(-total // n), -(-max(lines, default=0) // _OF_LINES), 1)
        object.__setattr__(self, "size", size)
        n_ranges = 1 << max(0, (total - 1) // _RANGE).bit_length()
        object.__setattr__(self, "n_ranges", n_ranges)

    @property
    def n_rows(self) -> int:
        """Return the number of rows, those that are no sessions among them."""
        return sum(sum(part.rows) for part in self.parts)

    @property
    def n_shards(self) -> int:
        """Return the number of shards."""
        return sum(self._shards(part) for part in self.parts)

    @property
    def keeps_rows(self) -> bool:
        """Whether something is kept of each session, which ranges and bands are made of."""
        return any(p.keeps("duplication") or p.keeps("lexical_diversity") for p in self.parts)

    def shards_with(self, measurement: str) -> Iterator[int]:
        """Yield the numbers of the shards of which a measurement keeps something."""
        first = 0
        for part in self.parts:
            n_shards = self._shards(part)
            if part.keeps(measurement):
                yield from range(first, first + n_shards)
            first += n_shards

    @property
    def near(self) -> NearDuplicates | None:
        """Return how near-duplicates are searched, where they are."""
        return next((part.what.near for part in self.parts if part.keeps("duplication")), None)

    def rows_of(self, number: int) -> int:
        """Return how many rows a shard has."""
        _, begin, end = self._place(number)
        return end - begin

    def part_of(self, number: int) -> int:
        """Return the number of the set that a shard is of."""
        return self._place(number)[0]

    def chunks(self, number: int) -> Iterator[Chunk]:
        """Read the rows of a shard."""
        index, begin, end = self._place(number)
        before = 0
        part = self.parts[index]
        for file, rows in zip(part.files, part.rows, strict=True):
            start, stop = max(begin - before, 0), min(end - before, rows)
            if start < stop:
                yield from self._read(file, before, start, stop)
            before += rows

    def _read(self, file: Path, before: int, start: int, stop: int) -> Iterator[Chunk]:
        """Read the rows of a file from ``start`` to ``stop``."""
        # A worker elsewhere may stand in another folder; rows are of the file as it was given.
        for chunk in read_chunks(self.here / file, before, _CHUNK, self.limits, skip=start):
            rows, left = chunk.rows, stop - chunk.first_in_file
            if len(rows) > left:
                rows = rows[:left] if isinstance(rows, list) else rows.slice(0, left)
            yield replace(chunk, path=file, rows=rows)
            if len(rows) == left:
                return

    def _shards(self, part: Part) -> int:
        return -(-sum(part.rows) // self.size)

    def _place(self, number: int) -> tuple[int, int, int]:
        """Return the set of a shard, and its rows there: from which to which."""
        for index, part in enumerate(self.parts):
            if number < self._shards(part):
                return index, number * self.size, min((number + 1) * self.size, sum(part.rows))
            number -= self._shards(part)
        raise IndexError(number)
