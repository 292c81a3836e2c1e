"""All measurements of sets of sessions in one pass: chunks to counts, counts to statistics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from augesc_builder.config.queries import NearDuplicates
from augesc_builder.metrics.duplication.counts import DuplicationCounts
from augesc_builder.metrics.lexical_diversity.counts import DiversityCounts
from augesc_builder.metrics.novelty.counts import NoveltyCounts
from augesc_builder.metrics.query_effect.counts import QueryCounts
from augesc_builder.metrics.session_statistics.counts import SessionCounts
from augesc_builder.metrics.tokenized import Spoken, spoken
from augesc_builder.metrics.topic_correlates.counts import TopicCounts, correlates
from augesc_builder.readers.chunks import Chunk
from augesc_builder.sources.sessions import parse_sessions


@dataclass(frozen=True)
class Measuring:
    """What to measure, ready for worker processes.

    ``basic`` is Table 2 alone; the rest takes a few times as long. ``trained_on`` holds the
    fine-tuning utterances, for novelty; ``near`` asks for near-duplicates.
    """

    basic: bool = False
    trained_on: tuple[str, ...] | None = None
    near: NearDuplicates | None = None
    seed: int = 0

    def chunk(self, chunk: Chunk) -> dict[str, Counts]:
        """Measure the sessions of a chunk, each source apart."""
        sessions: dict[str, list[Spoken]] = {}
        for session in parse_sessions(chunk):
            sessions.setdefault(session.source, []).append(spoken(session.messages))
        counts = {source: Counts(self) for source in sessions}
        for source, found in sessions.items():
            counts[source].add(found)
        return counts


class Counts:
    """The counts of every measurement for one column of the report."""

    def __init__(self, what: Measuring) -> None:
        self.table_2 = SessionCounts()
        self.others: dict[str, Any] = {}
        if what.basic:
            return
        self.others = {
            "lexical_diversity": DiversityCounts(what.seed),
            "query_effect": QueryCounts(),
            "duplication": DuplicationCounts(what.near),
            "topics": TopicCounts(),
        }
        if what.trained_on is not None:
            self.others["novelty"] = NoveltyCounts(what.trained_on)

    def add(self, sessions: list[Spoken]) -> None:
        """Count sessions."""
        for session in sessions:
            self.table_2.add(session)
        for counts in self.others.values():
            if isinstance(counts, DiversityCounts | DuplicationCounts):
                counts.add(sessions)
                continue
            for session in sessions:
                counts.add(session)

    def merge(self, other: Counts) -> None:
        """Add the counts of other sessions."""
        self.table_2.merge(other.table_2)
        for name, counts in self.others.items():
            counts.merge(other.others[name])

    def statistics(self) -> dict[str, Any]:
        """Return every measurement but topic_correlates, which compares columns."""
        found = {n: c.statistics() for n, c in self.others.items() if n != "topics"}
        return {**self.table_2.statistics(), **found}


def merged(parts: Iterable[Counts], what: Measuring) -> Counts:
    """Count together what was counted apart."""
    total = Counts(what)
    for part in parts:
        total.merge(part)
    return total


def statistics(columns: Mapping[str, Counts], what: Measuring) -> dict[str, Any]:
    """Return ``statistics.json``: all sessions together, and every column by itself."""
    several = len(columns) != 1
    together = merged(columns.values(), what) if several else next(iter(columns.values()))
    topics = {name: counts.others["topics"] for name, counts in columns.items() if counts.others}
    return {
        **together.statistics(),
        "by_source": {name: counts.statistics() for name, counts in columns.items()},
        "topic_correlates": correlates(topics, top=_TOPICS) if several and topics else None,
    }


_TOPICS = 25
"""Words that are given for each set and role; figures show fewer."""
