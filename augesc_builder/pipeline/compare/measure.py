"""A run as numbers: for each query, sums over its texts and its kept sessions.

All that is compared is a function of such sums, so that drawing queries again (the bootstrap) looks
at no text. Requirements are not judged again: what was measured, rejected and kept is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import Hashes, hash_of
from augesc_builder.metrics.duplication.counts import DuplicationCounts
from augesc_builder.metrics.intervals import Grams, Numbers
from augesc_builder.metrics.lexical_diversity.counts import hashed_grams
from augesc_builder.metrics.novelty.counts import NoveltyCounts
from augesc_builder.metrics.session_statistics.counts import SessionCounts
from augesc_builder.metrics.tokenized import Spoken, spoken, text_of
from augesc_builder.metrics.vendi.score import held_by
from augesc_builder.pipeline.compare.runs import Run
from augesc_builder.pipeline.generate.draws import tokens_beside
from augesc_builder.readers.chunks import Chunk, count_rows
from augesc_builder.readers.parquet import open_table, read_table
from augesc_builder.run import layout
from augesc_builder.run.marks import Marks, checked, parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.workers import WORTH_PROCESSES, cores, ordered_map
from augesc_builder.sources.sessions import check_messages, session_chunks
from augesc_builder.tables import MEASURED

_SESSION = ["session_id", "query_id", "source", "messages", "n_tokens", "safety_flags"]


class Sums:
    """Named columns, a number for each query."""

    def __init__(self, queries: Mapping[str, int]) -> None:
        self._queries = queries
        self._columns: dict[str, Numbers] = {}

    def add(self, name: str, query_ids: Sequence[str], values: Sequence[float] | float = 1) -> None:
        """Add values to the sums of their queries."""
        column = self._columns.setdefault(name, np.zeros(len(self._queries)))
        np.add.at(column, [self._queries[query] for query in query_ids], values)

    def __getitem__(self, name: str) -> Numbers:
        """Return a column, (queries,); one that nothing was added to is all zeros."""
        return self._columns.get(name, np.zeros(len(self._queries)))

    def names(self, prefix: str) -> list[str]:
        """Return what stands behind a prefix in the names of columns, sorted."""
        return sorted(n.removeprefix(prefix) for n in self._columns if n.startswith(prefix))


@dataclass
class Measured:
    """What is measured of a run.

    ``counts`` are those of Table 2. ``grams`` holds 1-, 2- and 3-grams of the sessions that
    diversity is compared on, each with the number of its query.
    """

    sums: Sums
    counts: SessionCounts = field(default_factory=SessionCounts)
    grams: list[Grams] = field(default_factory=list)
    held: list[tuple[int, Hashes]] = field(default_factory=list)
    """What the sessions hold that the Vendi score is of, each with the number of its query."""
    hashes: set[int] = field(default_factory=set)
    """Of every session that was seen: one more of the same text is a duplicate."""


# -- all texts ------------------------------------------------------------------------------------


def query_ids(run: Run, source: str | None) -> set[str]:
    """Return the queries of a run, of one source or of all."""
    return {key for keys, _ in _tables(run, layout.MEASURED, [], source) for key in keys}


def sources(run: Run) -> set[str]:
    """Return the sources of a run's queries."""
    files = run.files(layout.MEASURED)
    return {str(s) for file in files for s in pc.unique(read_table(file, ["source"])["source"])}


def texts(run: Run, sums: Sums, source: str | None) -> None:
    """Add what is told of all texts: tokens, violations, and measures of other requirements.

    Those are the numbers in ``measured/`` beyond the paper's, of kept texts.
    """
    rejected: set[tuple[str, int]] = set()
    for keys, table in _tables(run, layout.REJECTED, ["sample", "violations"], source):
        rejected.update(zip(keys, table["sample"].to_pylist(), strict=True))
        violated: dict[str, list[str]] = {}
        for key, names in zip(keys, table["violations"].to_pylist(), strict=True):
            for name in names:
                violated.setdefault(name, []).append(key)
        for name, of in violated.items():
            sums.add(f"violates {name}", of)
    others = _other_measures(run)
    columns = ["sample", "total_tokens", *others]
    read: set[tuple[str, int]] = set()
    for keys, table in _tables(run, layout.MEASURED, columns, source):
        tokens = table["total_tokens"].to_pylist()
        sums.add("texts", keys)
        sums.add("counted", keys, [float(n is not None) for n in tokens])
        sums.add("tokens of texts", keys, [np.nan if n is None else n for n in tokens])
        whose = [*zip(keys, table["sample"].to_pylist(), strict=True)]
        read.update(whose)
        kept = [key not in rejected for key in whose]
        sums.add("met", keys, list(map(float, kept)))
        for name in others:
            rows = zip(keys, kept, table[name].to_pylist(), strict=True)
            found = [(key, value) for key, is_kept, value in rows if is_kept and value is not None]
            sums.add(f"sum of {name}", [key for key, _ in found], [value for _, value in found])
            sums.add(f"measured {name}", [key for key, _ in found])
    for file in _generations(run):
        for row, n in tokens_beside(file, ["query_id", "sample"]):
            if (row["query_id"], row["sample"]) in read:
                sums.add("tokens of texts", [row["query_id"]], n)


