"""How the supporter's turns of a session rank, and where the talk leaves its topic."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from augesc_builder.metrics.scored import Finding, Scored
from augesc_builder.metrics.tokenized import mean
from augesc_builder.metrics.topic_drift.change_point import change_point
from augesc_builder.metrics.topic_drift.distractors import Distractors, trigger_of
from augesc_builder.metrics.topic_drift.scorers.base import Answer, Question, Scorer
from augesc_builder.text.prompts import Message

N = 5
"""Distractors of a turn: more tell finer, and a model's time grows with them."""

THRESHOLD = 0.8
"""Four of five others fit better; by chance a turn in three has as much."""

CHANGE = 2.25
"""Standard errors: of twelve turns that are drawn by chance, one session in twenty has as many."""

_BATCH = 64


class TopicDrift:
    """Ranks each supporter's turn among turns of other sessions, by how well it fits.

    ``scores`` are 1 less the rank: the share of ``n`` distractors that fit better, of those that
    fit as well half. 0 where none does, 0.5 by chance, 1 where all do; ``None`` for the seeker, for
    a turn before the seeker has spoken or without a word, and where the pool has no distractor.

    Of the session ``drift`` is the mean of the scores, ``drifted`` the share of them at or above
    ``threshold``, and ``change_point`` the utterance from which the turns rank lower, by
    :func:`~augesc_builder.metrics.topic_drift.change_point.change_point` with ``change``. The
    findings are those turns (``off_topic``) and that utterance (``change_of_topic``).
    """

    name = "topic_drift"

    def __init__(
        self,
        scorer: Scorer,
        distractors: Distractors,
        *,
        n: int = N,
        threshold: float = THRESHOLD,
        change: float = CHANGE,
    ) -> None:
        self._scorer, self._distractors = scorer, distractors
        self._n, self._threshold, self._change = n, threshold, change

    def settings(self) -> dict[str, Any]:
        """Return the scorer's settings, the pool's size and digest, and the thresholds."""
        return {
            **self._scorer.settings(),
            "distractors": {"turns": len(self._distractors), "digest": self._distractors.digest},
            "per_turn": self._n,
            "threshold": self._threshold,
            "change": self._change,
        }

    def score(self, sessions: Sequence[Sequence[Message]]) -> list[Scored]:
        """Score sessions, each as it would be alone."""
        scored: list[Scored] = []
        for first in range(0, len(sessions), _BATCH):
            questions = [self._question(s) for s in sessions[first : first + _BATCH]]
            answers = self._scorer.fit(questions)
            scored += map(self._scored, questions, answers)
        return scored

    def _question(self, session: Sequence[Message]) -> Question:
        trigger, said = trigger_of(session), {message["content"] for message in session}
        candidates = {}
        for i, seed in _seeds(session):
            text = session[i]["content"]
            drawn = self._distractors.draw(text, self._n, trigger=trigger, seed=seed, said=said)
            if drawn:
                candidates[i] = [text, *drawn]
        return Question(session, candidates)

    def _scored(self, question: Question, answer: Answer) -> Scored:
        drift = {i: _share_above(*fits) for i, fits in answer.items()}
        drifted = [i for i, score in drift.items() if score >= self._threshold]
        turns = list(drift)
        changed = change_point([1 - score for score in drift.values()], self._n, self._change)
        where = None if changed is None else turns[changed]
        findings = [self._off_topic(question, i, drift[i]) for i in drifted]
        if where is not None:
            whole = len(question.session[where]["content"])
            reason = "from here on the supporter's turns rank lower than before"
            findings.append(Finding("change_of_topic", where, 0, whole, reason))
        numbers = {
            "drift": mean(sum(drift.values()), len(drift)),
            "drifted": mean(len(drifted), len(drift)),
            "change_point": None if where is None else float(where),
        }
        scores = tuple(drift.get(i) for i in range(len(question.session)))
        return Scored(scores, numbers, tuple(findings))

    def _off_topic(self, question: Question, i: int, score: float) -> Finding:
        n = len(question.candidates[i]) - 1
        reason = f"of {n} turns of other sessions {score * n:g} fit better"
        return Finding("off_topic", i, 0, len(question.session[i]["content"]), reason, score)


def _seeds(session: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Yield the supporter's turns behind the seeker's first, with a hash of all up to each."""
    running, triggered = hashlib.blake2b(digest_size=8), False
    for i, message in enumerate(session):
        text = message["content"]
        running.update(f"{message['role']} {text}\n".encode("utf-8", "surrogatepass"))
        if message["role"] == "user":
            triggered = True
        elif triggered and any(map(str.isalnum, text)):
            yield i, int.from_bytes(running.copy().digest(), "little")


def _share_above(own: float, *others: float) -> float:
    """Return the share of the others that are higher; equal ones count half."""
    higher = sum(other > own for other in others)
    return (higher + sum(other == own for other in others) / 2) / len(others)
