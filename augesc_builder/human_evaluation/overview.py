"""What the folder of a corpus tells of the whole: funnel, Table 1, Table 2, flags, figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import AugescError
from augesc_builder.pipeline.filter.report import filter_rows
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.queries.report import funnel_rows
from augesc_builder.pipeline.statistics.report import rows_of_sets
from augesc_builder.run import layout

Rows = tuple[list[str], list[list[str]]]
"""Headings and rows of a table."""

Made = TypeVar("Made")

_FIGURE_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}

_WRONG = (AugescError, ValueError, TypeError, LookupError, AttributeError, OSError)
"""What taking a report apart may raise that somebody else wrote, or edited."""

_LONGEST_TROUBLE = 300


@dataclass(frozen=True)
class Step:
    """A step of the funnel: how many came through, of how many."""

    name: str
    count: int
    of: int | None = None


@dataclass(frozen=True)
class Overview:
    """What is known of a corpus beyond its rows; ``troubles`` say what could not be read."""

    funnel: list[Step] = field(default_factory=list)
    queries: Rows | None = None
    filtered: Rows | None = None
    statistics: Rows | None = None
    flags: Rows | None = None
    figures: dict[str, Path] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def overview(corpus: Path) -> Overview:
    """Read what lies beside the sessions of a corpus folder; what is missing or broken is left out.

    ``corpus`` has ``data/`` in it; the folder of its build, if it is one's, tells of the queries.
    """
    run, troubles = layout.run_of(corpus), dict[str, str]()

    def made(path: Path, make: Callable[[Any], Made]) -> Made | None:
        try:
            return make(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (*_WRONG, RecursionError) as error:
            said = f"{path.name} cannot be read ({type(error).__name__}: {error})"
            troubles.setdefault(path.name, said[:_LONGEST_TROUBLE])
            return None

    def statistics_rows(report: Any) -> Rows:
        return rows_of_sets(report, with_paper=True)

    queries = run / layout.QUERIES / layout.QUERIES_REPORT
    filtered, safety = corpus / layout.FILTER_REPORT, corpus / layout.SAFETY_REPORT
    steps = [
        *(made(queries, _query_steps) or ()),
        *(made(filtered, _filter_steps) or ()),
        *(made(safety, _safety_steps) or ()),
    ]
    return Overview(
        steps,
        made(queries, funnel_rows),
        made(filtered, lambda report: filter_rows(report, _model(run))),
        made(corpus / layout.STATISTICS, statistics_rows),
        made(safety, _flag_rows),
        _figures(corpus / layout.FIGURES),
        list(troubles.values()),
    )


def figure_type(path: Path) -> str:
    """Return the media type of a figure."""
    return _FIGURE_TYPES[path.suffix]


def _query_steps(report: Any) -> list[Step]:
    posts = sum(int(part["posts"]) for part in report.values())
    queries = sum(int(part["queries"]) for part in report.values())
    return [Step("posts read", posts), Step("queries", queries, posts)]


def _filter_steps(report: Any) -> list[Step]:
    total, kept = int(report["total"]), int(report["retained"])
    return [Step("texts generated", total), Step("sessions kept", kept, total)]


def _safety_steps(report: Any) -> list[Step]:
    n, flagged, unseen = (int(report[name]) for name in ("sessions", "flagged", "not_scanned"))
    return [Step("without a safety flag", n - flagged - unseen, n)]


def _flag_rows(report: Any) -> Rows:
    rows = [
        [name.replace("_", " "), f"{int(part['sessions']):,}", f"{int(part['spans']):,}"]
        for name, part in report["flags"].items()
    ]
    return ["flag", "sessions", "spans"], rows


def _model(run: Path) -> str:
    try:
        recipe = load_recipe(run / layout.RECIPE)
        return backend_of(recipe).label(recipe)
    except _WRONG:
        return "ours"


def _figures(folder: Path) -> dict[str, Path]:
    """Return the figures of a folder by name, of each the drawing, or else the picture."""
    found: dict[str, Path] = {}
    try:
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".svg", path.name)):
            if path.suffix in _FIGURE_TYPES and path.is_file() and not path.is_symlink():
                found.setdefault(path.stem, path)
    except OSError:  # there are none
        return {}
    return dict(sorted(found.items()))
