"""How near the queries from EmpatheticDialogues come to the paper's 8,950 of 19.9 words.

    python benchmarks/empathetic_dialogues.py [FILE ...] [--tiny]

FILE is an official CSV. The first table has other rules than ours, one at a time: what is read of a
conversation, how words are counted, which bounds hold. The last row has the choice among our
negative labels that keeps the paper's share of all posts with the fewest words a query. The second
table has the negative labels.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from augesc_builder.config.recipe import load_recipe
from augesc_builder.paper import QUERIES
from augesc_builder.readers.jsonl import read_lines
from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.empathetic_dialogues import COLUMNS
from augesc_builder.sources.sample import read_sample_queries
from augesc_builder.text import words
from benchmarks.harness import SHARED, options, parse

OF_THE_CORPUS = 24_850
"""Conversations of EmpatheticDialogues (Rashkin et al. 2019), of which the paper has a share."""

_NEAR = 0.01
"""How far from that share a choice of labels may be."""

Row = dict[str, str]


def main() -> None:
    """Print both tables."""
    parser = options(__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    given = parse(parser)
    files = given.files or sorted((SHARED / "empathetic_dialogues").glob("*.csv"))
    rows = list(_sample() if given.tiny or not files else _rows(files))
    name = "the bundled sample" if given.tiny or not files else ", ".join(f.name for f in files)
    negative = load_recipe("paper").queries.negative_emotions
    asked = [row for row in rows if row["context"] in negative]
    share = QUERIES["empathetic_dialogues"][0] / OF_THE_CORPUS
    lengths = {label: _lengths(asked, label) for label in sorted(negative)}
    table = [
        _line(rule, kept, len(rows))
        for rule, kept in {
            "ours: words by NLTK, 10 to 60, first utterance": _within(asked),
            "words are what blanks part": _within(asked, count=lambda text: len(text.split())),
            "words by NLTK, punctuation marks left out": _within(asked, count=_spoken),
            "commas left as the file writes them": _within(asked, column="raw"),
            "10 to 50": _within(asked, high=50),
            "more than 10, fewer than 60": _within(asked, low=11, high=59),
            "the situation for the first utterance": _within(asked, column="prompt"),
            f"a choice of labels that keeps {share:.0%}": _fewest_words(lengths, len(rows), share),
        }.items()
    ]
    print(f"{name}: {len(rows):,} conversations\n")
    print(markdown_table(["rule", "queries", "% of posts", "mean words"], table))
    labels = [_line(label, kept, len(rows)) for label, kept in lengths.items()]
    print()
    print(markdown_table(["negative label", "queries", "% of posts", "mean words"], labels))


def _rows(files: list[Path]) -> Iterator[Row]:
    """Yield the first line of each conversation, its commas as they were (and ``raw`` as not)."""
    for file in files:
        for _, line in itertools.islice(read_lines(file), 1, None):
            text = line.decode() if isinstance(line, bytes) else ""
            row = dict(zip(COLUMNS, text.split(","), strict=False))
            if row.get("utterance_idx") == "1":
                commas = {key: _plain(row[key]) for key in ("prompt", "utterance")}
                yield {"context": row["context"], "raw": row["utterance"], **commas}


def _sample() -> Iterator[Row]:
    for post in read_sample_queries():
        said = dict.fromkeys(("prompt", "utterance", "raw"), post.text)
        yield {"context": post.emotion or "", **said}


def _plain(text: str) -> str:
    return html.unescape(text.replace("_comma_", ","))


def _within(
    rows: list[Row],
    *,
    column: str = "utterance",
    count: Callable[[str], int] = words.count,
    low: int = 10,
    high: int = 60,
) -> list[int]:
    """Return the lengths of the posts that the rule keeps."""
    return [n for row in rows if low <= (n := count(row[column])) <= high]


def _spoken(text: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in words.tokenize(text))


def _lengths(rows: list[Row], label: str) -> list[int]:
    return _within([row for row in rows if row["context"] == label])


def _fewest_words(lengths: dict[str, list[int]], n_rows: int, share: float) -> list[int]:
    """Return the lengths of that choice of labels; all of them where none keeps the share."""
    every = list(lengths.values())
    choices = (
        choice
        for size in range(1, len(every))
        for choice in itertools.combinations([(len(part), sum(part), part) for part in every], size)
    )
    near = [
        choice for choice in choices if abs(sum(n for n, _, _ in choice) / n_rows - share) <= _NEAR
    ]
    best = min(near, key=lambda c: sum(s for _, s, _ in c) / sum(n for n, _, _ in c), default=None)
    return [n for part in (best or [(0, 0, part) for part in every]) for n in part[2]]


def _line(name: str, kept: list[int], n_rows: int) -> list[str]:
    mean = sum(kept) / len(kept) if kept else 0.0
    return [name, f"{len(kept):,}", f"{100 * len(kept) / n_rows:.1f}", f"{mean:.2f}"]


if __name__ == "__main__":
    main()