def _generations(run: Run) -> list[Path]:
    """Return the tables of the build that generated a run's texts, where it is still there."""
    there = run.made_in is not None and (run.made_in / layout.GENERATIONS).is_dir()
    return parquet_files(run.made_in / layout.GENERATIONS) if run.made_in and there else []


def _other_measures(run: Run) -> list[str]:
    """Return the numbers that were measured for requirements from outside the package."""
    found: dict[str, None] = {}
    for file in run.files(layout.MEASURED)[:1]:  # the shards of a table have the same columns
        with open_table(file) as opened:
            for column in opened.schema_arrow:
                kind = column.type
                if pa.types.is_floating(kind) or pa.types.is_integer(kind):
                    found[column.name] = None
    return [name for name in found if name not in MEASURED]


def _tables(
    run: Run, place: str, columns: Sequence[str], source: str | None
) -> Iterator[tuple[list[str], pa.Table]]:
    """Yield the tables of a place, each with the query of every row."""
    for file in run.files(place):
        table = read_table(file, ["query_id", "source", *columns])
        if source is not None:
            table = table.filter(pc.equal(table["source"], source))
        yield table["query_id"].to_pylist(), table


def quality_measures(run: Run) -> dict[str, Any]:
    """Return the settings of the measures of quality that a run has taken, by name; maybe none.

    Raises :class:`~augesc_builder.errors.InputError` where its report is not as it was written.
    """
    if "quality" not in Marks(run.folder):
        return {}
    checked(run.corpus / layout.QUALITY_REPORT)
    found: dict[str, Any] = layout.load_report(run.corpus, "quality")["measures"]
    return found


def quality(run: Run, sums: Sums, names: Collection[str], source: str | None) -> None:
    """Add the numbers that measures of quality, those of ``names``, gave the kept sessions."""
    query_of: dict[str, str] = {}
    for keys, table in _tables(run, layout.DATA, ["session_id"], source):
        query_of.update(zip(table["session_id"].to_pylist(), keys, strict=True))
    found: dict[str, tuple[list[str], list[float]]] = {}
    for file in Marks(run.folder).table(run.corpus / layout.QUALITY, "quality"):
        for row in read_table(file, ["session_id", "numbers"]).to_pylist():
            for number in row["numbers"] if row["session_id"] in query_of else ():
                if number["measure"] in names and number["value"] is not None:
                    of = f"{number['measure']}: {number['name']}"
                    keys, values = found.setdefault(of, ([], []))
                    keys.append(query_of[row["session_id"]])
                    values.append(number["value"])
    for of, (keys, values) in found.items():
        sums.add(f"quality of {of}", keys, values)
        sums.add(f"known {of}", keys)


# -- kept sessions --------------------------------------------------------------------------------


def drawn_first(run: Run, source: str | None, seed: int) -> list[str]:
    """Return the ids of a run's sessions in the order in which some of them are drawn.

    By their ids, which are alike for the same query: runs on the same queries draw much the same.
    """
    ids = [
        session
        for file in run.files(layout.DATA)
        for session, of in zip(
            *(c.to_pylist() for c in read_table(file, ["session_id", "source"]).columns),
            strict=True,
        )
        if source in {None, of}
    ]
    return sorted(ids, key=lambda name: (hash_of(name, seed=seed), name))


