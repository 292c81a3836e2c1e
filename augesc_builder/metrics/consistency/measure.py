"""Contradictions and confusions of roles, session by session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from augesc_builder.metrics.consistency.clashes import SURENESS, clashes_of
from augesc_builder.metrics.consistency.clauses import Said, read
from augesc_builder.metrics.consistency.copies import clash_of
from augesc_builder.metrics.consistency.facts import facts_of
from augesc_builder.metrics.consistency.genders import mistaken
from augesc_builder.metrics.consistency.pairs import near_clauses, near_utterances
from augesc_builder.metrics.consistency.roles import confusions
from augesc_builder.metrics.scored import Finding, Scored
from augesc_builder.text.prompts import Message

if TYPE_CHECKING:
    from augesc_builder.models.pair_classifier import PairClassifier

THRESHOLD = 0.5
"""Score from which a pair of utterances is a contradiction."""

PAIRS = 3
"""Earlier utterances that a pair classifier holds an utterance against."""


class Consistency:
    """Contradictions and role confusions of sessions; implements the protocol ``Measure``.

    Scores are the highest of an utterance's clashes with earlier ones, 0 where none is seen. With a
    ``classifier`` the pairs that share words of content are scored by it too. Session numbers are
    ``contradictions`` (count of findings at or above :data:`THRESHOLD`), ``contradiction`` (highest
    score) and ``role_confusions`` (count).
    """

    name = "consistency"

    def __init__(self, classifier: PairClassifier | None = None) -> None:
        self._classifier = classifier

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on."""
        model = None if self._classifier is None else self._classifier.settings()
        return {"threshold": THRESHOLD, "classifier": model}

    def score(self, sessions: Sequence[Sequence[Message]]) -> list[Scored]:
        """Score sessions, in order."""
        read_in = [[read(message["content"]) for message in session] for session in sessions]
        found = [
            list(_by_rules(said, [message["role"] for message in session]))
            for session, said in zip(sessions, read_in, strict=True)
        ]
        if self._classifier is not None:
            for i, finding in self._by_model(self._classifier, sessions, read_in):
                found[i].append(finding)
        return [
            _scored(len(said), findings, list(confusions(said, [m["role"] for m in session])))
            for session, said, findings in zip(sessions, read_in, found, strict=True)
        ]

    def _by_model(
        self,
        classifier: PairClassifier,
        sessions: Sequence[Sequence[Message]],
        read_in: Sequence[Sequence[Said]],
    ) -> Iterator[tuple[int, Finding]]:
        """Yield what the classifier says of pairs of utterances, each with its session's number."""
        places = [
            (i, earlier, later)
            for i, said in enumerate(read_in)
            for later, near in enumerate(
                near_utterances(said, [m["role"] for m in sessions[i]], PAIRS)
            )
            for earlier in near
        ]
        pairs = [
            (sessions[i][earlier]["content"], sessions[i][later]["content"])
            for i, earlier, later in places
        ]
        reason = f"contradicts what was said before, says {classifier.name}"
        for (i, earlier, later), (before, text), score in zip(
            places, pairs, classifier.contradictions(pairs), strict=True
        ):
            yield i, Finding("model", later, 0, len(text), reason, score, earlier, 0, len(before))


def _by_rules(said: Sequence[Said], roles: Sequence[str]) -> Iterator[Finding]:
    """Yield the clashes of a session, those that are too unsure to count among them."""
    for pair in near_clauses(said, roles):
        if clash := clash_of(pair):
            yield Finding(
                clash.kind, pair.later, clash.start, clash.end, clash.reason, clash.score,
                pair.earlier, clash.other_start, clash.other_end,
            )  # fmt: skip
    for found in clashes_of([facts_of(utterance.clauses) for utterance in said], roles):
        fact, before = found.fact, found.before
        reason = f'{found.kind}: "{fact.said}", and before "{before.said}"'
        yield Finding(
            found.kind, found.later, fact.start, fact.end, reason, SURENESS[found.kind],
            found.earlier, before.start, before.end,
        )  # fmt: skip
    for wrong in mistaken(said, roles):
        pronoun, person = wrong.pronoun, wrong.person
        reason = f'"{pronoun.text}", where only "{person.text}" can be meant'
        yield Finding(
            "gender", wrong.later, pronoun.start, pronoun.end, reason, SURENESS["gender"],
            wrong.earlier, person.start, person.end,
        )  # fmt: skip


def _scored(n: int, clashes: Sequence[Finding], confused: Sequence[Finding]) -> Scored:
    """Return what is said of a session of ``n`` utterances."""
    scores = [0.0] * n
    surest: dict[tuple[int, int | None, str], Finding] = {}
    for clash in clashes:
        scores[clash.utterance] = max(scores[clash.utterance], clash.score)
        key = (clash.utterance, clash.other, clash.kind)
        if clash.score >= THRESHOLD and (key not in surest or clash.score > surest[key].score):
            surest[key] = clash
    findings = sorted([*surest.values(), *confused], key=lambda f: (f.utterance, f.start, f.kind))
    numbers: dict[str, float | None] = {
        "contradictions": len(surest),
        "contradiction": max(scores, default=0.0),
        "role_confusions": len(confused),
    }
    return Scored(tuple(scores), numbers, tuple(findings))
