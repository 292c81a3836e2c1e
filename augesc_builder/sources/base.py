"""What a source is: its record, and what its readers give: posts and sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Reading
from augesc_builder.errors import InputError
from augesc_builder.readers.records import BadLines, Limits
from augesc_builder.text.prompts import Message

__all__ = ["BadLines", "Post", "RawPosts", "Session", "SourceInfo"]

FREE, NON_COMMERCIAL, OTHER = "apache-2.0", "cc-by-nc-4.0", "other"
"""Licences of sources, as the Hub calls them; ``other`` is for texts that their authors own."""


@dataclass(frozen=True)
class Post:
    """The first thing somebody wrote, and what its source says of it.

    ``reasons`` name what the source itself holds against the post, such as ``removed``.
    """

    text: str
    emotion: str | None = None
    subreddit: str | None = None
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no table can store.

        Raises ``UnicodeEncodeError``, a ``ValueError``, for half of a surrogate pair.
        """
        for text in (self.text, self.emotion, self.subreddit):
            if text is not None and not text.isascii():
                text.encode()


@dataclass(frozen=True)
class Session:
    """One session: its utterances from the seeker's first on.

    ``source`` is the corpus that it or its query is from, ``problem_type`` what it is about,
    ``situation`` what the seeker wrote of their trouble beforehand. ``strategies`` are those of the
    supporter's utterances, one a message, ``None`` where none is given. ``emotion`` is the
    seeker's, ``experience_type`` whether they have the trouble now; ``survey_score`` has what both
    answered afterwards, by who it was and the question (``tables.SURVEY_SCORE``).
    """

    session_id: str
    messages: tuple[Message, ...]
    problem_type: str | None = None
    source: str = ""
    situation: str | None = None
    strategies: tuple[str | None, ...] | None = None
    emotion: str | None = None
    experience_type: str | None = None
    survey_score: Mapping[str, Mapping[str, int | None]] | None = None


def limits_of(reading: Reading) -> Limits:
    """Return the limits of a recipe for readers."""
    return Limits(**reading.model_dump())


@dataclass(frozen=True)
class RawPosts:
    """Consecutive posts of one file, not parsed yet: what a worker process is given at a time.

    ``rows`` are pairs of a line or row number, from 1, and what stands there: raw, or the error of
    a line that cannot be read.
    """

    path: str
    rows: list[tuple[int, Any]]


@dataclass(frozen=True)
class SourceInfo:
    """All there is to say of a source, beside its reader.

    - ``name``: in recipes, tables and reports
    - ``label``: in tables, as the paper has it
    - ``about``: what a user gives to read it, in a few words
    - ``licence``: of its texts; a corpus made of them inherits it
    - ``producers``: who wrote its texts, a sentence for the card
    - ``terms``: what else holds for whoever passes its texts on or learns from them, for the card
    - ``citation``: a BibTeX entry, or the key of one in ``dataset_card/citations.bib``
    - ``dataset``: its name in the Hub's ``source_datasets``
    - ``paper``: queries that the paper got of it, and their mean length in words (section 4.2)
    - ``repo``, ``revision``: on the Hub, the revision as pinned as it can be
    - ``bundled_posts``, ``bundled_sessions``: files inside the package
    - ``locate``: turns the recipe's ``path`` into one on this disk, downloading where needed, and
      says the commit it is of; without it the recipe must give a path
    - ``read``: yields the posts of a path; lines that cannot be read go to the ``BadLines``
    - ``read_raw``, ``parse``: the same in two steps, for dumps that several processes parse
    - ``read_sessions``: sessions to fine-tune on, at a revision, with the commit they are of
    - ``session_files``: files of all its sessions, of every split, at a revision
    - ``test_files``: those of the split that models are tested on, with the commit they are of
    - ``appendix_a``: whether the rules of appendix A are asked of its posts
    """

    name: str
    label: str
    about: str
    licence: str
    producers: str
    citation: str | None = None
    dataset: str | None = None
    terms: str | None = None
    paper: tuple[int, float] | None = None
    repo: str | None = None
    revision: str | None = None
    bundled_posts: Path | None = None
    bundled_sessions: Path | None = None
    locate: Callable[[str | None], tuple[Path | str | None, str | None]] | None = None
    read: Callable[[Any, BadLines], Iterator[Post]] | None = None
    read_raw: Callable[[Any, BadLines], Iterator[RawPosts]] | None = None
    parse: Callable[[RawPosts], list[Post | InputError]] | None = None
    read_sessions: Callable[[str | None], tuple[list[Session], str | None]] | None = None
    session_files: Callable[[str | None], list[Path]] | None = None
    test_files: Callable[[str | None], tuple[list[Path], str | None]] | None = None
    appendix_a: bool = False

    @property
    def gives_posts(self) -> bool:
        """Whether it can be a source of queries."""
        return self.read is not None or self.read_raw is not None
