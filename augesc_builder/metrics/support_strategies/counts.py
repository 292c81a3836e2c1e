"""Strategies over a corpus, by how far the conversation is, and how far from ESConv's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augesc_builder.metrics.intervals import Numbers
from augesc_builder.text.strategies import GROUPS, STRATEGIES

PARTS = 6
"""Equal parts of a session's utterances, as ESConv's authors cut conversations (their figure 3)."""

_NUMBER = {strategy: i for i, strategy in enumerate(STRATEGIES)}

# Of the train split of thu-coai/esconv, all utterances counted: a row a part, first to last.
ESCONV = np.array(
    [
        [1259, 260, 102, 92, 179, 36, 29, 357],
        [457, 253, 243, 256, 393, 233, 90, 136],
        [334, 104, 227, 245, 345, 470, 179, 178],
        [270, 72, 182, 261, 368, 564, 188, 268],
        [194, 61, 151, 222, 409, 427, 217, 427],
        [108, 48, 85, 109, 294, 257, 132, 988],
    ],
    np.float64,
)
"""ESConv's own labels: turns of each part (6) with each strategy (8), in the order of
:data:`~augesc_builder.text.strategies.STRATEGIES`."""


class StrategyCounts:
    """Counts of strategies; those of other sessions can be merged in."""

    def __init__(self) -> None:
        self.sessions = 0
        self.turns: Numbers = np.zeros((PARTS, len(STRATEGIES)))

    def add(self, labels: Sequence[str | None]) -> None:
        """Count a session by the strategy of each utterance, ``None`` where it has none."""
        self.sessions += 1
        for i, label in enumerate(labels):
            if label is not None:
                self.turns[i * PARTS // len(labels), _NUMBER[label]] += 1

    def merge(self, other: StrategyCounts) -> None:
        """Add the counts of other sessions."""
        self.sessions += other.sessions
        self.turns += other.turns

    def statistics(self) -> dict[str, Any]:
        """Return the measurement."""
        whole, parts = _shares(self.turns.sum(0)), [_shares(row) for row in self.turns]
        n = int(self.turns.sum())
        groups = dict.fromkeys(GROUPS.values(), 0.0)
        for strategy, share in zip(STRATEGIES, self.turns.sum(0) / max(n, 1), strict=True):
            groups[GROUPS[strategy]] += float(share)
        esconv = [_shares(row) for row in ESCONV]
        distances = [_distance(ours, row) for ours, row in zip(parts, esconv, strict=True)]
        told = [distance for distance in distances if distance is not None]
        return {
            "sessions": self.sessions,
            "supporter_turns": n,
            "shares": whole,
            "groups": groups if n else dict.fromkeys(groups),
            "by_progress": parts,
            "esconv_shares": _shares(ESCONV.sum(0)),
            "esconv_by_progress": esconv,
            "distance": _distance(whole, _shares(ESCONV.sum(0))),
            "distance_by_progress": distances,
            "mean_distance_by_progress": sum(told) / len(told) if told else None,
        }


def _shares(turns: Numbers) -> dict[str, float | None]:
    """Return the share of each strategy; ``None`` of no turns."""
    total = turns.sum()
    return {
        strategy: float(n / total) if total else None
        for strategy, n in zip(STRATEGIES, turns, strict=True)
    }


def _distance(ours: dict[str, float | None], theirs: dict[str, float | None]) -> float | None:
    """Return the total variation distance of two sets of shares, 0 to 1."""
    pairs = [(ours[strategy], theirs[strategy]) for strategy in STRATEGIES]
    differences = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return sum(differences) / 2 if len(differences) == len(pairs) else None


def strategies_table(statistics: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of strategies by progress, each beside ESConv's, in percent."""
    header = ["", "all", *(f"{100 * i // PARTS}-{100 * (i + 1) // PARTS} %" for i in range(PARTS))]
    ours = [statistics["shares"], *statistics["by_progress"]]
    theirs = [statistics["esconv_shares"], *statistics["esconv_by_progress"]]

    def cell(a: float | None, b: float | None) -> str:
        return " / ".join("-" if x is None else f"{100 * x:.0f}" for x in (a, b))

    rows = [
        [strategy, *(cell(a[strategy], b[strategy]) for a, b in zip(ours, theirs, strict=True))]
        for strategy in STRATEGIES
    ]
    far = [statistics["distance"], *statistics["distance_by_progress"]]
    rows.append(["distance (0 to 1)", *("-" if x is None else f"{x:.2f}" for x in far)])
    return header, rows
