"""Sessions as examples: a dialog history, and what one of the two says next (sections 6.1 and 7).

An epoch's order depends on seed, phase and epoch alone, so that a training which resumes from a
checkpoint sees what it would have seen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from augesc_builder.config.training import Data, Examples, Role
from augesc_builder.errors import InputError
from augesc_builder.sources import esconv, sample
from augesc_builder.sources.base import Session
from augesc_builder.sources.sessions import (
    parse_sessions,
    session_chunks,
    sessions_files,
)
from augesc_builder.text.prompts import Message, collapse

MESSAGE_ROLE: dict[Role, str] = {"supporter": "assistant", "seeker": "user"}
OTHER: dict[Role, Role] = {"supporter": "seeker", "seeker": "supporter"}

SPLITS = ("train", "validation", "test")
_SAMPLE_SPLITS = {3: "validation", 4: "test"}
"""The fourth and the fifth of the bundled sessions of each problem type; train has the others."""


@dataclass(frozen=True)
class Pair:
    """An example: the utterance at ``turn`` answers what stands before it in the session."""

    session: Session
    turn: int
    history_turns: int | None = None

    @property
    def history(self) -> tuple[Message, ...]:
        """Return the utterances before the response, the last ``history_turns`` of them."""
        first = 0 if self.history_turns is None else max(0, self.turn - self.history_turns)
        return self.session.messages[first : self.turn]

    @property
    def response(self) -> str:
        """Return the utterance that is learned."""
        return self.session.messages[self.turn]["content"]

    @property
    def problem_type(self) -> str | None:
        """Return what the session is about."""
        return self.session.problem_type


class OfProblem(Protocol):
    """An example of any kind, of a session that is about something."""

    @property
    def problem_type(self) -> str | None:
        """Return what it is about, where that is known."""


AnyExample = TypeVar("AnyExample", bound=OfProblem)


def is_named(path: str) -> bool:
    """Whether a set of sessions is given by name, with a split or without, and not by its path."""
    name, _, split = path.partition(":")
    return name in {sample.INFO.name, esconv.INFO.name} and split in {"", *SPLITS}


def session_files(path: str, data: Data) -> list[Path]:
    """Return the local files that a set of sessions is read from; ``esconv`` may be downloaded.

    Raises :class:`~augesc_builder.errors.InputError` where there is no such split or file.
    """
    name, _, split = path.partition(":")
    if is_named(path) and name == sample.INFO.name:
        return [sample.SESSIONS]
    if is_named(path):
        hint = "give local files by data.esconv_folder=FOLDER (--esconv-folder)"
        files = esconv.esconv_files(data.esconv_folder, data.esconv_revision, hint)
        if (split or "train") not in files:
            raise InputError(f"no file of the split {split}", data.esconv_folder or path)
        return [files[split or "train"]]
    if name in {sample.INFO.name, esconv.INFO.name} and split:
        raise InputError(f"no split {split!r}; expected one of {', '.join(SPLITS)}", path)
    return sessions_files(Path(path))


def read_sessions(path: str, data: Data, *, keep_greetings: bool = False) -> list[Session]:
    """Read ``esconv:SPLIT``, ``sample:SPLIT``, a table, a corpus folder or a file of lines.

    Raises :class:`~augesc_builder.errors.InputError` with file and row.
    """
    sessions: list[Session] = []
    files = session_files(path, data)
    for chunk in session_chunks(files):
        for parsed in parse_sessions(chunk, keep_greetings=keep_greetings):
            spoken: list[Message] = [
                {"role": m["role"], "content": collapse(m["content"])} for m in parsed.messages
            ]
            kind = parsed.problem_type
            sessions.append(
                Session(
                    f"{parsed.source}-{len(sessions) + 1}",
                    tuple(m for m in spoken if m["content"]),
                    kind.strip().lower() if kind else None,
                    parsed.source,
                )
            )
    name, _, split = path.partition(":")
    if name == sample.INFO.name and split:
        sessions = of_sample_split(sessions, split)
    if not sessions:
        raise InputError("holds no session; give another file", path)
    return sessions


def of_sample_split(sessions: Sequence[AnyExample], split: str) -> list[AnyExample]:
    """Return those of all bundled sessions that a split has; what stands for them may be given."""
    found, of_type = [], Counter[str | None]()
    for session in sessions:
        if _SAMPLE_SPLITS.get(of_type[session.problem_type], "train") == split:
            found.append(session)
        of_type[session.problem_type] += 1
    return found


def read_pairs(path: str, data: Data, examples: Examples) -> list[Pair]:
    """Read the examples of a set of sessions, those of all problem types.

    Raises :class:`~augesc_builder.errors.InputError` where the wanted role answers nothing.
    """
    sessions = read_sessions(path, data, keep_greetings=examples.greetings == "keep")
    pairs = [pair for session in sessions for pair in pairs_of(session, examples)]
    if not pairs:
        role, other = examples.role, OTHER[examples.role]
        n = sum(m["role"] == MESSAGE_ROLE[role] for s in sessions for m in s.messages)
        raise InputError(
            f"none of {len(sessions)} sessions has a {role}'s turn (role {MESSAGE_ROLE[role]}) "
            f"behind a {other}'s, found {n} turns of {role}s; give sessions of both roles",
            path,
        )
    return pairs


def pairs_of(session: Session, examples: Examples) -> list[Pair]:
    """Return an example for every utterance of the wanted role behind the other's first.

    A seeker's first words answer nothing, unless a supporter's greeting is kept before them.
    """
    messages = list(session.messages)
    if examples.greetings == "drop":
        while messages and messages[0]["role"] == "assistant":
            messages.pop(0)
    if examples.merge_consecutive:
        messages = merge_consecutive(messages)
    session = Session(session.session_id, tuple(messages), session.problem_type)
    roles = [message["role"] for message in messages]
    own, other = MESSAGE_ROLE[examples.role], MESSAGE_ROLE[OTHER[examples.role]]
    first = roles.index(other) if other in roles else len(roles)
    return [
        Pair(session, turn, examples.history_turns)
        for turn, role in enumerate(roles)
        if role == own and turn > first
    ]


def merge_consecutive(messages: Sequence[Message]) -> list[Message]:
    """Join utterances that one speaker says in a row."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            both = f"{merged[-1]['content']} {message['content']}"
            merged[-1] = {"role": message["role"], "content": both}
        else:
            merged.append(message)
    return merged


