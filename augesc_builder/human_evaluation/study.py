"""A study's folder: its settings, form, items and places, all fixed when it was created.

::

    STUDY/
      study.json      settings, the whole form, digests of the corpora, who rates what; no secrets
      items.jsonl     what is judged, with the set that it is from; annotators never see the set
      tokens.json     the personal links; only its owner may read it
      events.sqlite   what people did, append-only: the only truth about answers
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from augesc_builder.errors import InputError, RunFolderError, StudyError
from augesc_builder.human_evaluation.form import Form, Slot
from augesc_builder.human_evaluation.settings import StudySettings
from augesc_builder.human_evaluation.tokens import Tokens, read_tokens
from augesc_builder.readers.jsonl import json_of, read_lines
from augesc_builder.run import layout
from augesc_builder.run.disk import load_sealed, sha256
from augesc_builder.run.provenance import digest
from augesc_builder.text.prompts import Message

KIND = "augesc study"
"""What the manifest of every study says it is."""


@dataclass(frozen=True)
class Item:
    """Something that is judged.

    - ``id``: how it is called in events and addresses; it tells nothing of the set
    - ``set``: the corpus that a session is drawn from; empty for a pair of systems
    - ``session_id``: its id in the corpus
    - ``messages``: the session; none for a pair, whose conversations are among the events
    - ``systems``: of a pair, in the order of the study; ``left``: the one on the left of the screen
    """

    id: str
    set: str = ""
    session_id: str = ""
    messages: tuple[Message, ...] = ()
    systems: tuple[str, str] | None = None
    left: str | None = None

    @property
    def right(self) -> str | None:
        """The system on the right of the screen, of a pair."""
        return next((name for name in self.systems or () if name != self.left), None)


@dataclass(frozen=True)
class Place:
    """The work of one person: items in their order.

    ``checks`` has the items that also hold an instructed item, with the option that it asks for.
    """

    number: int
    items: tuple[str, ...]
    checks: Mapping[str, int]


@dataclass(frozen=True)
class Corpus:
    """Where a set was drawn from: the files that ``where`` named, their digest, what they held."""

    name: str
    where: str
    files: tuple[str, ...]
    digest: str
    n_sessions: int


@dataclass(frozen=True)
class Study:
    """A study as it was created."""

    folder: Path
    settings: StudySettings
    form: Form
    items: Mapping[str, Item]
    places: tuple[Place, ...]
    corpora: tuple[Corpus, ...]

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """Read a study, every part of it checked.

        Raises :class:`~augesc_builder.errors.RunFolderError` where there is none, and
        :class:`~augesc_builder.errors.InputError` where it is not as it was created.
        """
        folder = Path(folder)
        path = folder / layout.STUDY
        if not path.is_file():
            raise RunFolderError(
                f"{folder}: no {layout.STUDY} there; give the folder of `augesc study create`"
            )
        found = load_sealed(path)
        if found.get("kind") != KIND:
            raise RunFolderError(f"{path}: not that of a study; give the folder of one")
        items = folder / layout.ITEMS
        if not items.is_file() or sha256(items) != found.get("items"):
            raise InputError(
                "not as `augesc study create` wrote it: answers would be given to other sessions; "
                "put the file back from a copy",
                items,
            )
        try:
            return cls(
                folder,
                StudySettings.model_validate(found["settings"]),
                Form.model_validate(found["form"]),
                {item.id: item for item in read_items(items)},
                tuple(
                    Place(i, tuple(place["items"]), dict(place["checks"]))
                    for i, place in enumerate(found["places"])
                ),
                tuple(
                    Corpus(**{**corpus, "files": tuple(corpus["files"])})
                    for corpus in found["corpora"]
                ),
            )
        except (ValidationError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunFolderError(
                f"{path}: of another version of augesc, or changed ({reason}); open it with the "
                f"version that created it"
            ) from None

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the corpora, or of the systems, in the order they were given."""
        if self.settings.interactive is not None:
            return tuple(self.settings.interactive.systems)
        return tuple(corpus.name for corpus in self.corpora)

    @cached_property
    def tokens(self) -> Tokens:
        """The personal links."""
        return read_tokens(self.folder)

    def slots(self, item: str, attention: int | None = None) -> list[Slot]:
        """Return all that is to be answered about an item."""
        return self.form.slots(self.items[item].messages, attention)

    def changed_corpora(self) -> list[str]:
        """Say, a line each, which corpora are not what they were when the study was created.

        The study goes on with the sessions it has; what changed matters to who reports on it.
        """
        return [said for corpus in self.corpora if (said := _changed(corpus))]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the study for one server.

        Raises :class:`~augesc_builder.errors.StudyError` where another serves it.
        """
        lock = FileLock(self.folder / layout.STUDY_LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StudyError(
                f"{self.folder}: another server is at work on this study; stop it first", "at_work"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _changed(corpus: Corpus) -> str | None:
    files = [Path(name) for name in corpus.files]
    if gone := [path for path in files if not path.is_file()]:
        return f"{corpus.name}: {gone[0]} is gone; the study keeps the sessions it drew"
    if files and digest(files) != corpus.digest:
        return (
            f"{corpus.name}: {corpus.where} has changed since the study was created; the study "
            f"keeps the sessions it drew"
        )
    return None


def read_items(path: Path) -> Iterator[Item]:
    """Read the items of a study.

    Raises :class:`~augesc_builder.errors.InputError` with the line.
    """
    for number, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        value: dict[str, Any] = json_of(line, path, number)
        systems = value.get("systems")
        yield Item(
            value["id"],
            value["set"],
            value["session_id"],
            tuple(value["messages"]),
            None if systems is None else (systems[0], systems[1]),
            value.get("left"),
        )


def item_line(item: Item) -> str:
    """Return an item as a line of JSON."""
    value = {
        "id": item.id,
        "set": item.set,
        "session_id": item.session_id,
        "messages": list(item.messages),
        "systems": item.systems,
        "left": item.left,
    }
    return json.dumps(value, ensure_ascii=False) + "\n"
