"""What measures of quality say of a session: a number an utterance, and what they point at.

A measure of quality looks at one session at a time, so that what it says never depends on who is
measured beside it. It is believed as far as ``benchmarks/quality_calibration.py`` shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from augesc_builder.text.prompts import Message


@dataclass(frozen=True)
class Finding:
    """A place that a measure points at: characters ``start`` to ``end`` of an utterance, from 0.

    ``kind`` is one of the measure's closed set of names and ``reason`` says in words what was found
    (it may quote the session: hostile text). ``other`` is the utterance that it is held against,
    with its span, or ``None``. ``score`` is from 0 to 1, higher where it is surer.
    """

    kind: str
    utterance: int
    start: int
    end: int
    reason: str
    score: float = 1.0
    other: int | None = None
    other_start: int | None = None
    other_end: int | None = None


@dataclass(frozen=True)
class Scored:
    """What a measure says of one session.

    ``scores`` has a number an utterance, higher for more of what the measure is named for, ``None``
    where it says nothing; ``labels`` a class an utterance, where it classifies. ``session`` has the
    numbers of the whole session by name, of which corpora show means and which a choice may go by.
    """

    scores: tuple[float | None, ...]
    session: Mapping[str, float | None]
    findings: tuple[Finding, ...] = ()
    labels: tuple[str | None, ...] | None = None


class Measure(Protocol):
    """A measure of quality: sessions in, one :class:`Scored` for each out, in order.

    Any sessions are scored: of one utterance and of 500, empty strings, other languages (English is
    what they are made for). They are scored in batches, and each as it would be alone.
    """

    @property
    def name(self) -> str:
        """Return the measure's name, that of its room."""

    def settings(self) -> dict[str, Any]:
        """Return what its numbers depend on, as plain JSON, the models' names and commits in it."""

    def score(self, sessions: Sequence[Sequence[Message]]) -> list[Scored]:
        """Score sessions."""
