"""Word counts of sets, and what tells them apart."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import numpy as np

from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.sample import Sample, rank_of
from augesc_builder.metrics.tokenized import ROLES, Spoken
from augesc_builder.metrics.topic_correlates.priors import POOLED, Prior

TOP = 10


class TopicCounts:
    """How often each role says each word; counts of other sessions can be merged in.

    With ``sample``, they are those of that many sessions at most, drawn by ``seed``.
    """

    def __init__(self, sample: int | None = None, seed: int = 0) -> None:
        self.seed = seed
        self.words: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
        self._drawn: Sample[tuple[str, ...]] | None = Sample(sample) if sample else None
        """Of each session in the sample the words of each role; words hold no blanks."""

    def add(self, session: Spoken) -> None:
        """Count a session."""
        said = {role: [w for u in session if u.role == role for w in u.words] for role in ROLES}
        if self._drawn is None:
            self._count(said)
        else:
            rank = rank_of(session, self.seed)
            self._drawn.add(rank, tuple(" ".join(words) for words in said.values()))

    def merge(self, other: TopicCounts) -> None:
        """Add the counts of other sessions."""
        self._count(other.words)
        if self._drawn is not None and other._drawn is not None:
            self._drawn.merge(other._drawn)

    def state(self) -> State:
        """Return the counts as data."""
        found: dict[str, Any] = {}
        for role, words in self.words.items():
            said = sorted(words.items())
            found[f"{role}/words"] = [word for word, _ in said]
            found[f"{role}/counts"] = np.array([n for _, n in said], np.int64)
        return found | ({} if self._drawn is None else below("drawn", self._drawn.state()))

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned."""
        for role in self.words:
            counts = state[f"{role}/counts"].tolist()
            self.words[role] = Counter(dict(zip(state[f"{role}/words"], counts, strict=True)))
        if self._drawn is not None:
            self._drawn.load(part_of(state, "drawn"))

    def of_sample(self) -> TopicCounts:
        """Return the counts of the sessions in the sample; of all, where none is drawn."""
        if self._drawn is None:
            return self
        counts = TopicCounts()
        for texts in self._drawn:
            counts._count(
                {r: text.split(" ") for r, text in zip(ROLES, texts, strict=True) if text}
            )
        return counts

    def _count(self, said: Mapping[str, Iterable[str]]) -> None:
        for role, words in said.items():
            self.words[role].update(words)

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
    sets: Mapping[str, TopicCounts],
    top: int = TOP,
    *,
    keep_stop_words: bool = False,
    prior: Prior = POOLED,
) -> dict[str, dict[str, list[list[Any]]]]:
    """Return the words of the highest z of each set against all others, for each role."""
    found: dict[str, dict[str, list[list[Any]]]] = {name: {} for name in sets}
    for name, role, scores in all_scores(sets, keep_stop_words=keep_stop_words, prior=prior):
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        found[name][role] = [[word, z] for word, z in ranked[:top] if z > 0]
    return found


def all_scores(
    sets: Mapping[str, TopicCounts], *, keep_stop_words: bool = False, prior: Prior = POOLED
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Give z of every word of each set against all others: the set, the role, words to z."""
    drawn = {name: part.of_sample() for name, part in sets.items()}
    for role, label in ROLES.items():
        counts = {
            name: part.lowered(role, keep_stop_words=keep_stop_words)
            for name, part in drawn.items()
        }
        pooled: Counter[str] = Counter()
        for part in counts.values():
            pooled.update(part)
        before = prior.counts(pooled)
        for name, part in counts.items():
            yield name, label, z_scores(part, pooled - part, before) if len(sets) > 1 else {}


def z_scores(
    here: Mapping[str, int], there: Mapping[str, int], prior: Mapping[str, float]
) -> dict[str, float]:
    """Return z of every word of the prior: above 0 where it is said more here than there."""
    n_here, n_there, n_prior = (math.fsum(n.values()) for n in (here, there, prior))
    scores = {}
    for word, a in prior.items():
        y, other = here.get(word, 0) + a, there.get(word, 0) + a
        rest, other_rest = n_here + n_prior - y, n_there + n_prior - other
        if len(prior) == 1 or min(y, other, rest, other_rest) <= 0:  # nothing to compare with
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
