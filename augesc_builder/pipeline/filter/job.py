"""The stage ``filter`` as a job for executors: a shard is some generations, judged and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.errors import InputError
from augesc_builder.pipeline.filter.chunked import ChunkedJob
from augesc_builder.pipeline.filter.filter import Filter, Filtered, measured_schema
from augesc_builder.pipeline.filter.report import merge
from augesc_builder.readers.chunks import Chunk
from augesc_builder.readers.parquet import read_table
from augesc_builder.readers.records import merged
from augesc_builder.run import layout
from augesc_builder.text.safety import merge_counts

STAGE = "filter"


@dataclass(frozen=True)
class FilterJob(ChunkedJob[Filtered]):
    """Generations, and where what comes of them goes.

    What is rejected goes to ``place``, and what is kept to ``sessions``. ``measured`` is a folder
    of what was measured before of the same generations, if any.
    """

    judge: Filter
    place: str
    sessions: str
    measured: Path | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs a worker computes on, where there are any: for its classifier."""
        return int(self.judge.classifier is not None)

    @property
    def function(self) -> Callable[[Any], Filtered]:
        """Return what judges a chunk."""
        return self.judge.chunk if self.measured is None else self.judge.refilter

    def work(self, number: int, chunks: Iterator[Chunk]) -> Iterator[Any]:
        """Yield the chunks of a shard, each with what was measured of it before, if anything."""
        if self.measured is None:
            yield from chunks
            return
        name = layout.shard_path(layout.SPLIT, number, self.n_shards)
        columns = measured_schema(self.judge.limits).names
        table, start = read_table(self.measured / name, columns), 0
        whole = table.num_rows == self.parts.n_rows_of(number)
        for chunk in chunks:
            n_rows = len(chunk.rows) if whole else self.judge.n_good(chunk)
            yield chunk, table.slice(start, n_rows).combine_chunks()
            start += n_rows

    def write(self, number: int, found: Sequence[Filtered]) -> None:
        """Write what came of a shard.

        Raises :class:`~augesc_builder.errors.InputError` where the first has no generation.
        """
        bad = merged(part.bad for part in found)
        if not number and not any(len(part.measured) for part in found):
            raise InputError(
                f"none of the first {bad.count:,} rows can be read; {bad.examples[0]}",
                self.parts.files[0],
            )
        tables = {
            f"{self.sessions}/{layout.SPLIT}": [part.sessions for part in found],
            f"{self.place}/{layout.REJECTED}/{layout.SPLIT}": [part.rejected for part in found],
            f"{layout.MEASURED}/{layout.SPLIT}": [part.measured for part in found],
        }
        self.shards.add_shard(
            STAGE,
            number,
            self.n_shards,
            {name: pa.concat_tables(some) for name, some in tables.items()},
            counts=merge(part.counts for part in found),
            safety=merge_counts(part.flags for part in found),
            bad_lines=bad.report(),
        )
