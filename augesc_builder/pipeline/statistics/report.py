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


def figure_4_text(statistics: Mapping[str, Any]) -> str | None:
    """Say how far Figure 4 is the printed one, where the paper's sets are at hand."""
    found = statistics.get("figure_4")
    if not found:
        return None
    parts = []
    for name, roles in found.items():
        for role, of in roles.items():
            r = of["rank_correlation"]
            ranks = "" if r is None else f", rank correlation {r:.2f}"
            parts.append(f"{name}, {role}: {of['shared']} of {of['printed']}{ranks}")
    return f"printed words that are ours too: {'; '.join(parts)}"


def overlap_tables(statistics: Mapping[str, Any]) -> list[str]:
    """Write what each set shares with test sessions, a table for each set of those, if any."""
    sets = {source_label(name): part for name, part in statistics["by_source"].items()}
    if len(sets) != 1:
        sets["all"] = statistics
    return [
        _overlap_table(test, {name: part["overlap"][test] for name, part in sets.items()})
        for test in statistics.get("overlap", {})
    ]


def _overlap_table(test: str, sets: Mapping[str, Mapping[str, Any]]) -> str:
    some = next(iter(sets.values()))
    header = [
        f"shared with {some['test_sessions']:,} test sessions of {test}",
        *("sessions", f"near duplicates, from {some['similarity']:g}", "of test sessions"),
        *(f"{some['span']} words in a row", "of test sessions", f"{some['n']}-grams"),
    ]
    rows = [
        [
            name,
            f"{found['sessions']:,}",
            _with_share(found["near_duplicate_sessions"], found["near_duplicate_share"]),
            f"{found['near_duplicated_test_sessions']:,}",
            _with_share(found["span_sessions"], found["span_share"]),
            f"{found['span_test_sessions']:,}",
            NOTHING if found["shared_share"] is None else f"{found['shared_share']:.1%}",
        ]
        for name, found in sets.items()
    ]
    return markdown_table(header, rows)


def _with_share(n: int, share: float | None) -> str:
    return f"{n:,}" if share is None else f"{n:,} ({share:.1%})"


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        values = values[key]
    return values


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
