"""Where texts are from is told in tables: a stranger's word for it is text there, and no more."""

from __future__ import annotations

import json

from markdown_it import MarkdownIt

STRANGE = "<script>x</script>\n\n# Mine\r![i](http://x/i.png) | `b` \x1b[2J\u202e"


def test_a_source_is_text_in_the_report_and_on_the_terminal(augesc, tmp_path):
    rows = [
        {"query": "I feel low.", "text": " I am sorry.", "source": source}
        for source in (STRANGE, "plain")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    code, said, err = augesc("filter", tmp_path / "rows.jsonl", "--out", out)
    assert code == 0, err
    assert "\x1b" not in said
    assert "\u202e" not in said
    tokens = MarkdownIt("commonmark").enable("table").parse((out / "filter_report.md").read_text())
    outer = [token.type for token in tokens if token.level == 0]
    assert outer == ["table_open", "table_close", "paragraph_open", "paragraph_close"]  # footnote
    cells = [child.type for token in tokens for child in token.children or ()]
    assert set(cells) <= {"text", "text_special"}
    assert "&lt;script>" in (out / "filter_report.md").read_text()


def test_keys_and_columns_of_strangers_command_no_terminal(refused, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "rows.jsonl").write_text(json.dumps({STRANGE: STRANGE}) + "\n")
    pq.write_table(pa.table({STRANGE: ["x"]}), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        for command in ("filter", "stats"):
            line = refused(command, tmp_path / name, "--out", tmp_path / "out")
            assert "\x1b" not in line
            assert "\u202e" not in line
