"""Strangers' text made harmless where it is shown: terminal, Markdown, LaTeX, figures.

Posts, their keys, file names and column names are written by others. Nothing of them may move a
cursor, turn the direction of writing, add a heading or an image to a card, or break a picture.
"""

from __future__ import annotations

import re

_UNSHOWN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, tab and line feed aside
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those of the direction of writing
    r"\u2028\u2029\ud800-\udfff\ufffe\uffff]"  # separators, halves of pairs, no characters
)
_LINE_ENDS = re.compile(r"\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_MARKUP = re.compile(
    r"[\\`*<|~$]"
    r"|&(?=[#\w])"  # an entity
    r"|\](?=[(\[:])"  # a link, a definition
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it emphasizes nothing
)
_BLOCK = re.compile(r"^(\d*)([-+=#>.)])")
_TICKS = re.compile("`+")
_LINK = re.compile(r"\]$")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
_LONGEST_LABEL = 40
_LATEX = re.compile(
    r"[\\{}$&#_%~^<>|\"`'*\[\]]"  # commands; a star or bracket is an option behind a line's end
    r"|-(?=-)|[?!](?=`)"  # ligatures
    r"|[^ -~\u00c0-\u00cf\u00d1-\u00d6\u00d8-\u00dd\u00df-\u00ef\u00f1-\u00f6\u00f8-\u00fd\u00ff]"
)
_LATEX_NAMES = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{'"': r"\char34{}", "`": r"\char96{}", "'": r"\char39{}"},
    **{sign: rf"\{sign}" for sign in "{}$&#_%"},
    **{sign: f"{{{sign}}}" for sign in "*[]-?!"},
    **{"Δ": r"$\Delta$", "≤": r"$\leq$", "↓": r"$\downarrow$"},
}


def for_terminal(text: str) -> str:
    r"""Return a text as a terminal shows it: what would command the terminal is written out.

    Lines and tabs stay; an escape character, for one, becomes the four characters ``\x1b``.
    """
    return _UNSHOWN.sub(_written_out, text)


def for_markdown(text: str) -> str:
    """Return a text as Markdown of one line that says just this text, wherever it is put.

    Line ends become blanks. A web address stays what it is, which GitHub makes a link of.
    """
    return _LINK.sub(r"\\]", _BLOCK.sub(r"\1\\\2", for_markdown_cell(text)))


def for_markdown_cell(text: str) -> str:
    """Return a text as :func:`for_markdown` does, for where no block begins, as in a table."""
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), _one_line(text))


def for_svg(text: str) -> str:
    """Return a text as a label of a figure: one line of characters that XML allows, cut if long."""
    line = _one_line(text)
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"


def for_latex(text: str) -> str:
    """Return a text as LaTeX of one line that says just this text, wherever it is put.

    Letters that pdfLaTeX may not know are written as their code points.
    """
    return _LATEX.sub(_in_latex, _one_line(text))


def markdown_quote(text: str) -> str:
    """Return a text as a quote in Markdown, line by line, of which nothing gets out."""
    lines = _LINE_ENDS.split(text)
    return "\n".join(f"> {for_markdown(line)}  ".rstrip() + "  " for line in lines).rstrip()


def markdown_code(text: str) -> str:
    """Return a text as a code span in Markdown. Not for tables, where a bar ends the cell."""
    line = _one_line(text)
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence} {line} {fence}" if not line or "`" in line else f"{fence}{line}{fence}"


def markdown_block(text: str, language: str = "") -> str:
    """Return a text as a block of code in Markdown, of which nothing gets out."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{for_terminal(text)}\n{fence}"


def _in_latex(found: re.Match[str]) -> str:
    sign = found[0]
    return _LATEX_NAMES.get(sign) or rf"\texttt{{U+{ord(sign):04X}}}"


def _one_line(text: str) -> str:
    return for_terminal(" ".join(_LINE_ENDS.sub(" ", text).split()))


def _longest_run(text: str) -> int:
    return max(map(len, _TICKS.findall(text)), default=0)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
