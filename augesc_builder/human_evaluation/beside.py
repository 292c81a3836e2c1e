"""What stands beside a session on its page: what is measured of it, and what that points at."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augesc_builder.human_evaluation.shelf import Item
from augesc_builder.metrics.scored import Finding
from augesc_builder.readers.parquet import open_table, read_table

_MEASURES = {
    "total_tokens": "tokens, prompt included",
    "n_utterances": "utterances",
    "longest_run": "most utterances in a row",
    "utterance_ratio": "ratio of utterances, more to fewer",
    "n_role_words": "role words",
    "seeker_mean_words": "words an utterance, seeker",
    "supporter_mean_words": "words an utterance, supporter",
}

_WHERE = ("utterance", "start", "end")


def measures(item: Item) -> list[tuple[str, str]]:
    """Return what the requirements look at in a session: names and numbers, as words are counted.

    None where the text is no conversation.
    """
    if item.messages is None:
        return []
    from augesc_builder.pipeline.filter.measure import measure_conversations

    columns = measure_conversations([item.messages], [item.n_tokens], _paper_requirements())
    found = [(name, columns[key][0]) for key, name in _MEASURES.items()]
    words = [sum(columns[key][0]) for key in ("seeker_words", "supporter_words")]
    found.append(("words in all", sum(words)))
    return [
        (name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}")
        for name, value in found
        if value is not None
    ]


@functools.cache
def _paper_requirements() -> Any:
    from augesc_builder.config.recipe import load_recipe

    return load_recipe("paper").requirements


class Findings:
    """What measures of quality point at, in tables of theirs, read for a session at a time.

    Raises :class:`~augesc_builder.errors.InputError` where a file is no such table.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        for file in files:
            for row, name in enumerate(read_table(file, ["session_id"])["session_id"].to_pylist()):
                self._places[name] = file, row

    def of(self, session: str) -> list[Finding]:
        """Return the findings of a session by its id; what has no place in it is left out."""
        if session not in self._places:
            return []
        path, row = self._places[session]
        with open_table(path) as file:
            for number in range(file.num_row_groups):
                n_rows = file.metadata.row_group(number).num_rows
                if row < n_rows:
                    group = file.read_row_group(number, columns=["findings"])
                    found = group.slice(row, 1)["findings"].to_pylist()[0]
                    return [_finding(one) for one in found or () if _has_place(one)]
                row -= n_rows
        return []


def _has_place(value: Any) -> bool:
    """Whether a finding says what it is and where: others' tables may hold anything."""
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("kind", "reason"))
        and all(isinstance(value.get(name), int) for name in _WHERE)
    )


def _finding(value: dict[str, Any]) -> Finding:
    utterance, start, end = (value[name] for name in _WHERE)
    return Finding(value["kind"], utterance, start, end, value["reason"])
