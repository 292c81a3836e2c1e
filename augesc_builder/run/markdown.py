"""Tables in Markdown, aligned so that they also read well as plain text; and templates of cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from augesc_builder.run.escape import (
    for_markdown,
    for_markdown_cell,
    markdown_block,
    markdown_code,
)

if TYPE_CHECKING:
    import jinja2

NOTHING = "-"
"""Stands where a number is undefined."""


class Bold(str):
    """A cell of a table that stands out."""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, its columns aligned: the first left, the others right.

    Cells are text: what would be Markdown in them is escaped.
    """
    lines = [[_cell(cell) for cell in line] for line in (header, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def write(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * w if i == 0 else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([write(lines[0]), f"| {' | '.join(rule)} |", *map(write, lines[1:])])


def _cell(text: str) -> str:
    escaped = for_markdown_cell(text)
    return f"**{escaped}**" if isinstance(text, Bold) and escaped else escaped


def markdown_template(text: str) -> jinja2.Template:
    """Return a template of Markdown, in which an unknown slot is an error.

    What a slot is filled with from data goes through one of its filters: ``text``, ``code`` (a code
    span) or ``block`` (a block of code, in a language).
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    )
    environment.filters |= {"text": for_markdown, "code": markdown_code, "block": markdown_block}
    return environment.from_string(text)
