"""The lines of a journal of requests, and what they come to: of this process, or of another.

A line ``asked`` stands there before a request is sent; it ends ``answered``, ``refused`` or
``lost``. One of which no end is known may have been paid for: it counts as if it had been, with the
most that it can have cost.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from augesc_builder.config.openai_api import Prices
from augesc_builder.errors import RunFolderError
from augesc_builder.run.disk import MEND
from augesc_builder.run.heartbeat import Process, is_alive

_A_TOKEN = 4
"""Characters of a token of English, about; of a text that an endpoint did not count."""


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, where nobody counted them."""
    return -(-len(text) // _A_TOKEN)


@dataclass(frozen=True)
class Place:
    """Which request of a run it is: number ``turn`` of a sample of a query, all from 0.

    ``shard`` is the one that its row belongs to, where it belongs to one.
    """

    query_id: str
    sample: int
    turn: int = 0
    shard: int | None = field(default=None, compare=False)


@dataclass
class Spent:
    """What requests took: those with an answer, and those of which no end is known."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    unknown: int = 0
    unknown_tokens: int = 0
    unknown_completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Return all tokens, the most that they can be."""
        return self.prompt_tokens + self.completion_tokens + self.unknown_tokens

    def money(self, prices: Prices | None) -> float | None:
        """Return what that costs at some prices."""
        if prices is None:
            return None
        completion = self.completion_tokens + self.unknown_completion_tokens
        prompt = self.tokens - completion
        return (prompt * prices.prompt + completion * prices.completion) / 1e6

    def add(self, other: Spent) -> None:
        """Add what others took."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def add_unknown(self, lines: Iterable[Line]) -> None:
        """Add requests of which no end is known."""
        for line in lines:
            self.unknown += 1
            self.unknown_tokens += line.prompt_tokens + line.completion_tokens
            self.unknown_completion_tokens += line.completion_tokens


class Line(BaseModel):
    """A line about a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event: Literal["asked", "answered", "refused", "lost"]
    id: str
    at: str
    query_id: str
    sample: int
    turn: int
    shard: int | None = None
    prompt: str
    prompt_tokens: int
    completion_tokens: int
    counted: bool = True
    seconds: float = 0.0
    money: float | None = None
    finish_reason: str | None = None
    reason: str | None = None
    text: str | None = None

    @property
    def place(self) -> Place:
        """Return which request it is about."""
        return Place(self.query_id, self.sample, self.turn, self.shard)


class Begun(BaseModel):
    """The first line of one of several workers: who it is."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["begun"] = "begun"
    process: Process


_LINE: TypeAdapter[Line | Begun] = TypeAdapter(
    Annotated[Line | Begun, Field(discriminator="event")]
)


class Reader:
    """What a journal comes to, as far as it was read; it is only ever appended to.

    ``maker`` is the worker whose it is, where it is one of several.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.read_to = path, 0
        self.spent, self.open = Spent(), dict[str, Line]()
        self.maker: Process | None = None
        self._n_lines = 0

    def lines(self) -> Iterator[tuple[Line, int, int]]:
        """Take the whole lines that came since; yield each with the byte it begins at, and bytes.

        Raises :class:`~augesc_builder.errors.RunFolderError` for a line that no run writes.
        """
        if not self.path.exists() or self.path.stat().st_size <= self.read_to:
            return
        with self.path.open("rb") as file:
            file.seek(self.read_to)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                at = self.read_to
                line = self._parsed(raw)
                self.read_to += len(raw)
                if isinstance(line, Begun):
                    self.maker = line.process
                else:
                    self.take(line)
                    yield line, at, len(raw)

    def take(self, line: Line) -> None:
        """Count a request by what became of it."""
        if line.event == "asked":
            self.open[line.id] = line
            return
        self.open.pop(line.id, None)
        if line.event == "lost":
            self.spent.add_unknown([line])
        if line.event == "answered" and line.id:
            self.spent.answers += 1
            self.spent.prompt_tokens += line.prompt_tokens
            self.spent.completion_tokens += line.completion_tokens
            self.spent.seconds += line.seconds

    def bury(self) -> None:
        """Count what was asked by a process that is gone."""
        self.spent.add_unknown(self.open.values())
        self.open.clear()

    @property
    def is_alive(self) -> bool | None:
        """Whether its worker is at work; ``None`` where it is on another machine."""
        return False if self.maker is None else is_alive(self.maker)

    def _parsed(self, raw: bytes) -> Line | Begun:
        self._n_lines += 1
        try:
            return _LINE.validate_json(raw)
        except ValidationError as error:
            raise RunFolderError(
                f"{self.path}, line {self._n_lines}: not as a run writes it: "
                f"{error.errors()[0]['msg']}; {MEND}"
            ) from None


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the digest of all that a request asks."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def line_of(
    event: Literal["asked", "answered"],
    request_id: str,
    place: Place,
    prompt: str,
    tokens: tuple[int, int],
    **facts: Any,
) -> Line:
    """Return a line about a request; ``tokens`` are those of its prompt and its completion."""
    return Line(
        event=event,
        id=request_id,
        at=now(),
        query_id=place.query_id,
        sample=place.sample,
        turn=place.turn,
        shard=place.shard,
        prompt=prompt,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        **facts,
    )


def encoded(line: Line | Begun) -> bytes:
    """Return a line in ASCII: nothing that somebody wrote can break it."""
    return (json.dumps(line.model_dump(mode="json", exclude_none=True)) + "\n").encode()


def now() -> str:
    """Return the time, as lines tell it."""
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")
