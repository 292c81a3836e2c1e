"""What each turn of a session adds: content words and facts that nobody has said before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.informativeness.facts import facts
from augesc_builder.metrics.scored import Scored
from augesc_builder.metrics.tokenized import mean
from augesc_builder.text.prompts import Message


class Informativeness:
    """Counts new content words (stems without stop words) and new facts of every utterance.

    ``scores`` are the new content words of each utterance, of both speakers. Of the session, over
    the seeker's turns: ``new_words`` and ``new_facts``, the mean number a turn, and ``new_share``,
    how many of the content words that the turns have are new (each word of a turn once). ``None``
    where there is no such turn or word.
    """

    name = "informativeness"

    def settings(self) -> dict[str, Any]:
        """Return what the numbers depend on: the rules alone."""
        return {}

    def score(self, sessions: Sequence[Sequence[Message]]) -> list[Scored]:
        """Score sessions; the time grows with what is said in them."""
        return [_score(session) for session in sessions]


def _score(session: Sequence[Message]) -> Scored:
    said: set[str] = set()
    known: set[tuple[str, str]] = set()
    scores: list[float | None] = []
    turns = words = new_words = new_facts = 0
    for message in session:
        here = set(content_words(message["content"]))
        there = set(facts(message["content"]))
        n_new = len(here - said)
        scores.append(float(n_new))
        if message["role"] == "user":
            turns += 1
            words += len(here)
            new_words += n_new
            new_facts += len(there - known)
        said |= here
        known |= there
    numbers = {
        "new_words": mean(new_words, turns),
        "new_facts": mean(new_facts, turns),
        "new_share": mean(new_words, words),
    }
    return Scored(tuple(scores), numbers)
