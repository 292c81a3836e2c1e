"""Posts: what a source of triggers gives, and what is said of lines that give none."""

from __future__ import annotations

from dataclasses import dataclass, field

from augesc_builder.errors import InputError
from augesc_builder.text.prompts import Message


@dataclass(frozen=True)
class Post:
    """The first thing somebody wrote, and what its source says of it.

    ``reasons`` name what the source itself holds against the post, such as ``removed``.
    """

    text: str
    emotion: str | None = None
    subreddit: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass
class BadLines:
    """Counts lines that could not be read; the first is fatal where the reader is ``strict``."""

    strict: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, error: InputError) -> None:
        """Count a line, and keep what is wrong with it if it is among the first ten."""
        if self.strict:
            raise error
        self.count += 1
        if len(self.examples) < 10:  # noqa: PLR2004
            self.examples.append(str(error))


def source_label(source: str) -> str:
    """Name a source of queries as the paper does."""
    return {"empathetic_dialogues": "ED", "reddit": "Reddit"}.get(source, source)


@dataclass(frozen=True)
class Session:
    """One session: its utterances from the seeker's first on, and what it is about."""

    session_id: str
    messages: tuple[Message, ...]
    problem_type: str | None = None
