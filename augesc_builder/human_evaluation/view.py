"""``augesc view``: a local page to look at a corpus: its numbers, its sessions, what was rejected.

It reads and never writes, and listens to this machine alone.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from augesc_builder.errors import InputError
from augesc_builder.human_evaluation.beside import Findings, measures
from augesc_builder.human_evaluation.overview import Overview, figure_type, overview
from augesc_builder.human_evaluation.pages.drawing import (
    error_pages,
    page,
    require_app,
    static_routes,
)
from augesc_builder.human_evaluation.pages.serving import serve
from augesc_builder.human_evaluation.shelf import (
    LONGEST_SEARCH,
    Item,
    Numbers,
    Shelf,
    Wanted,
    is_table,
)
from augesc_builder.metrics.scored import Finding
from augesc_builder.readers.records import BadLines
from augesc_builder.run import layout
from augesc_builder.run.marks import parquet_files
from augesc_builder.run.progress import Progress
from augesc_builder.sources.sessions import parse_sessions, session_chunks, sessions_files
from augesc_builder.tables import SESSIONS, plain_schema, to_table
from augesc_builder.text.prompts import SPEAKER

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

A_PAGE = 25
"""Rows of a list."""

_LOOPBACK = "127.0.0.1"
_AROUND = 80
"""Characters shown on either side of what was searched for."""

_CHOICES = 200
"""Sources and marks that a list offers, the most frequent first."""

_NUMBER = re.compile("[0-9]{1,9}")

_FIGURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Drawings carry their style in themselves; nothing in them is run."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What is looked at: tables by name (``sessions``, and ``rejected`` where there is one)."""

    name: str
    shelves: dict[str, Shelf]
    about: Overview
    findings: Findings = dataclasses.field(default_factory=Findings)


def view(path: Path, port: int, progress: Progress) -> None:
    """Serve pages about a corpus on this machine, until interrupted.

    ``path`` is the folder of a build, of a filter or of a corpus, or a file of sessions. Raises
    :class:`~augesc_builder.errors.InputError` where it holds none,
    :class:`~augesc_builder.errors.ServeError` where the port cannot be had, and
    :class:`~augesc_builder.errors.MissingExtraError` without the extra ``app``.
    """
    require_app()
    with tempfile.TemporaryDirectory(prefix="augesc-view-") as scratch:
        corpus = open_corpus(path, Path(scratch), progress)
        rows = ", ".join(f"{len(shelf):,} {name}" for name, shelf in corpus.shelves.items())
        progress.say(f"{path}: {rows}")
        serve(application(corpus), _LOOPBACK, port, progress)


def open_corpus(path: Path, scratch: Path, progress: Progress) -> Corpus:
    """Find the tables of a corpus; lines of sessions become a table in ``scratch`` first."""
    files = sessions_files(path)
    root = files[0].parent
    root = root.parent if root.name == layout.DATA else root
    if not all(file.suffix == ".parquet" and is_table(file) for file in files):
        files = [_as_table(files, scratch / "sessions.parquet", progress)]
    shelves = {"sessions": Shelf(files)}
    if path.is_dir() and (rejected := parquet_files(root / layout.REJECTED)):
        for file in rejected:
            if not is_table(file):
                raise InputError("expected columns query and text, of texts", file)
        shelves["rejected"] = Shelf(rejected)
    if not path.is_dir():
        return Corpus(path.name, shelves, Overview())
    findings = Findings(parquet_files(root / layout.QUALITY))
    return Corpus(path.resolve().name, shelves, overview(root), findings)


def _as_table(files: list[Path], table: Path, progress: Progress) -> Path:
    import pyarrow.parquet as pq

    bad = BadLines()
    with pq.ParquetWriter(table, plain_schema(SESSIONS)) as writer:
        for chunk in session_chunks(files):
            sessions = parse_sessions(chunk, bad, keep_greetings=True, generations=True)
            rows = [
                {"session_id": s.session_id, "source": s.source, "messages": list(s.messages)}
                for s in sessions
            ]
            writer.write_table(to_table(rows, SESSIONS))
    bad.say(progress.say)
    return table


