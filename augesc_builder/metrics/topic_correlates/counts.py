"""Word counts of sets, and what tells them apart."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any

from augesc_builder.metrics.tokenized import ROLES, Spoken

TOP = 10


class TopicCounts:
    """How often each role says each word; counts of other sessions can be merged in."""

    def __init__(self) -> None:
        self.words: dict[str, Counter[str]] = {role: Counter() for role in ROLES}

    def add(self, session: Spoken) -> None:
        """Count a session."""
        for said in session:
            self.words[said.role].update(said.words)

    def merge(self, other: TopicCounts) -> None:
        """Add the counts of other sessions."""
        for role, counter in other.words.items():
            self.words[role].update(counter)

    def lowered(self, role: str, *, keep_stop_words: bool) -> Counter[str]:
        """Return a role's counts of words in lowercase."""
        counts: Counter[str] = Counter()
        for word, n in self.words[role].items():
            lower = word.lower()
            if keep_stop_words or (_WORD.search(lower) and lower not in stop_words()):
                counts[lower] += n
        return counts


_WORD = re.compile(r"[^\W_]")


def correlates(
    sets: Mapping[str, TopicCounts], top: int = TOP, *, keep_stop_words: bool = False
) -> dict[str, dict[str, list[list[Any]]]]:
    """Return the words of the highest z of each set against all others, for each role."""
    found: dict[str, dict[str, list[list[Any]]]] = {name: {} for name in sets}
    for role, label in ROLES.items():
        counts = {
            name: part.lowered(role, keep_stop_words=keep_stop_words) for name, part in sets.items()
        }
        pooled: Counter[str] = Counter()
        for part in counts.values():
            pooled.update(part)
        for name, part in counts.items():
            scores = z_scores(part, pooled - part, pooled) if len(sets) > 1 else {}
            ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
            found[name][label] = [[word, z] for word, z in ranked[:top] if z > 0]
    return found


def z_scores(
    here: Mapping[str, int], there: Mapping[str, int], prior: Mapping[str, int]
) -> dict[str, float]:
    """Return z of every word of the prior: above 0 where it is said more here than there."""
    n_here, n_there, n_prior = sum(here.values()), sum(there.values()), sum(prior.values())
    scores = {}
    for word, a in prior.items():
        y, other = here.get(word, 0) + a, there.get(word, 0) + a
        rest, other_rest = n_here + n_prior - y, n_there + n_prior - other
        if not rest or not other_rest:  # the only word there is
            continue
        delta = math.log(y / rest) - math.log(other / other_rest)
        scores[word] = delta / math.sqrt(1 / y + 1 / other)
    return scores


@functools.cache
def stop_words() -> frozenset[str]:
    """Read the bundled list of stop words: one a line, ``#`` begins a comment."""
    file = resources.files("augesc_builder") / "text" / "lexicons" / "stop_words.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines for word in line.partition("#")[0].split())