@dataclass(frozen=True)
class Look:
    """What is looked at in kept sessions, ready for worker processes.

    ``drawn`` are the sessions that distinct n-grams are compared on, and ``spread`` those that the
    Vendi score is; ``trained_on`` holds the fine-tuning utterances, without which there is no
    memorization.
    """

    source: str | None
    drawn: frozenset[str]
    spread: frozenset[str]
    trained_on: tuple[str, ...] | None

    def chunk(self, chunk: Chunk) -> Seen:
        """Measure the sessions of a chunk."""
        seen = Seen()
        drawn: list[Spoken] = []
        for number, row in chunk.values(_SESSION):
            if isinstance(row, Exception):
                raise row
            if self.source not in {None, row["source"]}:
                continue
            session = spoken(check_messages(row["messages"], chunk.path, number))
            seen.rows.append((row["query_id"], self._numbers(session, row)))
            seen.counts.add(session)
            seen.hashes.append(hash_of(text_of(session)))
            if row["session_id"] in self.drawn:
                drawn.append(session)
                seen.drawn.append(row["query_id"])
            if row["session_id"] in self.spread:
                seen.held += [(row["query_id"], held) for held in held_by([session])]
        seen.grams = list(hashed_grams(drawn))
        return seen

    def _numbers(self, session: Spoken, row: Mapping[str, Any]) -> dict[str, float]:
        tokens, flags = row["n_tokens"], row["safety_flags"]
        said = DuplicationCounts()
        said.add([session])
        numbers: dict[str, float] = {
            "kept": 1,
            "tokens of sessions": np.nan if tokens is None else tokens,
            "words": sum(len(u.words) for u in session),
            "utterances": said.utterances,
            "repeated utterances": said.repeated,
            "with a repetition": said.with_repetition,
        }
        for role, label in (("user", "seeker"), ("assistant", "supporter")):
            words = [len(u.words) for u in session if u.role == role]
            numbers |= {f"{label} utterances": len(words), f"{label} words": sum(words)}
        if self.trained_on is not None:
            novelty = NoveltyCounts(self.trained_on)
            novelty.add(session)
            numbers |= {"n-grams": novelty.ngrams, "memorized": novelty.memorized}
        if flags is not None:
            names = {flag["flag"] for flag in flags}
            numbers |= {"scanned": 1, "flagged": bool(names)}
            numbers |= {f"flag {name}": 1 for name in names}
        return numbers


@dataclass
class Seen:
    """What was seen in a chunk of sessions."""

    rows: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    counts: SessionCounts = field(default_factory=SessionCounts)
    hashes: list[int] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    held: list[tuple[str, Hashes]] = field(default_factory=list)
    grams: list[tuple[Hashes, NDArray[np.int64]]] = field(default_factory=list)


def sessions(
    run: Run,
    measured: Measured,
    queries: Mapping[str, int],
    look: Look,
    progress: Progress,
    num_proc: int | None,
) -> None:
    """Add what is told of kept sessions."""
    files = run.files(layout.DATA)
    under_way: deque[int] = deque()

    def chunks() -> Iterator[Chunk]:
        for chunk in session_chunks(files):
            under_way.append(len(chunk.rows))
            yield chunk

    total = sum(map(count_rows, files))
    parts: list[list[tuple[Hashes, NDArray[np.int64]]]] = []
    preload = "augesc_builder.pipeline.compare.measure"
    num_proc = num_proc or (cores() if total > WORTH_PROCESSES else 1)
    with progress.bar(total, f"counting words of {run.name}", "session") as bar:
        for seen in ordered_map(look.chunk, chunks(), num_proc, preload=preload):
            _merge(measured, seen)
            measured.held += [(queries[key], held) for key, held in seen.held]
            at = np.array([queries[key] for key in seen.drawn], np.int64)
            parts.append([(grams, at[where]) for grams, where in seen.grams])
            bar.update(under_way.popleft())
    measured.grams = [
        Grams(
            np.concatenate([np.empty(0, np.uint64), *(part[n][0] for part in parts)]).view(
                np.int64
            ),
            np.concatenate([np.empty(0, np.int64), *(part[n][1] for part in parts)]),
        )
        for n in range(3)
    ]


def _merge(measured: Measured, seen: Seen) -> None:
    by_column: dict[str, tuple[list[str], list[float]]] = {}
    for (query, numbers), text in zip(seen.rows, seen.hashes, strict=True):
        numbers["duplicates"] = text in measured.hashes
        measured.hashes.add(text)
        for name, value in numbers.items():
            keys, values = by_column.setdefault(name, ([], []))
            keys.append(query)
            values.append(value)
    for name, (keys, values) in by_column.items():
        measured.sums.add(name, keys, values)
    measured.counts.merge(seen.counts)
