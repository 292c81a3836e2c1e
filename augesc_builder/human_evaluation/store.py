"""What people did in a study: everything that is written, and what reports read.

Each method is one transaction on the log (:mod:`augesc_builder.human_evaluation.events`), right
from any thread and any process: nothing is kept between calls. What is sent twice with the same
``submission`` (a double click, a reload) counts once.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

from augesc_builder.errors import StudyError
from augesc_builder.human_evaluation import events as kinds
from augesc_builder.human_evaluation import state
from augesc_builder.human_evaluation.events import Event, EventLog
from augesc_builder.human_evaluation.form import ATTENTION, LEFT, TIE, slot_of
from augesc_builder.human_evaluation.records import Preference, Rating
from augesc_builder.human_evaluation.state import Progress
from augesc_builder.human_evaluation.study import Place, Study
from augesc_builder.run import layout

_CROWD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

JUDGE, IMPORT, CROWD, LINK = "judge", "import", "crowd", "link"
"""How an annotator came."""


class Store:
    """The answers of one study.

    ``clock`` gives the seconds since 1970.
    """

    def __init__(self, study: Study, clock: Callable[[], float] = time.time) -> None:
        self.study, self.clock = study, clock
        self.log = EventLog(study.folder / layout.EVENTS, clock)

    @classmethod
    def open(cls, study: Study, clock: Callable[[], float] = time.time) -> Store:
        """Open the log of a study.

        Raises :class:`~augesc_builder.errors.RunFolderError` where it is missing or none.
        """
        return cls(study, clock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the log."""
        self.log.close()

    # -- who comes -------------------------------------------------------------------------------

    def arrive(self, annotator: str, via: str = LINK, **facts: Any) -> None:
        """Note that somebody is here; only the first time counts."""
        with self.log.writing() as connection:
            self._arrive(connection, annotator, via, facts)

    def enter(self, person: str, study_id: str = "", session_id: str = "") -> str:
        """Let in somebody whom a crowd platform sent, and return the annotator's name.

        Raises :class:`~augesc_builder.errors.StudyError` (``bad_entry``) where the study takes
        nobody from a platform, for ids that are none, another study's, or another visit's.
        """
        crowd = self.study.settings.crowd
        if not crowd.enabled:
            raise StudyError("this study is entered by personal links alone", "bad_entry")
        if not all(map(_CROWD_ID.fullmatch, (person, study_id or "-", session_id or "-"))):
            raise StudyError("the address lacks a PROLIFIC_PID, or its ids are none", "bad_entry")
        if crowd.study_id is not None and study_id != crowd.study_id:
            raise StudyError("the STUDY_ID in the address is that of another study", "bad_entry")
        annotator = self.study.tokens.crowd_name(person)
        facts = {"person": person, "study_id": study_id, "session_id": session_id}
        with self.log.writing() as connection:
            known = self._arrive(connection, annotator, CROWD, facts)
            if known.get("session_id", session_id) != session_id:
                raise StudyError(
                    "this participant is here already, by another SESSION_ID", "bad_entry"
                )
        return annotator

    def consent(self, annotator: str, submission: str | None = None) -> None:
        """Note that somebody agreed to take part."""
        self.record(kinds.CONSENTED, annotator, "", {}, submission)

    def comprehension(
        self, annotator: str, answers: Mapping[int, int], submission: str | None = None
    ) -> Literal["passed", "again", "screened_out"]:
        """Take a try of the comprehension check: options by question (from 0; options from 1)."""
        check = self.study.settings.comprehension
        right = all(answers.get(i) == q.right for i, q in enumerate(check.questions))
        body = {"answers": {str(i): n for i, n in sorted(answers.items())}, "right": right}
        with self.log.writing() as connection:
            before = state.progress(connection, self.study, annotator)
            if before.stage == "consented":
                new = self.log.append(
                    connection, kinds.COMPREHENSION, annotator, "", body, submission
                )
                if new and not right and before.tries + 1 >= check.tries:
                    self.log.append(connection, kinds.SCREENED_OUT, annotator)
            after = state.progress(connection, self.study, annotator)
        if after.stage == "screened_out":
            return "screened_out"
        return "again" if after.stage in {"new", "consented"} else "passed"

    def assign(self, annotator: str) -> Place | None:
        """Return the place of somebody, given now if need be; ``None`` where none is free.

        Raises :class:`~augesc_builder.errors.StudyError`: ``expired``, or ``no_place`` for somebody
        who may have none (no consent, left, timed out, screened out).
        """
        with self.log.writing() as connection:
            found = state.progress(connection, self.study, annotator)
            if found.place is not None:
                return found.place
            self._check_open()
            if found.stage != "ready":
                raise StudyError(f"no place for somebody who is {found.stage}", "no_place")
            free = state.free_place(connection, self.study, annotator, self.clock())
            if free is None:
                return None
            place, loser = free
            if loser is not None:
                body = {"place": place.number, "reason": "timeout"}
                self.log.append(connection, kinds.RELEASED, loser, "", body)
            self.log.append(
                connection,
                kinds.PLACED,
                annotator,
                "",
                {"place": place.number, "items": place.items, "checks": dict(place.checks)},
            )
            return place

    def leave(self, annotator: str, submission: str | None = None) -> None:
        """Note that somebody does not go on; what they left undone is given to others."""
        with self.log.writing() as connection:
            found = state.progress(connection, self.study, annotator)
            if found.stage in {"left", "screened_out", "timed_out", "done"}:
                return
            if found.place is not None:
                body = {"place": found.place.number, "reason": "left"}
                self.log.append(connection, kinds.RELEASED, annotator, "", body)
            self.log.append(connection, kinds.LEFT, annotator, "", {}, submission)

    # -- what they do ----------------------------------------------------------------------------

    def record(
        self,
        kind: str,
        annotator: str,
        item: str = "",
        body: Mapping[str, Any] | None = None,
        submission: str | None = None,
    ) -> bool:
        """Add an event as it is; whether it is new. Answers go through :meth:`answer`."""
        with self.log.writing() as connection:
            return self.log.append(connection, kind, annotator, item, body, submission)

    def answer(
        self,
        annotator: str,
        item: str,
        answers: Mapping[str, int],
        submission: str | None = None,
    ) -> bool:
        """Keep answers to slots of an item; whether they are new.

        Raises :class:`~augesc_builder.errors.StudyError`: ``expired``, ``not_assigned``, or
        ``bad_answer`` for a slot or an option that the form does not have.
        """
        if item not in self.study.items:
            raise StudyError(f"no item {item!r:.60} in this study", "not_assigned")
        with self.log.writing() as connection:
            found = state.progress(connection, self.study, annotator)
            attention = None
            if found.via not in {JUDGE, IMPORT}:
                self._check_open()
                if found.place is None or item not in found.place.items:
                    raise StudyError(
                        f"item {item} is not one of those given to {annotator}", "not_assigned"
                    )
                attention = found.place.checks.get(item)
            self._check_answers(item, answers, attention)
            body = {"answers": dict(answers)}
            return self.log.append(connection, kinds.ANSWERED, annotator, item, body, submission)

    def _check_answers(self, item: str, answers: Mapping[str, int], check: int | None) -> None:
        slots = {slot.key: slot for slot in self.study.slots(item, check)}
        if not answers:
            raise StudyError("nothing was answered", "bad_answer")
        for key, number in answers.items():
            if key not in slots:
                raise StudyError(f"no question {key!r:.60} about item {item}", "bad_answer")
            n_options = len(slots[key].question.options)
            if type(number) is not int or not 1 <= number <= n_options:
                raise StudyError(
                    f"{key}: expected an option from 1 to {n_options}, found {number!r:.40}",
                    "bad_answer",
                )

    # -- what is there ---------------------------------------------------------------------------

    def progress(self, annotator: str) -> Progress:
        """Return where somebody stands."""
        with self.log.reading() as connection:
            return state.progress(connection, self.study, annotator)

    def answers(self, annotator: str, item: str) -> dict[str, int]:
        """Return the last answers of somebody on an item: the option's number by slot."""
        with self.log.reading() as connection:
            return state.answers_of(connection, annotator).of(annotator, item)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Yield all events behind one, in the order they were added."""
        return self.log.events(after)

    def ratings(self) -> Iterator[Rating]:
        """Yield the last answers on every session of which somebody answered all.

        Attention checks are none of them; see :meth:`checks`.
        """
        for annotator, item, answers, seconds, judge in self._complete():
            for key, number in answers.items():
                name, turn = slot_of(key)
                question = next(q for q in self.study.form.questions if q.name == name)
                yield Rating(
                    session=item,
                    set=self.study.items[item].set,
                    annotator=annotator,
                    question=name,
                    value=question.scores[number - 1],
                    seconds=seconds,
                    is_judge=judge,
                    turn=turn,
                )

    def preferences(self) -> Iterator[Preference]:
        """Yield the last answers on every pair of which somebody answered all."""
        for annotator, item, answers, seconds, judge in self._complete():
            pair = self.study.items[item]
            for key, number in answers.items():
                yield Preference(
                    pair=item,
                    participant=annotator,
                    question=key,
                    systems=cast("tuple[str, str]", pair.systems),  # of a pair there are two
                    winner=None if number == TIE else pair.left if number == LEFT else pair.right,
                    seconds=seconds,
                    is_judge=judge,
                )

    def checks(self) -> dict[str, tuple[int, int]]:
        """Return by annotator how many checks of attention were passed, of how many answered."""
        with self.log.reading() as connection:
            answers = state.answers_of(connection)
            placed = state.select(connection, "kind = ?", kinds.PLACED)
        found: dict[str, tuple[int, int]] = {}
        for event in placed:
            for item, wanted in event.body["checks"].items():
                number = answers.of(event.annotator, item).get(ATTENTION)
                if number is not None:
                    passed, of = found.get(event.annotator, (0, 0))
                    found[event.annotator] = (passed + (number == wanted), of + 1)
        return found

    def _complete(self) -> Iterator[tuple[str, str, dict[str, int], float | None, bool]]:
        """Yield annotator, item, answers by slot, seconds, and whether it is a judge's."""
        log = list(self.events())
        answers = state.Answers()
        via = {e.annotator: e.body.get("via", "") for e in log if e.kind == kinds.ARRIVED}
        gone = state.withdrawn(log)
        given = {
            (e.annotator, e.item): e.body
            for e in log
            if e.kind == kinds.ANSWERED and e.annotator not in gone
        }
        for event in log:
            if event.kind == kinds.ANSWERED:
                answers.add(event)
        spent = state.seconds_open(log)
        for (annotator, item), body in given.items():
            if answers.is_complete(self.study, annotator, item):
                seconds = body.get("seconds", spent.get((annotator, item)))
                found = answers.of(annotator, item)
                chosen = {slot.key: found[slot.key] for slot in self.study.slots(item)}
                yield annotator, item, chosen, seconds, via.get(annotator) == JUDGE

    # -- inside ----------------------------------------------------------------------------------

    def _arrive(
        self, connection: sqlite3.Connection, annotator: str, via: str, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Note an arrival, unless it is known; return what was noted first."""
        known = state.select(connection, "annotator = ? AND kind = ?", annotator, kinds.ARRIVED)
        if known:
            return known[0].body
        self.log.append(connection, kinds.ARRIVED, annotator, "", {"via": via, **facts})
        return dict(facts)

    def _check_open(self) -> None:
        if self.clock() > self.study.settings.end:
            raise StudyError(
                f"the study closed at {self.study.settings.expires}; nothing more is taken",
                "expired",
            )
