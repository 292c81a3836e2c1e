"""Tables of a run beside the paper's, as Markdown that is legible on a console too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augesc_builder import paper
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.sources.registry import source_label

STATISTICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sessions", ("sessions",)),
    ("words a session", ("mean_session_words",)),
    ("unique words", ("unique_words",)),
    ("seeker: utterances", ("seeker", "utterances")),
    ("seeker: utterances a session", ("seeker", "mean_utterances")),
    ("seeker: words an utterance", ("seeker", "mean_utterance_words")),
    ("seeker: unique words", ("seeker", "unique_words")),
    ("supporter: utterances", ("supporter", "utterances")),
    ("supporter: utterances a session", ("supporter", "mean_utterances")),
    ("supporter: words an utterance", ("supporter", "mean_utterance_words")),
    ("supporter: unique words", ("supporter", "unique_words")),
)
"""The rows of Table 2: their names, and where ``statistics.json`` has them."""


def statistics_table(statistics: Mapping[str, Any], *, with_paper: bool) -> str:
    """Write Table 2: a statistic a row; the sets, all of them, those beside, the paper's."""
    return markdown_table(*rows_of_sets(statistics, with_paper=with_paper))


def rows_of_sets(
    statistics: Mapping[str, Any], *, with_paper: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the rows of :func:`statistics_table`."""
    sets = {source_label(name): part for name, part in statistics["by_source"].items()}
    if len(sets) != 1:
        sets["all"] = statistics
    sets |= statistics.get("beside", {})
    return statistic_rows(sets, with_paper=with_paper)


def statistic_rows(
    sets: Mapping[str, Mapping[str, Any]], *, with_paper: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the headings of Table 2 and its rows, a column for each of the sets."""
    columns = {name: [_number(_at(s, path)) for _, path in STATISTICS] for name, s in sets.items()}
    if with_paper:
        columns |= {f"paper: {name}": list(cells) for name, cells in paper.TABLE_2.items()}
    rows = [
        [label, *(column[i] for column in columns.values())]
        for i, (label, _) in enumerate(STATISTICS)
    ]
    return ["", *columns], rows


def topics_text(statistics: Mapping[str, Any]) -> str:
    """Say how Figure 4 compares words: of how many sessions, which words, with which prior."""
    how = statistics["settings"]
    n = how["topic_sample"]
    return (
        "z of the log odds ratio of each set against all others; "
        + ("all sessions" if n is None else f"at most {n:,} sessions of a set, seed {how['seed']}")
        + f"; stop words {'kept' if how['stop_words'] == 'keep' else 'left out'}; "
        f"prior: {how['prior']}"
    )


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
