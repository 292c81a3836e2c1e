"""Ratings by question, session and item, as reports look at them: people here, judges there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from augesc_builder.human_evaluation.records import Rating

Session = tuple[str, str]
"""Its set, and its name there."""

Item = dict[str, int]
"""What each annotator gave to a session, or to one utterance of it."""

Items = Mapping[int | None, Item]
"""The ratings of a session by utterance; by None where it is rated as a whole."""

Rated = dict[str, dict[Session, dict[int | None, Item]]]
"""Question -> session -> utterance -> ratings."""


@dataclass
class Answers:
    """All ratings of a study, the last of each annotator, question and item.

    ``people`` and each of the ``judges`` (models that rate) are kept apart, so that nothing of one
    gets into the means of the other. ``seconds`` is how long annotators had each session open.
    """

    people: Rated = field(default_factory=dict)
    judges: dict[str, Rated] = field(default_factory=dict)
    seconds: dict[str, dict[Session, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, ratings: Iterable[Rating]) -> Answers:
        """Sort ratings."""
        found = cls()
        for rating in ratings:
            session = (rating.set, rating.session)
            where = (
                found.judges.setdefault(rating.annotator, {}) if rating.is_judge else found.people
            )
            items = where.setdefault(rating.question, {}).setdefault(session, {})
            item = items.setdefault(rating.turn, {})
            item[rating.annotator] = rating.value
            if rating.seconds is not None and not rating.is_judge:
                spent = found.seconds.setdefault(rating.annotator, {})
                spent[session] = max(rating.seconds, spent.get(session, 0.0))
        return found

    def sessions(self) -> dict[str, dict[Session, set[str]]]:
        """Return the sessions of each set that people rated, each with its annotators."""
        found: dict[str, dict[Session, set[str]]] = {}
        for by_session in self.people.values():
            for session, items in by_session.items():
                of_set = found.setdefault(session[0], {})
                of_set.setdefault(session, set()).update(*items.values())
        return found

    def annotators(self) -> list[str]:
        """Return all people who rated anything, in order of their names."""
        items = (item for of in self.people.values() for by in of.values() for item in by.values())
        return sorted({annotator for item in items for annotator in item})

    def judged_sets(self) -> set[str]:
        """Return the sets that a judge rated sessions of."""
        rated = (by_session for of in self.judges.values() for by_session in of.values())
        return {session[0] for by_session in rated for session in by_session}


def values_of(items: Items) -> list[int]:
    """Return all ratings of a session, in any order."""
    return [value for item in items.values() for value in item.values()]


def pairs_of(
    by_session: Mapping[Session, Items],
    others: Mapping[Session, Items],
) -> Iterator[tuple[Session, str, int, int]]:
    """Yield session, annotator, and its value beside each that another gave to the same item."""
    for session, items in by_session.items():
        beside = others.get(session, {})
        for turn, item in items.items():
            for annotator, value in item.items():
                for other, theirs in beside.get(turn, {}).items():
                    if other != annotator:
                        yield session, annotator, value, theirs
