"""All measurements of sets of sessions in one pass: chunks to counts, counts to statistics.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.metrics.duplication.counts import DuplicationCounts
from augesc_builder.metrics.lexical_diversity.counts import DiversityCounts
from augesc_builder.metrics.novelty.counts import NoveltyCounts
from augesc_builder.metrics.overlap.counts import Said, SeveralOverlaps
from augesc_builder.metrics.partial import State, below, part_of
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.metrics.session_statistics.counts import SessionCounts
from augesc_builder.metrics.tokenized import Spoken, spoken
from augesc_builder.metrics.topic_correlates.agreement import agreement
from augesc_builder.metrics.topic_correlates.counts import TopicCounts, all_scores, correlates
from augesc_builder.metrics.topic_correlates.priors import POOLED, Prior
from augesc_builder.paper import FIGURE_4
from augesc_builder.readers.chunks import Chunk
from augesc_builder.readers.records import BadLines
from augesc_builder.sources.sessions import parse_sessions

TABLE_2 = "session_statistics"
BESIDE = (TABLE_2, "lexical_diversity", "topic_correlates")
"""Where the paper sets ESConv beside its own corpus: Table 2, Figures 5 and 4."""
ALL = (*BESIDE, "query_effect", "duplication", "novelty", "overlap")


Rows = NDArray[np.uint64] | NDArray[np.uint32]
"""A row for each session."""


@dataclass(frozen=True)
class Measuring:
    """What to measure, ready for worker processes.

    ``names`` are the measurements. ``trained_on`` holds the fine-tuning utterances, without which
    there is no novelty; ``tested_on`` sets of test sessions by name, without which there is no
    overlap; ``near`` asks for near-duplicates. Figure 3 is of ``query_sample`` sessions
    of a column at most, ``None`` for all, and ``count_query`` counts the query among their
    utterances. Figure 4 is of ``topic_sample``, with ``keep_stop_words`` and ``prior`` as
    :func:`~augesc_builder.metrics.topic_correlates.counts.correlates` has them.
    Rows that cannot be read are counted, or fatal where it is ``strict``.
    """

    names: tuple[str, ...] = ALL
    trained_on: tuple[str, ...] | None = None
    tested_on: Mapping[str, tuple[Said, ...]] = field(default_factory=dict)
    near: NearDuplicates | None = None
    seed: int = 0
    query_sample: int | None = None
    count_query: bool = False
    topic_sample: int | None = None
    keep_stop_words: bool = False
    prior: Prior = POOLED
    strict: bool = False

    def chunk(self, chunk: Chunk, counts: dict[str, Counts], bad: BadLines) -> int:
        """Add the sessions of a chunk to ``counts``, each source apart.

        Returns how many of its texts are no conversations. Rows that could not be read at all go
        to ``bad``, of which none are there yet.
        """
        sessions: dict[str, list[Spoken]] = {}
        for session in parse_sessions(chunk, bad, generations=True):
            sessions.setdefault(session.source, []).append(spoken(session.messages))
        for source, found in sessions.items():
            if source not in counts:
                counts[source] = Counts(self)
            counts[source].add(found)
        return len(chunk.rows) - bad.count - sum(map(len, sessions.values()))

    def settings(self) -> dict[str, Any]:
        """Return what the report names: how samples are drawn and words are compared."""
        return {
            "seed": self.seed,
            "query_sample": self.query_sample,
            "count_query": self.count_query,
            "topic_sample": self.topic_sample,
            "stop_words": "keep" if self.keep_stop_words else "drop",
            "prior": self.prior.label,
        }


def _queries(what: Measuring) -> QueryCounts:
    """Return empty counts for Figure 3."""
    return QueryCounts(what.query_sample, what.seed, with_query=what.count_query)


_MAKE: Mapping[str, Callable[[Measuring], Any]] = {
    TABLE_2: lambda _: SessionCounts(),
    "lexical_diversity": lambda what: DiversityCounts(what.seed),
    "query_effect": _queries,
    "duplication": lambda what: DuplicationCounts(what.near),
    "topic_correlates": lambda what: TopicCounts(what.topic_sample, what.seed),
    "novelty": lambda what: NoveltyCounts(what.trained_on or ()),
    "overlap": lambda what: SeveralOverlaps(what.tested_on),
}


class Counts:
    """The counts of every measurement for one column of the report."""

    def __init__(self, what: Measuring) -> None:
        without = {"novelty": what.trained_on is None, "overlap": not what.tested_on}
        self.parts: dict[str, Any] = {
            name: _MAKE[name](what) for name in what.names if not without.get(name)
        }

    def add(self, sessions: list[Spoken]) -> None:
        """Count sessions."""
        for counts in self.parts.values():
            if isinstance(counts, DiversityCounts | DuplicationCounts):
                counts.add(sessions)
                continue
            for session in sessions:
                counts.add(session)

    def merge(self, other: Counts) -> None:
        """Add the counts of other sessions."""
        for name, counts in self.parts.items():
            counts.merge(other.parts[name])

    def state(self) -> State:
        """Return the counts as data, without what :meth:`take_rows` gives away."""
        found: dict[str, Any] = {"parts": len(self.parts)}
        for name, counts in self.parts.items():
            found |= below(name, counts.state())
        return found

    def load(self, state: State) -> None:
        """Hold what :meth:`state` returned, where nothing is held yet."""
        for name, counts in self.parts.items():
            counts.load(part_of(state, name))

    def take_rows(self) -> dict[str, Rows]:
        """Give away what is kept of each session, which is all that grows with their number.

        By name arrays with a row for each session: ``hashes`` of its text, ``ranks`` in the order
        that samples are drawn in, and ``sketches`` for near-duplicates.
        """
        found: dict[str, Rows] = {}
        if (diversity := self.parts.get("lexical_diversity")) is not None:
            found["ranks"] = diversity.take_ranks()
        if (duplication := self.parts.get("duplication")) is not None:
            found["hashes"], sketches = duplication.take()
            if sketches is not None:
                found["sketches"] = sketches
        return found

    def statistics(self) -> dict[str, Any]:
        """Return every measurement but topic_correlates, which compares columns."""
        found = {n: c.statistics() for n, c in self.parts.items() if n != "topic_correlates"}
        return {**found.pop(TABLE_2), **found}


def merged(parts: Iterable[Counts], what: Measuring) -> Counts:
    """Count together what was counted apart."""
    total = Counts(what)
    for part in parts:
        total.merge(part)
    return total


def in_all(columns: Mapping[str, Counts], what: Measuring) -> Counts:
    """Return all columns together; that of a single one is itself."""
    several = len(columns) != 1
    return merged(columns.values(), what) if several else next(iter(columns.values()))


def statistics(
    columns: Mapping[str, Counts],
    what: Measuring,
    beside: Mapping[str, Counts] | None = None,
    together: Counts | None = None,
) -> dict[str, Any]:
    """Return ``statistics.json``: all sessions together, every column, and what stands beside.

    ``together`` are the columns as :func:`in_all` gives them.
    """
    beside = beside or {}
    together = in_all(columns, what) if together is None else together
    compared = {
        name: counts.parts["topic_correlates"]
        for name, counts in {**columns, **beside}.items()
        if "topic_correlates" in counts.parts
    }
    return {
        **together.statistics(),
        "by_source": {name: counts.statistics() for name, counts in columns.items()},
        "beside": {name: counts.statistics() for name, counts in beside.items()},
        "topic_correlates": correlates(
            compared, top=_TOPICS, keep_stop_words=what.keep_stop_words, prior=what.prior
        )
        if len(compared) > 1
        else None,
        "figure_4": _beside_figure_4(compared, what),
        "settings": what.settings(),
    }


def _beside_figure_4(
    compared: Mapping[str, TopicCounts], what: Measuring
) -> dict[str, dict[str, Any]] | None:
    """Compare Figure 4 as printed with ours, by set and role: of the paper's three sets alone.

    ``None`` where a corpus of the paper's is not at hand beside ESConv.
    """
    sets = {
        printed: compared[name]
        for printed, names in _OF_FIGURE_4.items()
        for name in compared
        if name in names
    }
    if len(sets) < 2 or "ESConv" not in sets:  # noqa: PLR2004
        return None
    found: dict[str, dict[str, Any]] = {}
    scores = all_scores(sets, keep_stop_words=what.keep_stop_words, prior=what.prior)
    for name, role, of_words in scores:
        found.setdefault(name, {})[role] = agreement(of_words, FIGURE_4[role][name])
    return found


_OF_FIGURE_4 = {
    "ESConv": ("ESConv", "esconv"),
    "AugESC ED": ("empathetic_dialogues", "ED"),
    "AugESC Reddit": ("reddit", "Reddit"),
}
"""Names that the sets of Figure 4 have in reports."""

_TOPICS = 25
"""Words that are given for each set and role; figures show fewer."""