def without(
    pairs: Sequence[AnyExample], problem_types: Sequence[str], path: str
) -> list[AnyExample]:
    """Return the examples of all other problem types.

    Raises :class:`~augesc_builder.errors.InputError` where there are none.
    """
    kept = [pair for pair in pairs if pair.problem_type not in problem_types]
    if not kept:
        raise InputError("data.leave_out leaves no example; name fewer problem types", path)
    return kept


def check_problem_types(pairs: Sequence[OfProblem], left_out: Sequence[str]) -> None:
    """Refuse to leave out problem types that nothing is about.

    Raises :class:`~augesc_builder.errors.InputError`, naming those that there are.
    """
    known = sorted({p.problem_type for p in pairs if p.problem_type is not None})
    for kind in left_out:
        if kind not in known:
            raise InputError(
                f"no example of the problem type {kind!r}; known: {', '.join(known)}",
                "data.leave_out",
            )


def epoch_order(sizes: Sequence[int], weights: Sequence[float], key: str) -> list[tuple[int, int]]:
    """Return the examples of an epoch as (set, number in it), shuffled by ``key``.

    A set of weight 2.5 comes twice whole, and half of it, drawn anew each epoch, once more.
    """
    rng = random.Random(key)
    order: list[tuple[int, int]] = []
    for i, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        whole = int(weight)
        order += [(i, j) for j in range(size)] * whole
        order += [(i, j) for j in rng.sample(range(size), round((weight - whole) * size))]
    rng.shuffle(order)
    return order
