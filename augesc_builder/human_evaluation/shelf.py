"""Tables of sessions and of rejected texts that one can leaf through, however long they are.

What rows are filtered by (source, marks, length) is read once and kept: a few numbers a row. Texts
stay on disk, and are read by row group for a page or a search.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augesc_builder.errors import InputError
from augesc_builder.readers.parquet import open_table, rows_of
from augesc_builder.sources.sessions import check_messages
from augesc_builder.text.prompts import PLAIN, Message, whole_text

Numbers: TypeAlias = "npt.NDArray[np.int64]"

ANY, NONE = "*", "-"
"""Ask for rows with any mark at all, and for rows without one."""

LONGEST_SEARCH = 200
"""Characters that are looked for."""

_SESSIONS = ("session_id", "source", "messages", "n_tokens", "safety_flags", "background")
_REJECTED = (
    *("query_id", "sample", "source", "query", "text"),
    *("n_prompt_tokens", "n_tokens", "finish_reason", "violations", "background"),
)
_BATCH = 500
_KEPT_SEARCHES = 16


@dataclass(frozen=True)
class Wanted:
    """What rows are looked for: each part that is given must hold.

    ``text`` is a piece of an utterance or a name, in capitals or not; ``mark`` one of
    :attr:`Shelf.marks`, :data:`ANY` or :data:`NONE`; ``shortest`` and ``longest`` count utterances.
    """

    text: str = ""
    source: str = ""
    mark: str = ""
    shortest: int | None = None
    longest: int | None = None


@dataclass(frozen=True)
class Item:
    """A row: a session, or a rejected text, whose ``messages`` are None where it is none.

    ``text`` is a rejected text as the model left it; ``marks`` are names of flags or of violated
    requirements, None where there was no safety pass; ``flags`` have utterance and span;
    ``trouble`` says why a row cannot be read.
    """

    number: int
    name: str
    source: str
    messages: list[Message] | None
    n_tokens: int | None
    marks: tuple[str, ...] | None
    flags: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None
    query: str | None = None
    finish_reason: str | None = None
    trouble: str | None = None
    background: str | None = None


class Shelf:
    """The rows of Parquet files, in order, numbered from 0.

    - ``sources`` and ``marks``: how many rows have each
    - ``unmarked``: how many rows no safety pass looked at

    Raises :class:`~augesc_builder.errors.InputError` where a file is not whole, or no table of
    sessions or rejected texts.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = list(files)
        self._starts: list[int] = []
        lengths: list[npt.NDArray[np.int32]] = []
        sources: list[npt.NDArray[np.int32]] = []
        codes: dict[str, int] = {}
        marked: defaultdict[str, list[int]] = defaultdict(list)
        n = self.unmarked = 0
        for path in self._files:
            self._starts.append(n)
            for batch in _batches(path):
                batch.validate(full=True)
                lengths.append(_lengths(batch))
                of = _source_column(batch, path)
                sources.append(np.array([codes.setdefault(s, len(codes)) for s in of], np.int32))
                for row, marks in enumerate(_marks_column(batch), n):
                    self.unmarked += marks is None
                    for mark in marks or ():
                        marked[mark].append(row)
                n += batch.num_rows
        self._length = np.concatenate([*lengths, np.empty(0, np.int32)])
        self._source = np.concatenate([*sources, np.empty(0, np.int32)])
        self._codes = codes
        self._marked = {name: np.array(rows, np.int64) for name, rows in marked.items()}
        counted = np.bincount(self._source, minlength=len(codes))
        self.sources = Counter({name: int(counted[code]) for name, code in codes.items()})
        self.marks = Counter({name: len(rows) for name, rows in self._marked.items()})
        self._searches: OrderedDict[str, Numbers] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._length)

    def find(self, wanted: Wanted) -> Numbers:
        """Return the numbers of the rows that are looked for, in order."""
        fits = np.ones(len(self), bool)
        if wanted.source:
            fits &= self._source == self._codes.get(wanted.source, -1)
        if wanted.shortest is not None:
            fits &= self._length >= wanted.shortest
        if wanted.longest is not None:  # no conversation has no length
            fits &= (self._length <= wanted.longest) & (self._length >= 0)
        if wanted.mark:
            marked = np.zeros(len(self), bool)
            each = wanted.mark not in {ANY, NONE}
            for name in [wanted.mark] if each else self._marked:
                marked[self._marked.get(name, np.empty(0, np.int64))] = True
            fits &= ~marked if wanted.mark == NONE else marked
        if wanted.text and fits.any():
            found = np.zeros(len(self), bool)
            found[self._search(wanted.text[:LONGEST_SEARCH])] = True
            fits &= found
        return np.flatnonzero(fits)

    def read(self, numbers: Iterable[int]) -> list[Item]:
        """Return rows in their order; raises :class:`IndexError` for one that is not there."""
        asked = sorted(set(numbers))
        if asked and not 0 <= asked[0] <= asked[-1] < len(self):
            raise IndexError(asked)
        found: list[Item] = []
        for i, (path, start) in enumerate(zip(self._files, self._starts, strict=True)):
            end = self._starts[i + 1] if i + 1 < len(self._starts) else len(self)
            mine = asked[bisect.bisect_left(asked, start) : bisect.bisect_left(asked, end)]
            for row, value in _rows(path, [number - start for number in mine]):
                found.append(_item(value, path, row, start + row))
        return found

    def _search(self, text: str) -> Numbers:
        """Return the rows that hold a text; the last few searches are kept."""
        with self._lock:
            if text not in self._searches:
                parts = [self._found(text, i) for i in range(len(self._files))]
                self._searches[text] = np.concatenate([*parts, np.empty(0, np.int64)])
                if len(self._searches) > _KEPT_SEARCHES:
                    self._searches.popitem(last=False)
            self._searches.move_to_end(text)
            return self._searches[text]

    def _found(self, text: str, file: int) -> Numbers:
        first, rows = self._starts[file], [np.empty(0, np.int64)]
        for batch in _batches(self._files[file]):
            hit = np.zeros(batch.num_rows, bool)
            for name in ("session_id", "query_id", "query", "text"):
                if name in batch.schema.names:
                    hit |= _holds(batch.column(name), text)
            if "messages" in batch.schema.names:
                whose = np.repeat(np.arange(batch.num_rows), np.maximum(_lengths(batch), 0))
                hit[whose[_holds(_contents(batch), text)]] = True
            rows.append(np.flatnonzero(hit) + first)
            first += batch.num_rows
        return np.concatenate(rows)


