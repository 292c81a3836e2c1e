"""Priors of the log odds ratio (Monroe et al. 2008): what each word is taken to count already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from augesc_builder.config.statistics import parse_prior


@dataclass(frozen=True)
class Prior:
    """How often each word is taken to have been said already.

    - ``pooled``: as often as in all sets together
    - ``scaled``: in the same proportions, ``amount`` words in all
    - ``uninformative``: ``amount`` times, every word the same
    """

    kind: str = "pooled"
    amount: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Prior:
        """Read a prior as options and recipes name it; raises ``ValueError`` for anything else."""
        return cls(*parse_prior(text))

    @property
    def label(self) -> str:
        """Name the prior in words, as under a figure."""
        return {
            "pooled": "the counts of all sets together",
            "scaled": f"the counts of all sets together, scaled to {self.amount:,.0f} words",
            "uninformative": f"uninformative, {self.amount:g} a word",
        }[self.kind]

    def counts(self, pooled: Mapping[str, int]) -> Mapping[str, float]:
        """Return the prior count of each word that has ``pooled`` counts, of all sets together."""
        if self.kind == "pooled":
            return pooled
        if self.kind == "uninformative":
            return dict.fromkeys(pooled, self.amount)
        scale = self.amount / max(1, sum(pooled.values()))
        return {word: n * scale for word, n in pooled.items()}


POOLED = Prior()
