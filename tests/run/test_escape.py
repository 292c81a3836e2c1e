"""Whatever a stranger writes, a terminal, a Markdown parser and an XML parser see text."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from xml.etree import ElementTree
from xml.sax.saxutils import escape as xml_escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from augesc_builder.run.escape import (
    for_latex,
    for_markdown,
    for_svg,
    for_terminal,
    markdown_block,
    markdown_code,
    markdown_quote,
)
from augesc_builder.run.latex import latex_table
from augesc_builder.run.markdown import markdown_table
from tests.conftest import often

PIECES = st.sampled_from(
    [
        *("\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\r", "\n", "\r\n", "\v", "\f", "\x85", "\u2028"),
        *("\x1c", "\u202e", "\u2066", "\u200f", "\ud800", "\ufffe", "\x00", "\t", "    ", " "),
        *("<script>", "</p>", "<!--", "-->", "![a](http://x/y.png)", "[a](b)", "[a]", "[", "]"),
        *(
            "[a]: http://x",
            "(b)",
            "(",
            ")",
            "# a",
            "#",
            "- ",
            "-",
            "---",
            "+ ",
            "1. ",
            "1) ",
            "===",
            "> ",
        ),
        *(
            "`",
            "``",
            "```",
            "~~~",
            "~~a~~",
            "*",
            "**",
            "_",
            "__",
            "a_b",
            "\\",
            "&lt;",
            "&#60;",
            "&",
        ),
        *(
            "<http://x>",
            "<a@b.c>",
            "|",
            "| - |",
            "$",
            "$$",
            "$a$",
            "a",
            "word",
            ":",
            "!",
            "é",
            "字",
            "=",
            ".",
        ),
    ]
)
HOSTILE = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)
COMMONMARK = MarkdownIt("commonmark")
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])

TEXT = {"text", "softbreak", "hardbreak", "text_special"}


def inline(source: str, parser: MarkdownIt = COMMONMARK) -> tuple[list[str], list]:
    """Give the kinds of blocks, and what stands in them."""
    tokens = parser.parse(source)
    return (
        [token.type for token in tokens],
        [child for token in tokens for child in token.children or ()],
    )


def shown(text: str) -> str:
    """What a reader sees of a text in one line."""
    return " ".join(for_terminal(" ".join(" ".join(text.splitlines()).split())).split())


@given(HOSTILE)
@example("\x1b[31mred\x1b[0m \u202eknil \ud800")
def test_a_terminal_is_given_no_command(text):
    said = for_terminal(text)
    kinds = {unicodedata.category(c) for c in said if c not in "\n\t"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert not [c for c in said if unicodedata.bidirectional(c) in BIDI]
    assert said == for_terminal(said)
    said.encode()


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_plain_text_stays_as_it_is():
    text = "Die Straße: 字, émigré 🙂 a_b -- 3 < 4\n\tnext line"
    assert for_terminal(text) == text
    for name in ("my_run", "sets of ESConv (all)", "12.3 [11.2, 13.0]", "- no reason", "50 %"):
        assert markdown_table([name], []).splitlines()[0] == f"| {name} |"


@pytest.mark.parametrize("parser", [COMMONMARK, GITHUB], ids=["CommonMark", "GitHub"])
@given(text=HOSTILE)
@example(text="</p><script>alert(1)</script>")
@example(text="a\r# heading\r![x](http://y)")
@example(text="1234. a")
@example(text="[a]: http://x")
def test_markdown_says_the_text_and_nothing_else(parser, text):
    if not shown(text):
        return
    blocks, parts = inline(for_markdown(text), parser)
    assert blocks == ["paragraph_open", "inline", "paragraph_close"]
    assert {part.type for part in parts} <= TEXT
    assert "".join(part.content for part in parts) == shown(text)


@given(HOSTILE)
@example("a\r# heading\r\r![x](http://y)\n\n    code")
@example("a\n\n- list\n\n===")
def test_a_quote_keeps_what_is_in_it(text):
    blocks, parts = inline(markdown_quote(text) + "\n\nours")
    assert blocks[0] == "blockquote_open"
    assert blocks.count("blockquote_open") == 1
    assert set(blocks) <= {
        *("blockquote_open", "blockquote_close"),
        *("paragraph_open", "inline", "paragraph_close"),
    }
    assert blocks[-4:] == ["blockquote_close", "paragraph_open", "inline", "paragraph_close"]
    assert {part.type for part in parts} <= TEXT


@given(HOSTILE)
@example("`")
@example("a``b`")
@example("")
def test_a_code_span_is_one(text):
    _, parts = inline(f"of {markdown_code(text)} here")
    assert [part.type for part in parts] == ["text", "code_inline", "text"]
    assert parts[1].content.strip() == shown(text)


@given(HOSTILE)
@example("```\n# heading\n```")
def test_a_block_of_code_is_one(text):
    blocks, _ = inline(f"{markdown_block(text, 'yaml')}\n\nours")
    assert blocks == ["fence", "paragraph_open", "inline", "paragraph_close"]


@given(st.lists(st.lists(HOSTILE, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_table_has_the_cells_that_it_was_given(rows):
    source = markdown_table(["a", *rows[0][1:]], rows)
    blocks, parts = inline(source, GITHUB)
    assert blocks[0] == "table_open"
    assert blocks[-1] == "table_close"
    assert blocks.count("td_open") == 3 * len(rows)
    assert {part.type for part in parts} <= TEXT
    cells = [
        "".join(child.content for child in token.children)
        for token in GITHUB.parse(source)
        if token.type == "inline"
    ]
    assert cells[3:] == [shown(cell) for row in rows for cell in row]


SPELLED = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    **{r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|"},
    **{rf"\char{ord(sign)}{{}}": sign for sign in "\"`'"},
    **{rf"\{sign}": sign for sign in "{}$&#_%"},
    **{f"{{{sign}}}": sign for sign in "*[]-?!"},
}


@given(HOSTILE)
@example('\\input{/etc/passwd} $x_1^2$ & 5% #1 ~ [3] * --- ?` "a" `b\'')
@example("\u00fc\u4f60\U0001f622\u00de")
def test_latex_says_the_text_and_nothing_else(text):
    found, read = for_latex(text), ""
    pattern = "|".join([*map(re.escape, SPELLED), r"\\texttt\{U\+([0-9A-F]+)\}", "(.)"])
    for piece in re.finditer(pattern, found):
        code, plain = piece.groups()
        assert plain is None or (plain not in "\\{}$&#_%~^<>|\"`'*[]" and plain.isprintable())
        read += chr(int(code, 16)) if code else SPELLED.get(piece[0], plain)
    assert read == " ".join(for_terminal(" ".join(text.split())).split()) or "\\x" in read
    assert "--" not in found


def test_a_table_in_latex_has_a_row_a_line():
    table = latex_table("Caption", ["a & b", "c"], [["x_1", "-0.5 [-1.0, 2.0] *"], ["[y]", "-"]])
    assert table.splitlines()[2:9] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a \& b & c \\",
        r"\midrule",
        r"x\_1 & $-$0.5 {[}$-$1.0, 2.0{]} {*} \\",
        r"{[}y{]} & - \\",
        r"\bottomrule",
    ]


@given(HOSTILE)
@example("a\x0bb\ufffe")
def test_a_label_is_xml(text):
    label = for_svg(text)
    assert (ElementTree.fromstring(f"<t>{xml_escape(label)}</t>").text or "") == label
    assert len(label) <= 60


def test_a_drawn_svg_is_xml():
    from hypothesis import settings
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    @settings(max_examples=often(25))
    @given(HOSTILE)
    def draw(text):
        file = io.BytesIO()
        with (
            rc_context({"text.parse_math": False, "svg.fonttype": "none"}),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
            figure = Figure(figsize=(2, 2))
            figure.subplots().set_title(for_svg(text))
            figure.savefig(file, format="svg")
        drawn = ElementTree.fromstring(file.getvalue())
        said = " ".join("".join(drawn.itertext()).split())
        assert " ".join(for_svg(text).split()) in said

    draw()
