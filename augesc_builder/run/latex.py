"""Tables in LaTeX, whatever their cells say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from augesc_builder.run.escape import for_latex
from augesc_builder.run.markdown import Bold

_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def latex_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a table: the first column left, the others right; needs ``\usepackage{booktabs}``.

    Cells are text: what would be LaTeX in them is escaped; the caption is LaTeX.
    """
    lines = [" & ".join(map(_cell, row)) + r" \\" for row in (header, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\end{table}",
        ]
    )


def _cell(text: str) -> str:
    escaped = _MINUS.sub("$-$", for_latex(text))
    return rf"\textbf{{{escaped}}}" if isinstance(text, Bold) else escaped
