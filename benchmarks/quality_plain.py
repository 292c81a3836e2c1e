"""Numbers of utterances that take no measure, and no model: a pattern, a count, a share.

Number of words, position and words in common with an earlier utterance are what a measure has to
be better than; the others are weak signs of what people were asked about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from augesc_builder.metrics.consistency.vocabulary import word_set
from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.scored import Scored
from augesc_builder.text.prompts import Message

WORDS, POSITION, OVERLAP = (
    "number of words alone",
    "position alone",
    "words in common with an earlier utterance",
)
COPY, REPEATED, SENTENCE = (
    "likeness to an earlier utterance that is not the same",
    "share of words that the speaker said before",
    "likeness of a sentence to an earlier one of the speaker",
)
NAMES = "names and places that nobody said before"
TOPICAL, ANSWERS, ASKS, ONESELF = (
    "share of content words in the utterance before",
    "answers a question",
    "number of questions",
    "speaks of oneself",
)
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_PLACES = word_set(
    "africa alabama alaska america arizona australia austria beijing boston brazil california "
    "canada carolina chicago china colorado england europe florida france georgia germany hawaii "
    "houston illinois india indiana iowa ireland italy japan kansas kentucky korea london "
    "louisiana maine maryland mexico michigan minnesota mississippi missouri montana moscow "
    "nebraska nevada ny nyc ohio oklahoma oregon paris pennsylvania russia scotland seattle spain "
    "sweden switzerland sydney tennessee texas tokyo usa utah vermont virginia washington "
    "wisconsin york"
)
_ONESELF = frozenset({"i", "me", "my", "mine", "myself", "we", "our", "us"})

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
        """Return its name: there is nothing to set."""
        return {"name": self.name}

    def score(self, sessions: Sequence[Session]) -> list[Scored]:
        """Score sessions."""
        found = [self.of(session) for session in sessions]
        return [Scored(tuple(x), {self.name: self.whole(x) if x else None}) for x in found]


def _words(session: Session) -> list[float]:
    return [float(len(message["content"].split())) for message in session]


def _position(session: Session) -> list[float]:
    return [float(i) for i in range(len(session))]


def _overlap(session: Session) -> list[float]:
    said = [set(_said(message)) for message in session]
    return [
        float(max((len(words & before) for before in said[:i]), default=0))
        for i, words in enumerate(said)
    ]


def _copy(session: Session) -> list[float]:
    said = [_said(message) for message in session]
    return [
        max((_alike(set(words), set(b)) for b in said[:i] if b != words), default=0.0)
        for i, words in enumerate(said)
    ]


def _repeated(session: Session) -> list[float]:
    before: dict[str, set[str]] = {}
    found = []
    for message in session:
        words = _said(message)
        known = before.setdefault(message["role"], set())
        found.append(sum(word in known for word in words) / max(1, len(words)))
        known.update(words)
    return found


def _sentence(session: Session) -> list[float]:
    before: dict[str, list[set[str]]] = {}
    found = []
    for message in session:
        sentences = [set(content_words(x)) for x in _SENTENCE_END.split(message["content"])]
        sentences = [sentence for sentence in sentences if sentence]
        known = before.setdefault(message["role"], [])
        found.append(max((_alike(a, b) for a in sentences for b in known), default=0.0))
        known += sentences
    return found


def _topical(session: Session) -> list[float]:
    content = [set(content_words(message["content"])) for message in session]
    pairs = zip([set(), *content[:-1]], content, strict=True)
    return [len(words & before) / max(1, len(words)) for before, words in pairs]


def _names(session: Session) -> list[float]:
    before: set[str] = set()
    found = []
    for message in session:
        words = set(_said(message))
        named = {name.lower() for name in _NAME.findall(message["content"])} | (words & _PLACES)
        found.append(float(len(named - before)))
        before |= words
    return found


def _answers(session: Session) -> list[float]:
    asked = [message["content"].rstrip().endswith("?") for message in session]
    return [float(x) for x in [False, *asked[:-1]]][: len(session)]


def _asks(session: Session) -> list[float]:
    return [float(message["content"].count("?")) for message in session]


def _oneself(session: Session) -> list[float]:
    return [float(sum(word in _ONESELF for word in _said(message))) for message in session]


def _said(message: Message) -> list[str]:
    return _WORD.findall(message["content"].lower())


def _alike(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def _mean(numbers: list[float]) -> float:
    return float(np.mean(numbers))


PLAIN: tuple[Plain, ...] = (
    Plain(WORDS, _words, sum),
    Plain(POSITION, _position, lambda x: float(len(x))),
    Plain(OVERLAP, _overlap, max),
    Plain(COPY, _copy, max),
    Plain(REPEATED, _repeated, _mean),
    Plain(SENTENCE, _sentence, _mean),
    Plain(TOPICAL, _topical, _mean),
    Plain(NAMES, _names, _mean),
    Plain(ANSWERS, _answers, _mean),
    Plain(ASKS, _asks, _mean),
    Plain(ONESELF, _oneself, _mean),
)