def is_table(path: Path) -> bool:
    """Whether a Parquet file has columns that a :class:`Shelf` takes as they are."""
    with open_table(path) as file:
        schema = file.schema_arrow
    if "messages" not in schema.names:
        return all(n in schema.names and _is_text(schema.field(n).type) for n in ("query", "text"))
    kind = schema.field("messages").type
    return (
        (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and pa.types.is_struct(kind.value_type)
        and (i := kind.value_type.get_field_index("content")) >= 0
        and _is_text(kind.value_type.field(i).type)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with open_table(path) as file:
        yield from file.iter_batches(_BATCH, columns=_columns(file))


def _columns(file: Any) -> list[str]:
    found = file.schema_arrow.names
    asked = _SESSIONS if "messages" in found else _REJECTED
    return [name for name in asked if name in found]


def _rows(path: Path, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Yield rows of a file by their numbers from 0, which are in order."""
    if not numbers:
        return
    left = list(reversed(numbers))
    with open_table(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            behind = first + file.metadata.row_group(group).num_rows
            if left and left[-1] < behind:
                columns = _columns(file)
                for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
                    while left and left[-1] < first + batch.num_rows:
                        row = left.pop()
                        ((_, value),) = rows_of(batch.slice(row - first, 1), path, row + 1)
                        yield row, value
                    first += batch.num_rows
                    if not left or left[-1] >= behind:
                        break
            first = behind


def _lengths(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    """Return the number of utterances of each row, -1 where it is no conversation."""
    if "messages" in batch.schema.names:
        counted = pc.list_value_length(batch.column("messages")).cast(pa.int32()).fill_null(0)
        return np.asarray(counted, np.int32)
    rows = zip(batch.column("query").to_pylist(), batch.column("text").to_pylist(), strict=True)
    parsed = (PLAIN.parse(whole_text(query, text or "")) for query, text in rows)
    return np.array([-1 if found is None else len(found) for found in parsed], np.int32)


def _contents(batch: pa.RecordBatch) -> pa.Array:
    return pc.struct_field(batch.column("messages").flatten(), "content")


def _holds(column: pa.Array, text: str) -> npt.NDArray[np.bool_]:
    """Whether each value holds a text: a literal, which takes time that grows with the values'."""
    if not _is_text(column.type):
        return np.zeros(len(column), bool)
    return np.asarray(pc.match_substring(column, text, ignore_case=True).fill_null(False), bool)


def _source_column(batch: pa.RecordBatch, path: Path) -> list[str]:
    if "source" not in batch.schema.names:
        return [path.stem] * batch.num_rows
    return [_said(value, path.stem) for value in batch.column("source").to_pylist()]


def _marks_column(batch: pa.RecordBatch) -> list[tuple[str, ...] | None]:
    """Return what is marked of each row: its flags or its violations, each once."""
    for name in ("violations", "safety_flags"):
        if name in batch.schema.names:
            return [_marks(value) for value in batch.column(name).to_pylist()]
    return [None] * batch.num_rows


def _marks(values: Any) -> tuple[str, ...] | None:
    if not isinstance(values, list):
        return None
    names = (value.get("flag") if isinstance(value, dict) else value for value in values)
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _is_flag(value: Any) -> bool:
    """Whether a flag says where it is: others can be null in part."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("flag"), str)
        and all(isinstance(value.get(name), int) for name in ("utterance", "start", "end"))
    )


def _said(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise


def _item(value: Any, path: Path, row: int, number: int) -> Item:
    try:
        if isinstance(value, InputError):
            raise value
        return _taken_apart(value, path, row, number)
    except InputError as error:
        return Item(
            number, f"{path.stem}-{row + 1}", path.stem, None, None, None, trouble=str(error)
        )


def _taken_apart(value: Any, path: Path, row: int, number: int) -> Item:
    source = _said(value.get("source"), path.stem)
    if "messages" in value:
        messages = check_messages(value["messages"] or [], path, row + 1)
        flags = value.get("safety_flags")
        name = _said(value.get("session_id"), f"{path.stem}-{row + 1}")
        found = tuple(flag for flag in flags or () if _is_flag(flag))
        return Item(
            *(number, name, source, messages, _tokens(value), _marks(flags), found),
            background=_said(value.get("background"), "") or None,
        )
    query, text = value["query"], value["text"] or ""
    return Item(
        number,
        f"{_said(value.get('query_id'), path.stem)}-{value.get('sample', row + 1)}",
        source,
        PLAIN.parse(whole_text(query, text)),
        _tokens(value),
        _marks(value.get("violations")) or (),
        text=text,
        query=query,
        finish_reason=value.get("finish_reason"),
        background=_said(value.get("background"), "") or None,
    )


def _tokens(row: Mapping[str, Any]) -> int | None:
    """Return the tokens of prompt and text together, as the table of sessions counts them."""
    names = ("n_tokens",) if "messages" in row else ("n_prompt_tokens", "n_tokens")
    counts = [n for name in names if isinstance(n := row.get(name), int)]
    return sum(counts) if len(counts) == len(names) else None
