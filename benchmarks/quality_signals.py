"""What is told of an utterance, or a dialog, by measures, and by what takes no measure at all.

Number of words, position and words in common with an earlier utterance are measures like the
others, so that each stands beside them. A signal is a measure's number for an utterance where one
was judged, and one of its numbers for the session where the whole dialog was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from augesc_builder.metrics.intervals import Numbers
from augesc_builder.metrics.scored import Measure, Scored
from augesc_builder.text.prompts import Message
from benchmarks.quality_data import Judged

WORDS, POSITION, OVERLAP, REPEATED = (
    "number of words alone",
    "position alone",
    "words in common with an earlier utterance",
    "share of words that the speaker said before",
)
_WORD = re.compile(r"\w+")

Session = Sequence[Message]


@dataclass(frozen=True)
class Plain:
    """A measure that is a function of a session's texts: a number for each utterance.

    The session's is their sum, mean or largest, as ``whole`` says.
    """

    name: str
    of: Callable[[Session], list[float]]
    whole: Callable[[list[float]], float]

    def settings(self) -> dict[str, Any]:
        """Return nothing: there is nothing to set."""
        return {}

    def score(self, sessions: Sequence[Session]) -> list[Scored]:
        """Score sessions."""
        found = [self.of(session) for session in sessions]
        return [Scored(tuple(x), {self.name: self.whole(x) if x else None}) for x in found]


def _words(session: Session) -> list[float]:
    return [float(len(message["content"].split())) for message in session]


def _position(session: Session) -> list[float]:
    return [float(i) for i in range(len(session))]


def _overlap(session: Session) -> list[float]:
    said = [set(_WORD.findall(message["content"].lower())) for message in session]
    return [
        float(max((len(words & before) for before in said[:i]), default=0))
        for i, words in enumerate(said)
    ]


def _repeated(session: Session) -> list[float]:
    before: dict[str, set[str]] = {}
    found = []
    for message in session:
        words = _WORD.findall(message["content"].lower())
        known = before.setdefault(message["role"], set())
        found.append(sum(word in known for word in words) / max(1, len(words)))
        known.update(words)
    return found


BASELINES: tuple[Plain, ...] = (
    Plain(WORDS, _words, sum),
    Plain(POSITION, _position, lambda x: float(len(x))),
    Plain(OVERLAP, _overlap, max),
    Plain(REPEATED, _repeated, lambda x: float(np.mean(x))),
)


@dataclass(frozen=True)
class Signal:
    """A number of a measure; ``whole`` names the session's.

    ``about`` is what it tells of, nothing where it tells of all; ``worse`` whether more of it is
    worse, ``None`` where it is neither.
    """

    name: str
    measure: Measure
    whole: str
    about: tuple[str, ...] = ()
    worse: bool | None = None

    def is_of(self, question: str) -> bool:
        """Whether it may tell what is asked."""
        return not self.about or question == "all" or question in self.about


def baselines() -> list[Signal]:
    """Return what takes no measure."""
    about: dict[str, tuple[tuple[str, ...], bool]] = {
        OVERLAP: (("contradiction", "repeats"), True),
        REPEATED: (("repeats", "information"), True),
    }
    return [Signal(one.name, one, one.name, *about.get(one.name, ())) for one in BASELINES]


def readings(judged: Sequence[Judged], signals: Sequence[Signal]) -> dict[str, Numbers]:
    """Return each signal of all that was judged, (items,), NaN where it says nothing.

    Every dialog is scored once, whole: a measure says of an utterance what those before it show.
    """
    keys = [tuple((m["role"], m["content"]) for m in one.messages) for one in judged]
    sessions = {key: one.messages for key, one in zip(keys, judged, strict=True)}
    place = {key: i for i, key in enumerate(sessions)}
    scored: dict[int, list[Scored]] = {}
    found = {}
    for signal in signals:
        known = scored.get(id(signal.measure))
        if known is None:
            known = scored[id(signal.measure)] = signal.measure.score(list(sessions.values()))
        values = [
            _value(known[place[key]], one.turn, signal.whole)
            for key, one in zip(keys, judged, strict=True)
        ]
        found[signal.name] = np.array([np.nan if x is None else x for x in values], float)
    return found


def _value(scored: Scored, turn: int | None, whole: str) -> float | None:
    return scored.session.get(whole) if turn is None else scored.scores[turn]
