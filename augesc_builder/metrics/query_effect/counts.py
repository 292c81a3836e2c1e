"""Sums over query lengths, made chunk by chunk."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from augesc_builder.metrics.tokenized import Spoken, mean

BIN_WORDS = 5
_UNIT = 1 << 20
"""Means are summed in whole parts of a word, so that the order of the sessions changes nothing."""


class QueryCounts:
    """Sums for each query length; counts of other sessions can be merged in."""

    def __init__(self) -> None:
        self.sums: dict[int, tuple[int, int, int]] = {}
        """Query length to sessions, and the sums of their means and of the squares of those."""

    def add(self, session: Spoken) -> None:
        """Count a session."""
        if len(session) > 1:
            n_words = [len(said.words) for said in session]
            average = round(Fraction(sum(n_words[1:]), len(n_words) - 1) * _UNIT)
            self._add(n_words[0], (1, average, average**2))

    def merge(self, other: QueryCounts) -> None:
        """Add the counts of other sessions."""
        for length, sums in other.sums.items():
            self._add(length, sums)

    def _add(self, length: int, sums: tuple[int, int, int]) -> None:
        n, total, squares = self.sums.get(length, (0, 0, 0))
        self.sums[length] = (n + sums[0], total + sums[1], squares + sums[2])

    def statistics(self, bin_words: int = BIN_WORDS) -> dict[str, Any]:
        """Return the measurement."""
        bins: dict[int, QueryCounts] = {}
        for length, sums in sorted(self.sums.items()):
            bins.setdefault(length // bin_words, QueryCounts())._add(length, sums)
        n, total, squares = self._totals()
        words = sum(length * n for length, (n, _, _) in self.sums.items())
        words_squared = sum(length**2 * n for length, (n, _, _) in self.sums.items())
        product = sum(length * total for length, (_, total, _) in self.sums.items())
        spread = (n * words_squared - words**2) * (n * squares - total**2)
        return {
            "sessions": n,
            "mean_query_words": mean(words, n),
            "mean_utterance_words": mean(total / _UNIT, n),
            "correlation": (n * product - words * total) / math.sqrt(spread) if spread else None,
            "bins": [
                {
                    "from": number * bin_words,
                    "to": (number + 1) * bin_words - 1,
                    **part._spread(),
                }
                for number, part in bins.items()
            ],
        }

    def _totals(self) -> tuple[int, int, int]:
        n, total, squares = (sum(part) for part in zip((0, 0, 0), *self.sums.values(), strict=True))
        return n, total, squares

    def _spread(self) -> dict[str, Any]:
        n, total, squares = self._totals()
        variance = Fraction(n * squares - total**2, n * (n - 1)) if n > 1 else None
        return {
            "sessions": n,
            "mean": total / n / _UNIT,
            "sd": None if variance is None else math.sqrt(variance) / _UNIT,
        }
