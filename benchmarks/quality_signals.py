"""What measures say of an utterance, or of a dialog, and what they are asked about.

A signal is a measure's number for an utterance where one was judged, and one for the session where
the whole dialog was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.informativeness.measure import Informativeness
from augesc_builder.metrics.intervals import Numbers
from augesc_builder.metrics.scored import Measure, Scored
from augesc_builder.metrics.topic_drift.distractors import Distractors, Turn
from augesc_builder.metrics.topic_drift.measure import TopicDrift
from augesc_builder.metrics.topic_drift.scorers.words import Words
from benchmarks.quality_data import Judged
from benchmarks.quality_plain import (
    ANSWERS,
    ASKS,
    COPY,
    NAMES,
    ONESELF,
    OVERLAP,
    PLAIN,
    REPEATED,
    SENTENCE,
    TOPICAL,
    Session,
)

if TYPE_CHECKING:
    from augesc_builder.metrics.topic_drift.scorers.likelihood import Likelihood
    from augesc_builder.models.pair_classifier import PairClassifier

RULES, DRIFT, NEW = (
    "consistency, by rules",
    "topic drift, by words",
    "informativeness, new words",
)
PAIRS = "consistency, by rules and a classifier of pairs"
LIKELIHOOD, GAIN, INFORMS, LEAST = (
    "likelihood in context",
    "likelihood, what the context adds",
    "likelihood, what the context adds, of all words",
    "likelihood of the least likely word",
)

CONTRADICTION, RELEVANCE, REPEATS, INFORMATION, EVERYTHING = (
    *("contradiction", "relevance", "repeats", "information"),
    "everything",
)
"""What people are asked about, and what signals tell of."""

Whole: TypeAlias = Callable[[Scored, Session], "float | None"]
"""What a measure says of a whole dialog."""

Key: TypeAlias = tuple[tuple[str, str], ...]
"""Who said what in a session."""


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
    about: dict[str, tuple[tuple[str, ...], bool | None]] = {
        OVERLAP: ((CONTRADICTION, REPEATS), True),
        COPY: ((CONTRADICTION, REPEATS, INFORMATION), True),
        REPEATED: ((REPEATS, INFORMATION), True),
        SENTENCE: ((REPEATS,), True),
        TOPICAL: ((RELEVANCE,), False),
        NAMES: ((CONTRADICTION,), True),
        ANSWERS: ((CONTRADICTION, RELEVANCE), None),
        ASKS: ((CONTRADICTION, RELEVANCE), None),
        ONESELF: ((CONTRADICTION, RELEVANCE), None),
    }
    return [Signal(one.name, one, number(one.name), *about.get(one.name, ())) for one in PLAIN]


def measures(judged: Sequence[Judged]) -> list[Signal]:
    """Return the measures that need no model; turns of the other dialogs are distractors."""
    # Dialogs of people who talk to machines begin alike: they are told apart by their names.
    pool = Distractors(
        Turn(message["content"], hash_of(one.dialog))
        for one in judged
        for message in one.messages
        if message["role"] == "assistant" and message["content"].strip()
    )
    words = TopicDrift(Words(pool.texts), pool)
    return [
        Signal(RULES, Consistency(), number("contradiction"), (CONTRADICTION,), worse=True),
        Signal(DRIFT, words, number("drift"), (RELEVANCE,), worse=True),
        Signal(NEW, Informativeness(), of_supporter, (REPEATS, INFORMATION), worse=False),
    ]


def with_classifier(classifier: PairClassifier) -> list[Signal]:
    """Return consistency where a classifier of pairs is asked too."""
    measure = Consistency(classifier)
    return [Signal(PAIRS, measure, number("contradiction"), (CONTRADICTION,), worse=True)]


@dataclass
class Hearing:
    """Likelihoods of all utterances of sessions, each session read once."""

    scorer: Likelihood
    known: dict[Key, list[Any]] = field(default_factory=dict)

    def utterances(self, session: Session) -> list[Any]:
        """Return what the scorer says of each utterance."""
        key = _key(session)
        if key not in self.known:
            self.known[key] = self.scorer.utterances([session])[0]
        return self.known[key]


@dataclass(frozen=True)
class Heard:
    """What a likelihood says of each utterance, as a measure."""

    name: str
    hearing: Hearing
    of: Callable[[Any], float]

    def settings(self) -> dict[str, Any]:
        """Return the model's."""
        return {"name": self.name, **self.hearing.scorer.settings()}

    def score(self, sessions: Sequence[Session]) -> list[Scored]:
        """Score sessions."""
        return [
            Scored(
                tuple(None if one is None else self.of(one) for one in self.hearing.utterances(x)),
                {},
            )
            for x in sessions
        ]


