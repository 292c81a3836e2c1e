"""Sums over query lengths, made chunk by chunk."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.sample import Sample, rank_of
from augesc_builder.metrics.tokenized import Spoken, mean

BIN_WORDS = 5
_UNIT = 1 << 20
"""Means are summed in whole parts of a word, so that the order of the sessions changes nothing."""


class QueryCounts:
    """Sums for each query length; counts of other sessions can be merged in.

    With ``sample``, they are those of that many sessions at most, drawn by ``seed``; the mean
    length of a session's utterances is that of those behind the query, or ``with_query`` of all.
    """

    def __init__(
        self, sample: int | None = None, seed: int = 0, *, with_query: bool = False
    ) -> None:
        self.seed, self.with_query = seed, with_query
        self.sums: dict[int, tuple[int, int, int]] = {}
        """Query length to sessions, and the sums of their means and of the squares of those."""
        self._drawn: Sample[tuple[int, int]] | None = Sample(sample) if sample else None

    def add(self, session: Spoken) -> None:
        """Count a session."""
        query, *others = [len(said.words) for said in session] or [0]
        rank = 0 if self._drawn is None else rank_of(session, self.seed)
        self.add_lengths(query, sum(others), len(others), rank)

    def add_lengths(self, query: int, words: int, utterances: int, rank: int) -> None:
        """Count a session by the words of its query, and words and number of its other utterances.

        ``rank`` is its place in the order that samples are drawn in, 64 bits.
        """
        if not utterances:
            return
        if self.with_query:
            words, utterances = words + query, utterances + 1
        average = round(Fraction(words, utterances) * _UNIT)
        if self._drawn is None:
            self._add(query, (1, average, average**2))
        else:
            self._drawn.add(rank, (query, average))

    def merge(self, other: QueryCounts) -> None:
        """Add the counts of other sessions."""
        for length, sums in other.sums.items():
            self._add(length, sums)
        if self._drawn is not None and other._drawn is not None:
            self._drawn.merge(other._drawn)

    def state(self) -> State:
        """Return the sums as data."""
        sums = [[length, *numbers] for length, numbers in sorted(self.sums.items())]
        return {
            "sums": sums,
            **({} if self._drawn is None else below("drawn", self._drawn.state())),
        }

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        self.sums = {length: (n, total, squares) for length, n, total, squares in state["sums"]}
        if self._drawn is not None:
            self._drawn.load(part_of(state, "drawn"))

    def statistics(self, bin_words: int = BIN_WORDS) -> dict[str, Any]:
        """Return the measurement."""
        counted = self._of_sample()
        bins: dict[int, QueryCounts] = {}
        for length, sums in sorted(counted.sums.items()):
            bins.setdefault(length // bin_words, QueryCounts())._add(length, sums)
        n, total, squares = counted._totals()
        words = sum(length * n for length, (n, _, _) in counted.sums.items())
        words_squared = sum(length**2 * n for length, (n, _, _) in counted.sums.items())
        product = sum(length * total for length, (_, total, _) in counted.sums.items())
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

    def _of_sample(self) -> QueryCounts:
        if self._drawn is None:
            return self
        counts = QueryCounts()
        for length, average in self._drawn:
            counts._add(length, (1, average, average**2))
        return counts

    def _add(self, length: int, sums: tuple[int, int, int]) -> None:
        n, total, squares = self.sums.get(length, (0, 0, 0))
        self.sums[length] = (n + sums[0], total + sums[1], squares + sums[2])

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
