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

from augesc_builder.metrics.consistency.consistency import Consistency
from augesc_builder.metrics.informativeness.measure import Informativeness
from augesc_builder.metrics.intervals import Numbers
from augesc_builder.metrics.scored import Measure, Scored
from augesc_builder.metrics.topic_drift.distractors import Distractors
from augesc_builder.metrics.topic_drift.measure import TopicDrift
from augesc_builder.metrics.topic_drift.scorers.words import Words
from augesc_builder.text.prompts import Message
from benchmarks.quality_data import Judged

WORDS, POSITION, OVERLAP, REPEATED = (
    "number of words alone",
    "position alone",
    "words in common with an earlier utterance",
    "share of words that the speaker said before",
)
RULES, DRIFT, NEW = (
    "consistency, by rules",
    "topic drift, by words",
    "informativeness, new words",
)

CONTRADICTION, RELEVANCE, REPEATS, INFORMATION, EVERYTHING = (
    *("contradiction", "relevance", "repeats", "information"),
    "everything",
)
"""What people are asked about, and what signals tell of."""

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


Whole = Callable[[Scored, Session], float | None]
"""What a measure says of a whole dialog."""


@dataclass(frozen=True)
class Signal:
    """A number of a measure for each utterance, and ``whole`` for a dialog.

    ``about`` is what it tells of, nothing where it tells of all; ``worse`` whether more of it is
    worse, ``None`` where it is neither.
    """

    name: str
    measure: Measure
    whole: Whole
    about: tuple[str, ...] = ()
    worse: bool | None = None

    def is_of(self, question: str) -> bool:
        """Whether it may tell what is asked."""
        return not self.about or question == EVERYTHING or question in self.about


def number(name: str) -> Whole:
    """Return a session's number by its name."""
    return lambda scored, _: scored.session.get(name)


def of_supporter(scored: Scored, session: Session) -> float | None:
    """Return the mean of a measure's numbers for the supporter's turns."""
    known = [
        score
        for score, message in zip(scored.scores, session, strict=True)
        if score is not None and message["role"] == "assistant"
    ]
    return float(np.mean(known)) if known else None


def baselines() -> list[Signal]:
    """Return what takes no measure."""
    about: dict[str, tuple[tuple[str, ...], bool]] = {
        OVERLAP: ((CONTRADICTION, REPEATS), True),
        REPEATED: ((REPEATS, INFORMATION), True),
    }
    return [Signal(one.name, one, number(one.name), *about.get(one.name, ())) for one in BASELINES]


def measures(judged: Sequence[Judged]) -> list[Signal]:
    """Return the measures; the dialogs that were judged are each other's distractors."""
    pool = Distractors.from_sessions([one.messages for one in judged])
    words = TopicDrift(Words(pool.texts), pool)
    return [
        Signal(RULES, Consistency(), number("contradiction"), (CONTRADICTION,), worse=True),
        Signal(DRIFT, words, number("drift"), (RELEVANCE,), worse=True),
        Signal(NEW, Informativeness(), of_supporter, (REPEATS, INFORMATION), worse=False),
    ]


def readings(judged: Sequence[Judged], signals: Sequence[Signal]) -> dict[str, Numbers]:
    """Return each signal of all that was judged, (items,), NaN where it says nothing.

    Every dialog is scored once, whole: a measure says of an utterance what those before it show.
    """
    keys = [tuple((m["role"], m["content"]) for m in one.messages) for one in judged]
    sessions = {key: one.messages for key, one in zip(keys, judged, strict=True)}
    scored: dict[int, dict[Any, Scored]] = {}
    found = {}
    for signal in signals:
        if id(signal.measure) not in scored:
            of_all = signal.measure.score(list(sessions.values()))
            scored[id(signal.measure)] = dict(zip(sessions, of_all, strict=True))
        known = scored[id(signal.measure)]
        values = [
            signal.whole(known[key], one.messages)
            if one.turn is None
            else known[key].scores[one.turn]
            for key, one in zip(keys, judged, strict=True)
        ]
        found[signal.name] = np.array([np.nan if x is None else x for x in values], float)
    return found