def heard(scorer: Likelihood) -> list[Signal]:
    """Return what a causal language model's likelihood says."""
    hearing = Hearing(scorer)
    every = (CONTRADICTION, RELEVANCE, REPEATS, INFORMATION)
    asked: list[tuple[Heard, tuple[str, ...]]] = [
        (Heard(LIKELIHOOD, hearing, lambda one: one.in_context), every),
        (Heard(GAIN, hearing, lambda one: one.gain), every),
        (Heard(INFORMS, hearing, lambda one: one.information), (RELEVANCE, REPEATS)),
        (Heard(LEAST, hearing, lambda one: one.least), (CONTRADICTION, RELEVANCE)),
    ]
    return [Signal(one.name, one, of_supporter, about, worse=False) for one, about in asked]


@dataclass
class Scores:
    """What measures said of sessions so far: no session is scored twice.

    ``kept`` is a folder in which it is kept for other runs too: for measures whose settings say all
    that they depend on, as those of models do.
    """

    kept: Path | None = None
    known: dict[str, dict[Key, Scored]] = field(default_factory=dict)

    def of(self, measure: Measure, sessions: Mapping[Key, Session]) -> dict[Key, Scored]:
        """Return what a measure says of sessions, and of others that it was asked about."""
        name = json.dumps([measure.name, measure.settings()], sort_keys=True)
        known = self.known.setdefault(name, {})
        new = {key: session for key, session in sessions.items() if key not in known}
        if new:
            known.update(zip(new, self._score(name, measure, list(new.values())), strict=True))
        return known

    def _score(self, name: str, measure: Measure, sessions: list[Session]) -> list[Scored]:
        if self.kept is None:
            return measure.score(sessions)
        asked = json.dumps([name, list(map(list, sessions))])
        file = self.kept / f"{sha256(asked.encode()).hexdigest()}.json"
        if not file.exists():
            found = [[one.scores, dict(one.session)] for one in measure.score(sessions)]
            self.kept.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found), encoding="utf-8")
        rows = json.loads(file.read_text(encoding="utf-8"))
        return [Scored(tuple(scores), session) for scores, session in rows]


def readings(
    judged: Sequence[Judged], signals: Sequence[Signal], scores: Scores
) -> dict[str, Numbers]:
    """Return each signal of all that was judged, (items,), NaN where it says nothing.

    A dialog is scored whole: a measure says of an utterance what those before it show.
    """
    sessions, places = _sessions(judged)
    found = {}
    for signal in signals:
        known = scores.of(signal.measure, sessions)
        values = [
            signal.whole(known[key], one.messages)
            if one.turn is None
            else known[key].scores[one.turn]
            for key, one in zip(places, judged, strict=True)
        ]
        found[signal.name] = np.array([np.nan if x is None else x for x in values], float)
    return found


def _sessions(judged: Sequence[Judged]) -> tuple[dict[Key, Session], list[Key]]:
    """Return the sessions to be scored, and in which of them each that was judged is looked up.

    A turn is looked up in a session that goes on behind it, where there is one.
    """
    keys = [_key(one.messages) for one in judged]
    sessions: dict[Key, Session] = {}
    within: dict[Key, Key] = {}
    order = sorted(range(len(judged)), key=lambda i: (judged[i].turn is not None, -len(keys[i])))
    for i in order:
        key, one = keys[i], judged[i]
        if key in sessions or (one.turn is not None and key in within):
            continue
        sessions[key] = one.messages
        for end in range(1, len(key) + 1):
            within.setdefault(key[:end], key)
    places = [
        key if one.turn is None else within[key] for key, one in zip(keys, judged, strict=True)
    ]
    return sessions, places


def _key(session: Session) -> Key:
    return tuple((message["role"], message["content"]) for message in session)
