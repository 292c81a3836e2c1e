"""Tables with titles and notes, one below the other, in Markdown and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from augesc_builder.run.escape import for_latex, for_markdown
from augesc_builder.run.latex import latex_table
from augesc_builder.run.markdown import markdown_table

_PER_CENT = re.compile(r"(?<!\\)%")
_ESCAPED = r"\\%"


class Table(NamedTuple):
    """A table, and what is said below it by a function that is given how names are escaped."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: Callable[[Callable[[str], str]], str] | None = None


def markdown_document(tables: Iterable[Table]) -> str:
    """Write tables in Markdown that is legible on a terminal too."""
    parts = []
    for table in tables:
        parts += [f"## {table.title}", markdown_table(table.header, table.rows)]
        parts += [table.note(for_markdown)] if table.note is not None else []
    return "\n\n".join(parts)


def latex_document(tables: Iterable[Table]) -> str:
    """Write tables in LaTeX, their notes as captions."""
    parts = [r"% needs \usepackage{booktabs}"]
    for table in tables:
        note = f" {_PER_CENT.sub(_ESCAPED, table.note(for_latex))}" if table.note else ""
        parts.append(latex_table(f"{table.title}.{note}", table.header, table.rows))
    return "\n\n".join(parts)
