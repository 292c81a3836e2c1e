"""What the log of a study comes to: who has which place, what is answered, who may go on.

Nothing here is kept: it is computed from the events, in the transaction of whoever asks.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation.design import draw_checks, new_order
from augesc_builder.human_evaluation.events import COLUMNS, Event, event_of
from augesc_builder.human_evaluation.study import Place, Study

Stage = Literal["new", "consented", "ready", "working", "done", "left", "screened_out", "timed_out"]
"""Where a person stands: ``consented`` has the comprehension check before them, ``ready`` waits for
a place, ``timed_out`` has lost it to somebody else."""


@dataclass(frozen=True)
class Progress:
    """Where a person stands, and with which place.

    ``finished`` are the items of the place of which everything is answered; ``tries`` counts those
    of the comprehension check.
    """

    stage: Stage
    place: Place | None = None
    finished: frozenset[str] = frozenset()
    tries: int = 0
    via: str = ""
    has_seen_end: bool = False

    @property
    def next_item(self) -> str | None:
        """The first item of the place that is not finished."""
        if self.place is None:
            return None
        return next((item for item in self.place.items if item not in self.finished), None)


@dataclass
class Answers:
    """The last answers of everybody, by annotator and item, then by slot."""

    by: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take one event of answers: a later answer stands in the place of an earlier one."""
        self.by.setdefault((event.annotator, event.item), {}).update(event.body["answers"])

    def of(self, annotator: str, item: str) -> dict[str, int]:
        """Return the answers of one annotator on one item."""
        return self.by.get((annotator, item), {})

    def is_complete(self, study: Study, annotator: str, item: str) -> bool:
        """Whether every question about an item is answered: then it counts as rated."""
        given = self.of(annotator, item)
        return all(slot.key in given for slot in study.slots(item))

    def finished(self, study: Study, annotator: str, place: Place) -> frozenset[str]:
        """Return the items of a place of which all is answered, checks of attention too."""
        return frozenset(
            item
            for item in place.items
            if all(
                slot.key in self.of(annotator, item)
                for slot in study.slots(item, place.checks.get(item))
            )
        )


