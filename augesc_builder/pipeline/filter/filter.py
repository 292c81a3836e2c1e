"""Generations to sessions and rejected rows, with what was measured, and Table 1's counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from datasets.utils import are_progress_bars_disabled

from augesc_builder.config.recipe import SafetyClassifier
from augesc_builder.config.requirements import Requirements
from augesc_builder.errors import InputError
from augesc_builder.models.token_counter import TokenCounter
from augesc_builder.pipeline.filter.functions import measure
from augesc_builder.pipeline.filter.measure import conversations, measured_columns
from augesc_builder.pipeline.filter.report import count
from augesc_builder.pipeline.filter.requirements import decide
from augesc_builder.readers.chunks import Chunk
from augesc_builder.readers.records import BadLines
from augesc_builder.sources.generations import parse_generations
from augesc_builder.tables import MEASURED, REJECTED, SESSIONS, plain_schema
from augesc_builder.text.prompts import PromptTemplate, collapse, read_text, whole_text
from augesc_builder.text.safety import Scanner, count_flags, flag_sessions, scanner_of

KEYS = ("query_id", "sample", "source")

_BARE = PromptTemplate(background=True)

_MEASURED_OF = ("query", "text", "n_prompt_tokens", "n_tokens")


@dataclass(frozen=True)
class Filtered:
    """What came of some generations.

    ``counts`` holds texts, violations and kept ones a source; ``flags``, what the safety pass saw;
    ``bad``, the rows that hold no generation.
    """

    sessions: pa.Table
    rejected: pa.Table
    measured: pa.Table
    counts: dict[str, dict[str, int]]
    flags: dict[str, Any]
    bad: BadLines

    def __len__(self) -> int:
        return int(self.measured.num_rows) + self.bad.count


@dataclass(frozen=True)
class Filter:
    """The eight requirements, ready for worker processes.

    ``counter`` counts the tokens of texts that come without counts, behind the template's
    instruction, which has room for their backgrounds; with ``recount``, of all. By it
    ``requirements.counted`` is obeyed.
    Sessions go through the safety pass, with a ``classifier`` beside its word lists where one is
    given; without ``scan`` they do not, and their flags are null. Rows that hold no generation are
    counted, or fatal where the filter is ``strict``.
    """

    limits: Requirements
    includes_query: bool = False
    template: PromptTemplate = _BARE
    counter: TokenCounter | None = None
    classifier: SafetyClassifier | None = None
    scan: bool = True
    strict: bool = False
    recount: bool = False

    @property
    def counted(self) -> str:
        """Return which text session length is of: without a tokenizer, of what was generated."""
        return "generated" if self.counter is None else self.limits.counted

    def chunk(self, chunk: Chunk) -> Filtered:
        """Measure and judge a chunk of anybody's generations."""
        bad = BadLines(self.strict)
        rows = parse_generations(chunk, bad, includes_query=self.includes_query)
        schema = measured_schema(self.limits)
        if not rows.num_rows:
            return self.judge(rows, schema.empty_table(), bad)
        with _quiet_bars():
            generations = Dataset(rows)
            measured = generations.map(
                measure,
                batched=True,
                batch_size=None,
                fn_kwargs={"requirements": self.limits.settings()},
                remove_columns=[name for name in rows.column_names if name not in KEYS],
            )
        table = measured.data.table.select(schema.names).cast(schema)
        return self.judge(rows, self._with_tokens(rows, table), bad)

    def refilter(self, measured: tuple[Chunk, pa.Table]) -> Filtered:
        """Judge a chunk by what was measured of it before.

        Raises :class:`~augesc_builder.errors.InputError` for rows that were not measured.
        """
        chunk, table = measured
        bad = BadLines(self.strict)
        rows = parse_generations(chunk, bad, includes_query=self.includes_query)
        if rows.select(KEYS).cast(table.select(KEYS).schema) != table.select(KEYS):
            raise InputError("not the rows that were measured; filter them anew", chunk.path)
        return self.judge(rows, table, bad)

    def violations(self, rows: pa.Table) -> list[list[str]]:
        """Return the names of the requirements that each generation fails; nothing is scanned."""
        columns = measure(rows.select(_MEASURED_OF).to_pydict(), self.limits)
        keys = {name: rows[name] for name in KEYS}
        measured = pa.table({**keys, **columns}, schema=measured_schema(self.limits))
        measured = self._with_tokens(rows, measured)
        return decide(measured.to_pydict(), self.limits.settings())["violations"]

    def n_good(self, chunk: Chunk) -> int:
        """Return how many rows of a chunk hold a generation."""
        rows = parse_generations(chunk, BadLines(), includes_query=self.includes_query)
        return int(rows.num_rows)

    def judge(self, rows: pa.Table, measured: pa.Table, bad: BadLines) -> Filtered:
        """Judge generations by what was measured of them."""
        if not rows.num_rows:  # every row was bad
            kept, dropped = (plain_schema(f).empty_table() for f in (SESSIONS, REJECTED))
            return Filtered(kept, dropped, measured, {}, count_flags(()), bad)
        with _quiet_bars():
            judged = Dataset(measured).map(
                decide,
                batched=True,
                batch_size=None,
                fn_kwargs={"thresholds": self.limits.settings()},
            )
            violations = judged.data.table["violations"]
            texts = rows.append_column("violations", violations)
            texts = Dataset(texts.append_column("total_tokens", measured["total_tokens"]))
            kept, dropped = (
                _copied(texts.filter(part, batched=True, input_columns="violations"))
                for part in (_passed, _failed)
            )
        sessions = _sessions(kept)
        flags = count_flags(sessions["safety_flags"].to_pylist())
        if self.scan:
            sessions, flags = flag_sessions(sessions, scanner_for(self.classifier))
        return Filtered(
            sessions,
            dropped.select(list(REJECTED)).cast(plain_schema(REJECTED)),
            measured,
            count(measured, violations.to_pylist()),
            flags,
            bad,
        )

    def _with_tokens(self, rows: pa.Table, measured: pa.Table) -> pa.Table:
        """Count tokens where they are missing, or of all texts; take off what reading takes away.

        A model may write other tokens than its tokenizer would. So the tokens as generated stay,
        and only those of what is taken away are subtracted.
        """
        if self.counter is None:
            return measured
        at, totals = measured.column_names.index("total_tokens"), measured["total_tokens"]
        known = [None if self.recount else total for total in totals.to_pylist()]
        given = [
            (query, text, self.template, collapse(background or "") or None)
            for query, text, background in zip(
                *(rows[name].to_pylist() for name in ("query", "text", "background")), strict=True
            )
        ]
        texts = wholes = [whole_text(*of) for of in given]
        if self.limits.counted == "stripped":
            texts = [read_text(*of) for of in given]
        asked = [n for n in range(len(known)) if known[n] is None or texts[n] != wholes[n]]
        taken = [wholes[n] for n in asked if known[n] is not None]
        before = iter(self.counter.count(taken))
        for n, now in zip(asked, self.counter.count([texts[n] for n in asked]), strict=True):
            as_generated = known[n]
            known[n] = now if as_generated is None else as_generated - next(before) + now
        field = measured.field(at)
        return measured.set_column(at, field, pa.array(known, field.type))


