"""The form of a study: its questions, their options, and what each option counts.

A form is a YAML file. Shipped are ``paper`` (Figure 6 of the paper: a session is rated as a whole),
``behaviours`` (yes or no for each utterance of the supporter) and ``interactive`` (section 7: two
systems are compared). Options are numbered from 1 as they stand; the last scores 0 and the first
most, as in the paper, whose scores are 4 less the option's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from augesc_builder.config.base import Section
from augesc_builder.config.loader import ConfigLoader
from augesc_builder.config.yaml_text import lines_of, load_yaml
from augesc_builder.errors import InputError
from augesc_builder.text.prompts import Message

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""How a question is called in answers and exports."""

Text = Annotated[str, Field(min_length=1, max_length=4000)]

ATTENTION = "attention_check"
"""The name of the instructed item, which no form's own question has."""

LEFT, RIGHT, TIE = 1, 2, 3
"""The numbers of the options of a form that compares pairs."""


class Option(Section):
    """One of the answers to a question.

    ``score`` is given where another is meant than the number of options less the option's number.
    """

    label: Text
    score: int | None = None


class Question(Section):
    """A question with its definition, its options in order, and examples beside it.

    ``lead`` stands before the examples, such as what a seeker said. In reports the lowest mean
    is the best where ``less_is_better``, and no test is done of a question that is not ``tested``,
    such as one that nearly all answer alike.
    """

    name: Name
    title: Text
    definition: Text
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=9)]
    lead: Text | None = None
    examples: tuple[Text, ...] = ()
    less_is_better: bool = False
    tested: bool = True

    @property
    def scores(self) -> tuple[int, ...]:
        """What each option counts, in their order."""
        n = len(self.options)
        return tuple(
            n - number if option.score is None else option.score
            for number, option in enumerate(self.options, 1)
        )

    @model_validator(mode="after")
    def _check(self) -> Question:
        labels = [option.label for option in self.options]
        if len(set(labels)) < len(labels):
            raise ValueError("two options have the same label; every label stands once")
        if len(set(self.scores)) < len(labels):
            raise ValueError(f"two options have the same score: {self.scores}")
        if self.name == ATTENTION:
            raise ValueError(f"{ATTENTION} is the name of the check of attention; give another")
        return self


class Part(Section):
    """Questions under a heading."""

    title: Text
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]


class Form(Section):
    """All that somebody is asked about a session, or about a pair of conversations.

    ``about`` is what is judged: a ``session`` as a whole, its ``turns`` one by one, or a ``pair``
    of conversations, whose options are left, right and tie, in this order. ``role`` says whose
    utterances are judged where it is turns. ``language`` is that of its texts (BCP 47).
    """

    name: Name
    title: Text
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    cites: Text | None = None
    about: Literal["session", "turns", "pair"]
    role: Literal["user", "assistant"] | None = None
    instruction: Text
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]

    @property
    def questions(self) -> tuple[Question, ...]:
        """All questions in order."""
        return tuple(question for part in self.parts for question in part.questions)

    @property
    def question_names(self) -> tuple[str, ...]:
        """The names of all questions in order."""
        return tuple(question.name for question in self.questions)

    def slots(self, messages: Sequence[Message] = (), attention: int | None = None) -> list[Slot]:
        """Return all that is to be answered about these messages, in order.

        ``attention`` is the number of the option that an instructed item asks for, where there is
        one: it stands behind all others.
        """
        if self.about == "turns":
            turns = [i for i, m in enumerate(messages) if self.role in {None, m["role"]}]
            found = [Slot(question, turn) for turn in turns for question in self.questions]
        else:
            found = [Slot(question) for question in self.questions]
        if attention is not None:
            found.append(Slot(self.instructed(attention)))
        return found

    def instructed(self, number: int) -> Question:
        """Return the check of attention that asks for one of the first question's options."""
        options = self.questions[0].options
        return Question.model_construct(
            name=ATTENTION,
            title="Attention check",
            definition=f"To show that you are reading, please choose option {number} here: "
            f"{options[number - 1].label}",
            options=tuple(options),
            lead=None,
            examples=(),
        )

    @model_validator(mode="after")
    def _check(self) -> Form:
        names = self.question_names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two questions are called {name}; every name stands once")
        if self.role is not None and self.about != "turns":
            raise ValueError("role is for a form about turns; remove it")
        if self.about == "pair" and any(len(q.options) != TIE for q in self.questions):
            raise ValueError("a form about a pair has three options each: left, right and tie")
        return self


@dataclass(frozen=True)
class Slot:
    """A place for one answer: a question, of the utterance ``turn`` (from 0) if of any."""

    question: Question
    turn: int | None = None

    @property
    def key(self) -> str:
        """How the answer is called in events and on pages: ``empathy``, or ``unsafe.3``."""
        return self.question.name if self.turn is None else f"{self.question.name}.{self.turn}"


def slot_of(key: str) -> tuple[str, int | None]:
    """Return the question and the turn that a slot's key names."""
    name, dot, turn = key.partition(".")
    return name, int(turn) if dot else None


FORMS = Path(__file__).parent / "forms"

_LOADER = ConfigLoader(noun="form", folder=FORMS, base="paper", example="title=Mine")


def shipped_forms() -> list[str]:
    """Name the forms that come with the package."""
    return _LOADER.shipped()


def load_form(name: str | Path) -> Form:
    """Load a shipped form by name, or a YAML file.

    Raises :class:`~augesc_builder.errors.RecipeError` where there is none, and
    :class:`~augesc_builder.errors.InputError`, naming key and line, for one that is no form.
    """
    path = _LOADER.find(name)
    try:
        text = path.read_text(encoding="utf-8")
        values = load_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"not a YAML file in UTF-8: {reason}", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"expected the keys of a form, found {type(values).__name__}", path)
    return _checked(values, path, lines_of(text))


def _checked(values: Mapping[str, Any], path: Path, lines: Mapping[tuple[str, ...], int]) -> Form:
    try:
        return Form.model_validate(values)
    except ValidationError as error:
        # The line of the first finding; where a key is missing, that of what should hold it.
        place = tuple(map(str, error.errors()[0]["loc"]))
        while place and place not in lines:
            place = place[:-1]
        raise InputError(_LOADER.explain(Form, error), path, lines.get(place, 1)) from None


def parts_with_slots(form: Form, slots: Sequence[Slot]) -> Iterator[tuple[str, list[Slot]]]:
    """Yield the heading of each part with its slots, the instructed item under none."""
    for part in form.parts:
        names = {question.name for question in part.questions}
        yield part.title, [slot for slot in slots if slot.question.name in names]
    if rest := [slot for slot in slots if slot.question.name == ATTENTION]:
        yield "", rest
