"""How many posts came in, what rejected them, and what stayed: ``queries_report.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from augesc_builder.readers.records import BadLines
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.sources.registry import find_source


@dataclass
class Funnel:
    """The counts of one source. A post can be rejected for several reasons, and counts for each."""

    source: str
    n_posts: int = 0
    n_queries: int = 0
    n_rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    bad: BadLines = field(default_factory=BadLines)

    def add(
        self, queries: Sequence[Mapping[str, Any]], rejected: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count a batch."""
        self.n_queries += len(queries)
        self.n_rejected += len(rejected)
        self.lengths.update(row["n_words"] for row in queries)
        self.reasons.update(reason for row in rejected for reason in row["reasons"])

    def add_bad(self, bad: BadLines) -> None:
        """Count lines that could not be read."""
        self.bad.merge(bad)

    def why(self) -> str:
        """Return, in words, the rules that rejected the posts."""
        found = [f"{n:,} for {reason}" for reason, n in self.reasons.most_common()]
        if self.bad.count:
            found.append(f"{self.bad.count:,} lines unreadable")
        return ", ".join(found) or "there were none"

    def report(self) -> dict[str, Any]:
        """Return the funnel as JSON values, beside the paper's figures."""
        info = find_source(self.source)
        theirs = info and info.paper
        return {
            "posts": self.n_posts,
            "bad_lines": self.bad.report(),
            "rejected": self.n_rejected,
            "dropped": dict(self.reasons.most_common()),
            "queries": self.n_queries,
            "words": {
                "mean": round(
                    sum(n * k for n, k in self.lengths.items()) / max(self.n_queries, 1), 2
                ),
                **{f"q{q}": self._quantile(q / 100) for q in (25, 50, 75)},
            },
            "paper": theirs and {"queries": theirs[0], "mean_words": theirs[1]},
        }

    def _quantile(self, share: float) -> int | None:
        """Return the smallest length that at least this share of the queries does not exceed."""
        below = 0
        for length in sorted(self.lengths):
            below += self.lengths[length]
            if below >= share * self.n_queries:
                return length
        return None


def funnel_table(report: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the funnels of all sources as one table, a source a column."""
    return markdown_table(*funnel_rows(report))


def funnel_rows(report: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of :func:`funnel_table`."""
    reasons = list(dict.fromkeys(r for part in report.values() for r in part["dropped"]))

    def row(label: str, cell: Any) -> list[str]:
        return [label, *(_cell(cell(part)) for part in report.values())]

    rows = [row("posts", lambda p: p["posts"])]
    if any(part["bad_lines"]["count"] for part in report.values()):
        rows.append(row("unreadable lines", lambda p: p["bad_lines"]["count"]))
    rows += [row(f"- {r}", lambda p, r=r: p["dropped"].get(r, 0)) for r in reasons]
    rows += [
        row("queries", lambda p: p["queries"]),
        row("mean words", lambda p: p["words"]["mean"]),
        row("quartiles", lambda p: "{q25} / {q50} / {q75}".format(**p["words"])),
        row("paper: queries", lambda p: p["paper"] and p["paper"]["queries"]),
        row("paper: mean words", lambda p: p["paper"] and p["paper"]["mean_words"]),
    ]
    return ["", *report], rows


def _cell(value: Any) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int | float) else str(value)
