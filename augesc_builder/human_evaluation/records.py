"""What people said: the records that the store hands to reports and exports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rating:
    """The last answer of one annotator to one question on one session (quality study).

    ``set`` names the corpus that the session was drawn from, ``value`` is a score (of the paper's
    form: 4 less the option's number), ``seconds`` the time that the annotator had the session open.
    ``turn`` is the utterance (from 0) that a form about turns asks about; of others it is None.
    """

    session: str
    set: str
    annotator: str
    question: str
    value: int
    seconds: float | None = None
    is_judge: bool = False
    turn: int | None = None


@dataclass(frozen=True)
class Preference:
    """The answer of one participant to one question on one pair of systems (interactive study).

    ``systems`` are the two in the order of the study, not of the screen; ``winner`` is one of them,
    or None for a tie.
    """

    pair: str
    participant: str
    question: str
    systems: tuple[str, str]
    winner: str | None
    seconds: float | None = None
    is_judge: bool = False
