"""The settings of a study: every key with its type and bounds.

Shipped are ``quality`` (section 6 of the paper) and ``interactive`` (section 7), with a comment on
each key; a file of the user's begins with ``extends: quality`` and has what differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from augesc_builder.config.base import AddressText, NotNegative, PathText, Positive, Section, Seed
from augesc_builder.config.loader import ConfigLoader

SetName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f=]+$")]
"""How a corpus or a system is called in reports; annotators never see it."""

Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What a crowd platform wants to hear at the end."""

Count = Annotated[int, Field(ge=1, le=10_000)]
"""Of sessions, pairs or people: more than anybody can ask, and little enough to be dealt."""

Paragraph = Annotated[str, Field(min_length=1, max_length=20_000)]


class Consent(Section):
    """What somebody agrees to before anything is shown."""

    purpose: Paragraph
    data: Paragraph
    risks: Paragraph
    statement: Paragraph


class ComprehensionQuestion(Section):
    """A question on the instructions, with the number (from 1) of the right option."""

    question: Paragraph
    options: Annotated[tuple[Paragraph, ...], Field(min_length=2, max_length=9)]
    right: Positive

    @model_validator(mode="after")
    def _right_is_one(self) -> ComprehensionQuestion:
        if self.right > len(self.options):
            raise ValueError(f"right is {self.right}, and there are {len(self.options)} options")
        return self


class Comprehension(Section):
    """The check before the work begins: who fails it in every try is screened out."""

    tries: Annotated[int, Field(ge=1, le=9)]
    questions: tuple[ComprehensionQuestion, ...]


class Crowd(Section):
    """A crowd platform that sends people with ``?PROLIFIC_PID=&STUDY_ID=&SESSION_ID=``.

    ``study_id``, where given, is the only one that is let in. ``completion_url`` is where people
    return to, with ``{code}`` in the place of the code.
    """

    enabled: bool
    study_id: Code | None
    completion_code: Code | None
    screen_out_code: Code | None
    completion_url: AddressText | None


class System(Section):
    """A dialog system of the interactive study: a model's folder, or an endpoint.

    ``folder`` is one of ``augesc train``; ``base_url`` and ``model`` name an endpoint that speaks
    OpenAI's protocol, ``key_env`` the environment variable that holds its key.
    """

    folder: PathText | None = None
    base_url: AddressText | None = None
    model: str | None = None
    key_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")] | None = None
    system_prompt: Paragraph | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> System:
        if (self.folder is None) == (self.base_url is None):
            raise ValueError("expected either folder or base_url")
        if self.base_url is not None and self.model is None:
            raise ValueError("an endpoint needs the name of its model: model")
        return self


class Replies(Section):
    """How every system of the interactive study writes its replies."""

    temperature: Annotated[float, Field(ge=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Positive
    timeout_seconds: Annotated[float, Field(gt=0)]


class Interactive(Section):
    """The interactive study: which systems, how many people, how long they talk at least.

    ``pairs`` is the number of conversations with two systems, one a person; ``min_utterances``
    those of the person, and of each system, before the questions open. ``on_danger`` is a command
    or a URL that is told of signs of danger.
    """

    systems: Annotated[dict[SetName, System], Field(min_length=2)]
    pairs: Count
    min_utterances: Positive
    max_characters: Positive
    replies: Replies
    on_danger: str | None


class StudySettings(Section):
    """Every setting of a study."""

    name: SetName
    kind: Literal["quality", "interactive"]
    title: Paragraph
    seed: Seed
    form: PathText
    contact: Paragraph | None
    sessions: Count
    ratings: Annotated[int, Field(ge=1, le=100)]
    per_person: Count
    links: NotNegative | None
    attention_checks: NotNegative
    min_seconds: NotNegative
    timeout_minutes: Positive
    expires: str | None
    consent: Consent
    comprehension: Comprehension
    support: Paragraph
    crowd: Crowd
    interactive: Interactive | None

    @property
    def timeout_seconds(self) -> float:
        """Seconds without a sign of life after which a place is given to somebody else."""
        return 60.0 * self.timeout_minutes

    @property
    def end(self) -> float:
        """Seconds since 1970 at which the study closes; infinity where it never does."""
        return math.inf if self.expires is None else _moment(self.expires).timestamp()

    @model_validator(mode="after")
    def _check(self) -> StudySettings:
        if (self.kind == "interactive") != (self.interactive is not None):
            raise ValueError("the section interactive belongs to kind: interactive, and only there")
        if self.kind == "quality" and self.attention_checks > self.per_person:
            raise ValueError(
                f"{self.attention_checks} attention_checks do not fit into {self.per_person} "
                f"sessions a person (per_person)"
            )
        if self.expires is not None:
            _moment(self.expires)
        return self


def _moment(text: str) -> datetime:
    """Return a moment of ISO 8601; without an offset it is in UTC."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"expires: expected a date such as 2027-03-31 or 2027-03-31T18:00+01:00, found "
            f"{text[:40]!r}"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


_LOADER = ConfigLoader(
    noun="study",
    folder=Path(__file__).parent / "studies",
    base="quality",
    example="ratings=3",
)


def shipped_studies() -> list[str]:
    """Name the settings that come with the package."""
    return _LOADER.shipped()


def load_settings(name: str | Path, overrides: Sequence[str] = ()) -> StudySettings:
    """Load shipped settings by name, or a file, and apply ``key.path=value`` overrides.

    Raises :class:`~augesc_builder.errors.RecipeError`, naming the keys.
    """
    return _LOADER.check(StudySettings, _LOADER.read(name, overrides))