def application(corpus: Corpus) -> Starlette:
    """Return the pages about a corpus."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    pages = _Pages(corpus)
    return Starlette(
        routes=[
            Route("/", pages.first),
            Route("/figures/{name}", pages.figure),
            *static_routes(),
            Route("/{table}", pages.rows),
            Route("/{table}/{number}", pages.row),
        ],
        exception_handlers={**error_pages(), InputError: _unreadable},
    )


def _unreadable(_: Request, error: Exception) -> Response:
    """Say that a file was taken away, or changed, under our eyes."""
    return page("message", 500, title="This cannot be read any more", text=str(error))


class _Pages:
    """The pages about a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._frame: dict[str, Any] = {"corpus": corpus.name, "tables": corpus.shelves}

    def first(self, _: Request) -> Response:
        """Tell of the whole: funnel, tables, figures."""
        return page("view_first", here="", about=self._corpus.about, **self._frame)

    def figure(self, request: Request) -> Response:
        """Hand out a figure that was there at the start, by its name."""
        from starlette.responses import FileResponse

        path = self._corpus.about.figures.get(request.path_params["name"])
        if path is None or not path.is_file():
            raise _not_there()
        policy = {"Content-Security-Policy": _FIGURE_POLICY}
        return FileResponse(path, headers=policy, media_type=figure_type(path))

    def rows(self, request: Request) -> Response:
        """List the rows that are looked for, a page at a time."""
        table, shelf = self._shelf(request)
        wanted = _wanted(request)
        found = shelf.find(wanted)
        n_pages = max(1, -(-len(found) // A_PAGE))
        at = min(max(_whole(request.query_params.get("page")) or 1, 1), n_pages)
        items = shelf.read(found[(at - 1) * A_PAGE : at * A_PAGE].tolist())
        return page(
            "view_rows",
            here=table,
            shelf=shelf,
            wanted=wanted,
            asked=_query(wanted),
            n_found=len(found),
            at=at,
            n_pages=n_pages,
            items=[(item, _excerpt(item, wanted.text)) for item in items],
            sources=shelf.sources.most_common(_CHOICES),
            marks=shelf.marks.most_common(_CHOICES),
            longest_search=LONGEST_SEARCH,
            **self._frame,
        )

    def row(self, request: Request) -> Response:
        """Show a row, and where the next one is among those that are looked for."""
        table, shelf = self._shelf(request)
        number = _whole(request.path_params["number"])
        if number is None or number >= len(shelf):
            raise _not_there()
        (item,) = shelf.read([number])
        wanted = _wanted(request)
        found = shelf.find(wanted)
        findings = self._corpus.findings.of(item.name) if table == "sessions" else []
        before, after = _neighbours(found, number)
        return page(
            "view_row",
            here=table,
            item=item,
            speakers=SPEAKER,
            pieces=_pieces(item, findings, wanted.text),
            findings=findings,
            measures=measures(item),
            asked=_query(wanted),
            n_found=len(found),
            before=before,
            after=after,
            at=int(found.searchsorted(number)) // A_PAGE + 1,
            **self._frame,
        )

    def _shelf(self, request: Request) -> tuple[str, Shelf]:
        table = request.path_params["table"]
        if table not in self._corpus.shelves:
            raise _not_there()
        return table, self._corpus.shelves[table]


def _pieces(
    item: Item, findings: Sequence[Finding], text: str
) -> list[list[tuple[str, list[str]]]] | None:
    """Cut utterances at flags and findings, and at what was searched for (the empty label)."""
    if item.messages is None:
        return None
    spans: list[list[tuple[int, int, str]]] = [[] for _ in item.messages]
    found = [(flag["flag"], *(flag[key] for key in _WHERE)) for flag in item.flags]
    found += [(one.kind, one.utterance, one.start, one.end) for one in findings]
    for name, utterance, start, end in found:
        if 0 <= utterance < len(spans) and 0 <= start < end:
            spans[utterance].append((start, end, name))
    cut = []
    for message, marked in zip(item.messages, spans, strict=True):
        said = message["content"]
        hits = _literal(text).finditer(said) if text else ()
        cut.append(pieces(said, [*marked, *((*hit.span(), "") for hit in hits)]))
    return cut


_WHERE = ("utterance", "start", "end")


def pieces(text: str, spans: Sequence[tuple[int, int, str]]) -> list[tuple[str, list[str]]]:
    """Cut a text at spans that may overlap: pieces in order, each with the labels that cover it.

    The pieces together are the text, wherever the spans end.
    """
    events: list[tuple[int, int, str]] = []
    for start, end, label in spans:
        if start < min(end, len(text)):
            events += [(start, 1, label), (min(end, len(text)), -1, label)]
    found: list[tuple[str, list[str]]] = []
    covered: Counter[str] = Counter()
    at = 0
    for place, change, label in sorted(events):
        if place > at:
            found.append((text[at:place], [name for name, n in covered.items() if n]))
            at = place
        covered[label] += change
    return [*found, *([(text[at:], [])] if at < len(text) else [])]


def _excerpt(item: Item, text: str) -> tuple[str, str, str]:
    """Return how a row begins, or what was searched for with what stands around it."""
    if item.trouble is not None:
        return item.trouble, "", ""
    said = [m["content"] for m in item.messages] if item.messages else [item.text or ""]
    for one in said if text else ():
        if hit := _literal(text).search(one):
            a, b = hit.span()
            before = ("…" if a > _AROUND else "") + one[max(0, a - _AROUND) : a]
            return before, one[a:b], one[b : b + _AROUND] + ("…" if b + _AROUND < len(one) else "")
    first = said[0]
    return first[: 2 * _AROUND] + ("…" if len(first) > 2 * _AROUND else ""), "", ""


def _literal(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text), re.IGNORECASE)


def _neighbours(found: Numbers, number: int) -> tuple[int | None, int | None]:
    left, right = found.searchsorted(number), found.searchsorted(number, "right")
    return (
        int(found[left - 1]) if left > 0 else None,
        int(found[right]) if right < len(found) else None,
    )


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    return Wanted(
        asked.get("q", "")[:LONGEST_SEARCH].strip(),
        asked.get("source", ""),
        asked.get("mark", ""),
        _whole(asked.get("shortest")),
        _whole(asked.get("longest")),
    )


def _query(wanted: Wanted) -> str:
    """Return what is looked for as the query of an address, ``&`` at its end; empty for all."""
    given = {"q" if k == "text" else k: v for k, v in dataclasses.asdict(wanted).items()}
    asked = urlencode({name: value for name, value in given.items() if value not in {"", None}})
    return f"{asked}&" if asked else ""


def _whole(text: str | None) -> int | None:
    """Return a whole number as an address has it; None for what is none."""
    return int(text) if text and _NUMBER.fullmatch(text) else None


def _not_there() -> Exception:
    from starlette.exceptions import HTTPException

    return HTTPException(404)
