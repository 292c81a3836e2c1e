"""Sessions to the rows of the quality table, a chunk at a time, ready for worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from augesc_builder.config.quality import Quality
from augesc_builder.metrics.scored import Measure, Scored
from augesc_builder.pipeline.quality.measures import measures_of
from augesc_builder.readers.chunks import Chunk
from augesc_builder.readers.records import BadLines
from augesc_builder.sources.base import Session
from augesc_builder.sources.sessions import parse_sessions
from augesc_builder.tables import QUALITY, to_table


@dataclass(frozen=True)
class Part:
    """Consecutive sessions of a set that is called ``corpus``."""

    corpus: str
    chunk: Chunk


@dataclass(frozen=True)
class Measured:
    """What came of a part: rows of the quality table; ``unread`` of its texts are no conversations.

    ``bad`` has the rows that could not be read at all.
    """

    table: pa.Table
    unread: int
    bad: BadLines

    def __len__(self) -> int:
        return int(self.table.num_rows) + self.unread + self.bad.count


@dataclass(frozen=True)
class Measuring:
    """What to measure, by settings whose models are at commits.

    Rows that cannot be read are counted, or fatal where it is ``strict``.
    """

    settings: Quality
    strict: bool = False

    def part(self, part: Part) -> Measured:
        """Measure the sessions of a part."""
        bad = BadLines(self.strict)
        parsed = parse_sessions(part.chunk, bad, generations=True, own_ids=True)
        sessions, n_read = list(parsed), len(part.chunk.rows)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(sessions), self.settings.batch_size):
            rows += self._rows(part.corpus, sessions[start : start + self.settings.batch_size])
        return Measured(to_table(rows, QUALITY), n_read - bad.count - len(sessions), bad)

    def measures(self) -> list[Measure]:
        """Return the measures, which a process makes once."""
        return _measures(self.settings)

    def _rows(self, corpus: str, sessions: Sequence[Session]) -> Iterator[dict[str, Any]]:
        measures = self.measures()
        said = [session.messages for session in sessions]
        scored = [measure.score(said) for measure in measures]
        names = [measure.name for measure in measures]
        for session, of in zip(sessions, zip(*scored, strict=True), strict=True):
            yield _row(corpus, session, dict(zip(names, of, strict=True)))


def _row(corpus: str, session: Session, scored: dict[str, Scored]) -> dict[str, Any]:
    roles = [message["role"] for message in session.messages]
    return {
        "session_id": session.session_id,
        "corpus": corpus,
        "source": session.source,
        "n_utterances": len(roles),
        "numbers": [
            {"measure": measure, "name": name, "value": value}
            for measure, of in scored.items()
            for name, value in of.session.items()
        ],
        "utterances": [
            {"measure": measure, "scores": of.scores, "labels": of.labels}
            for measure, of in scored.items()
        ],
        "findings": [
            {"measure": measure, "role": roles[finding.utterance], **vars(finding)}
            for measure, of in scored.items()
            for finding in of.findings
        ],
    }


_made: dict[str, list[Measure]] = {}


def _measures(settings: Quality) -> list[Measure]:
    """Make a process's measures once."""
    key = settings.model_dump_json()
    if key not in _made:
        _made.clear()  # the models of a run before are not kept beside those of this one
        _made[key] = measures_of(settings)
    return _made[key]
