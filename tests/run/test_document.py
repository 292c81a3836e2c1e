"""Tables with notes: strangers' names stay text, in cells and in what is said below."""

from __future__ import annotations

from augesc_builder.run.document import Table, latex_document, markdown_document
from augesc_builder.run.markdown import Bold

EVIL = "50% of |x| <b>"


def table():
    return Table(
        "Title",
        ["", "Δ ≤ 1 ↓"],
        [[EVIL, Bold("1.00")], ["plain", "-2"]],
        lambda escape: f"Of {escape(EVIL)}: 95% intervals.",
    )


def test_markdown():
    text = markdown_document([table(), Table("Other", ["a"], [["b"]])])
    assert text.startswith("## Title\n\n| ")
    assert "| **1.00** |" in text
    assert "Of 50% of \\|x\\| &lt;b>: 95% intervals." in text
    assert text.endswith("## Other\n\n| a   |\n| --- |\n| b   |")


def test_a_per_cent_sign_in_a_note_is_escaped_once_whoever_wrote_it():
    text = latex_document([table()])
    assert r"Of 50\% of \textbar{}x\textbar{} \textless{}b\textgreater{}: 95\% intervals." in text
    assert r"\\%" not in text


def test_latex_has_bold_cells_and_the_signs_of_table_3():
    text = latex_document([table()])
    assert r"\textbf{1.00} \\" in text
    assert r" & $\Delta$ $\leq$ 1 $\downarrow$ \\" in text
    assert r"plain & $-$2 \\" in text