def measured_schema(limits: Requirements) -> pa.Schema:
    """Return the schema of what is measured, with what other requirements than the paper's need."""
    schema = plain_schema(MEASURED)
    for name in measured_columns(limits):
        schema = schema.append(pa.field(name, pa.float64()))
    return schema


def _passed(violations: list[list[str]]) -> list[bool]:
    return [not names for names in violations]


def _failed(violations: list[list[str]]) -> list[bool]:
    return [bool(names) for names in violations]


def _copied(rows: Dataset) -> pa.Table:
    """Return the rows in memory of their own.

    What ``datasets`` gives of a filtered table is a slice of the whole for each row, and Arrow
    sends a slice to another process with all that it is cut from: gigabytes for some 2,000 rows.
    """
    table = rows.with_format("arrow")[:].combine_chunks()
    return table.take(pa.array(range(table.num_rows), pa.int64()))


_scanners: dict[str, Scanner] = {}


def scanner_for(classifier: SafetyClassifier | None) -> Scanner:
    """Return the scanner of this process, which is made once."""
    key = "" if classifier is None else classifier.model_dump_json()
    if key not in _scanners:
        _scanners[key] = scanner_of(classifier)
    return _scanners[key]


def _sessions(kept: pa.Table) -> pa.Table:
    """Make sessions of rows that met every requirement."""
    columns = kept.to_pydict()
    found = conversations(columns)
    made = [f"{q}-{n}" for q, n in zip(columns["query_id"], columns["sample"], strict=True)]
    given = columns.get("session_id", [None] * len(made))
    return pa.table(
        {
            "session_id": [own or new for own, new in zip(given, made, strict=True)],
            "source": columns["source"],
            "query_id": columns["query_id"],
            "messages": found,
            "n_tokens": columns["total_tokens"],
            "safety_flags": [None] * len(made),
            "background": columns["background"],
            "persona": columns["persona"],
            "strategies": [
                names if names and messages and len(names) == len(messages) else None
                for names, messages in zip(columns["strategies"], found, strict=True)
            ],
            "emotion": columns["emotion"],
            "subreddit": columns["subreddit"],
        },
        schema=plain_schema(SESSIONS),
    )


@contextlib.contextmanager
def _quiet_bars() -> Iterator[None]:
    """Silence the bars of ``datasets``, four a chunk; the stage draws one over all rows."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