def select(connection: sqlite3.Connection, where: str, *values: Any) -> list[Event]:
    """Return events in their order."""
    rows = connection.execute(f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY id", values)
    return [event_of(row) for row in rows]


def answers_of(connection: sqlite3.Connection, annotator: str | None = None) -> Answers:
    """Return the last answers of one annotator, or of all who did not withdraw theirs."""
    found = Answers()
    gone = withdrawn(select(connection, "kind = ?", kinds.WITHDRAWN))
    where, values = "kind = ?", [kinds.ANSWERED]
    if annotator is not None:
        where, values = "annotator = ? AND kind = ?", [annotator, kinds.ANSWERED]
    for event in select(connection, where, *values):
        if annotator is not None or event.annotator not in gone:
            found.add(event)
    return found


def withdrawn(log: Iterable[Event]) -> set[str]:
    """Return who asked that their answers be left out."""
    return {event.annotator for event in log if event.kind == kinds.WITHDRAWN}


def place_in(event: Event) -> Place:
    """Return the place that an event gave to somebody."""
    body = event.body
    return Place(body["place"], tuple(body["items"]), dict(body["checks"]))


def progress(connection: sqlite3.Connection, study: Study, annotator: str) -> Progress:
    """Return where a person stands."""
    stage: Stage = "new"
    place: Place | None = None
    tries, via, end = 0, "", False
    answers = Answers()
    for event in select(connection, "annotator = ?", annotator):
        body = event.body
        if event.kind == kinds.ARRIVED:
            via = body.get("via", "")
        elif event.kind == kinds.CONSENTED and stage == "new":
            stage = "consented" if study.settings.comprehension.questions else "ready"
        elif event.kind == kinds.COMPREHENSION:
            tries += 1
            if body["right"] and stage == "consented":
                stage = "ready"
        elif event.kind == kinds.SCREENED_OUT:
            stage = "screened_out"
        elif event.kind == kinds.PLACED:
            stage, place = "working", place_in(event)
        elif event.kind == kinds.RELEASED:
            stage, place = ("timed_out" if body["reason"] == "timeout" else "left"), None
        elif event.kind == kinds.LEFT:
            stage, place = "left", None
        elif event.kind == kinds.ANSWERED:
            answers.add(event)
        elif event.kind == kinds.FINISHED:
            end = True
    finished = frozenset() if place is None else answers.finished(study, annotator, place)
    if place is not None and stage == "working" and len(finished) == len(place.items):
        stage = "done"
    return Progress(stage, place, finished, tries, via, end)


@dataclass
class _Held:
    """What happened to one place: who had it, and who has it now."""

    given: list[tuple[str, Place]] = field(default_factory=list)
    holder: str | None = None


def free_place(
    connection: sqlite3.Connection, study: Study, annotator: str, now: float
) -> tuple[Place, str | None] | None:
    """Return a place for somebody, with the person who loses it by time-out, if anybody does.

    Places that nobody had come first, then those that were given back, then those of people who
    gave no sign of life for the time that the study allows, the longest silent first.
    """
    held = {place.number: _Held() for place in study.places}
    for event in select(connection, "kind IN (?, ?)", kinds.PLACED, kinds.RELEASED):
        spot = held[event.body["place"]]
        if event.kind == kinds.PLACED:
            spot.given.append((event.annotator, place_in(event)))
            spot.holder = event.annotator
        elif spot.holder == event.annotator:
            spot.holder = None
    for place in study.places:
        if not held[place.number].given:
            return place, None
    answers = answers_of(connection)
    last = _last_signs(connection)
    back = [number for number, spot in held.items() if spot.holder is None]
    silent = sorted(
        (last[spot.holder], number)
        for number, spot in held.items()
        if spot.holder is not None and now - last[spot.holder] > study.settings.timeout_seconds
    )
    for number in [*back, *(number for _, number in silent)]:
        spot = held[number]
        rest = _left_undone(study, spot.given, answers)
        if not rest or any(
            set(rest) & set(place.items) for name, place in spot.given if name == annotator
        ):
            continue
        order = _reordered(study, number, rest, spot.given)
        n_checks = min(len(order), study.settings.attention_checks)
        n_options = len(study.form.questions[0].options)
        stream = random.Random(f"{study.settings.seed}/{number}/{len(spot.given)}/checks")
        return Place(number, order, draw_checks(order, n_checks, n_options, stream)), spot.holder
    return None


def _left_undone(
    study: Study, given: Sequence[tuple[str, Place]], answers: Answers
) -> tuple[str, ...]:
    """Return the items of a place that nobody who had it has rated."""
    names = [name for name, _ in given]
    return tuple(
        item
        for item in given[0][1].items
        if not any(answers.is_complete(study, name, item) for name in names)
    )


def _reordered(
    study: Study, number: int, rest: Sequence[str], given: Sequence[tuple[str, Place]]
) -> tuple[str, ...]:
    """Return what is left of a place in an order that nobody had before."""
    stream = random.Random(f"{study.settings.seed}/{number}/{len(given)}/order")
    places = [*study.places, *(place for _, place in given)]
    taken = {tuple(item for item in place.items if item in rest) for place in places}
    return new_order(rest, taken, stream)


def _last_signs(connection: sqlite3.Connection) -> dict[str, float]:
    """Return when each annotator was last heard of."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM events WHERE id IN (SELECT MAX(id) FROM events GROUP BY annotator)"
    )
    return {event.annotator: event.time for event in map(event_of, rows)}


_LONGEST_PAUSE = 600.0
"""Seconds of which a longer pause between two signs of life counts as so many."""


def seconds_open(log: Iterable[Event]) -> dict[tuple[str, str], float]:
    """Return how long each annotator worked on each item, in seconds, from the whole log.

    That is the time from the drawing of its page to the last answer, over as many visits as there
    were; a reload ends no visit, and another item does.
    """
    spent: dict[tuple[str, str], float] = {}
    before: dict[str, Event] = {}
    waiting: dict[str, float] = {}
    for event in log:
        if event.kind not in {kinds.OPENED, kinds.ANSWERED}:
            continue
        name, last = event.annotator, before.get(event.annotator)
        if last is None or last.item != event.item:
            waiting[name] = 0.0
        else:
            waiting[name] += min(max(0.0, event.time - last.time), _LONGEST_PAUSE)
        if event.kind == kinds.ANSWERED:
            spent[name, event.item] = spent.get((name, event.item), 0.0) + waiting[name]
            waiting[name] = 0.0
        before[name] = event
    return spent
