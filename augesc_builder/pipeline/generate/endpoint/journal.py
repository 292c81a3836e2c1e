"""The requests of a run, line by line: what was asked, what was answered, and what it cost.

The journal is only appended to. A line ``asked`` stands there before a request is sent, and one
that says how it ended before the next is counted; an answer is synced first. So what is paid for is
on disk whenever the process or the machine stops, and a resumed run takes it from there. A request
of which no end is known may have been paid for: it counts as if it had been, with the most that it
can have cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from augesc_builder.config.openai_api import Prices
from augesc_builder.errors import RunFolderError
from augesc_builder.pipeline.generate.endpoint.client import FAILED, Answer
from augesc_builder.run.disk import MEND, disk_errors, sync

_A_TOKEN = 4
"""Characters of a token of English, about; of a text that an endpoint did not count."""


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, where nobody counted them."""
    return -(-len(text) // _A_TOKEN)


@dataclass(frozen=True)
class Place:
    """Which request of a run it is: number ``turn`` of a sample of a query, all from 0."""

    query_id: str
    sample: int
    turn: int = 0


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


class _Line(BaseModel):
    """A line: a request is ``asked``, and ends ``answered``, ``refused`` or ``lost``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    event: Literal["asked", "answered", "refused", "lost"]
    id: str
    at: str
    query_id: str
    sample: int
    turn: int
    prompt: str
    prompt_tokens: int
    completion_tokens: int
    counted: bool = True
    seconds: float = 0.0
    money: float | None = None
    finish_reason: str | None = None
    reason: str | None = None
    text: str | None = None


class Journal:
    """The file, what is spent by it, and its answers.

    Raises :class:`~augesc_builder.errors.RunFolderError` for a file that is not a journal. Only its
    last line may be torn: that one is taken off.
    """

    def __init__(self, path: Path, prices: Prices | None) -> None:
        self.path, self._prices = path, prices
        self.spent = Spent()
        self._open: dict[str, _Line] = {}
        self._answers: dict[tuple[Place, str], tuple[int, int]] = {}
        self._descriptor: int | None = None
        self._size = 0
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        if path.exists():
            self._read()

    def answer(self, place: Place, prompt: str) -> Answer | None:
        """Return the answer to a prompt that is there already."""
        found = self._answers.get((place, prompt))
        if found is None:
            return None
        with self.path.open("rb") as file:
            file.seek(found[0])
            line = _Line.model_validate_json(file.read(found[1]))
        return Answer(
            line.text or "", line.finish_reason or "", line.prompt_tokens, line.completion_tokens
        )

    def asked(self, request_id: str, place: Place, prompt: str, most: tuple[int, int]) -> None:
        """Note a request that is about to be sent; ``most`` tokens of prompt and completion."""
        line = _line("asked", request_id, place, prompt, most, counted=False)
        self._open[request_id] = line
        self._count_unknown(line, +1)
        self._append(_encoded(line))

    async def answered(self, request_id: str, answer: Answer, seconds: float) -> Answer:
        """Note an answer; it is on disk when this returns. Return it with its tokens."""
        asked = self._open[request_id]
        prompt_tokens, completion_tokens = answer.prompt_tokens, answer.completion_tokens
        counted = prompt_tokens is not None and completion_tokens is not None
        n_prompt = asked.prompt_tokens if prompt_tokens is None else prompt_tokens
        n_text = completion_tokens
        if n_text is None:
            n_text = estimated_tokens(answer.text)
        line = asked.model_copy(
            update={
                "event": "answered",
                "at": _now(),
                "prompt_tokens": n_prompt,
                "completion_tokens": n_text,
                "counted": counted,
                "seconds": round(seconds, 3),
                "finish_reason": answer.finish_reason,
                "text": answer.text,
            }
        )
        cost = Spent(prompt_tokens=n_prompt, completion_tokens=n_text).money(self._prices)
        await self._commit(_encoded(line.model_copy(update={"money": cost})))
        self._end(line)
        return Answer(answer.text, answer.finish_reason, n_prompt, n_text)

    async def given_up(self, place: Place, prompt: str, reason: str) -> Answer:
        """Note that a prompt has no answer, and will have none: an answer without a text."""
        answer = Answer("", FAILED, 0, 0)
        line = _line("answered", "", place, prompt, (0, 0), finish_reason=FAILED, reason=reason)
        await self._commit(_encoded(line))
        return answer

    def failed(self, request_id: str, reason: str, seconds: float, *, paid: bool) -> None:
        """Note a request without an answer, which may have been paid for or not."""
        line = self._open[request_id].model_copy(
            update={
                "event": "lost" if paid else "refused",
                "at": _now(),
                "seconds": round(seconds, 3),
                "reason": reason,
            }
        )
        self._append(_encoded(line))
        self._end(line)

    def close(self) -> None:
        """Let go of the file, and of one in which nothing was paid for.

        Answers that came while a run was being interrupted are written first.
        """
        if self._waiting:
            self._append(b"".join(raw for raw, _ in self._waiting))
            self._waiting.clear()
        self._sync()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self.path.exists() and not (self.spent.answers or self.spent.unknown):
            self.path.unlink()

    # -- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = _Line.model_validate_json(raw)
                except ValidationError as error:
                    raise RunFolderError(
                        f"{self.path}, line {number}: not as a run writes it: "
                        f"{error.errors()[0]['msg']}; {MEND}"
                    ) from None
                self._take(line, whole, len(raw))
                whole += len(raw)
        with disk_errors(self.path):
            os.truncate(self.path, whole)
        self._size = whole

    def _take(self, line: _Line, at: int, size: int) -> None:
        if line.event == "asked":
            self._open[line.id] = line
            self._count_unknown(line, +1)
            return
        if line.event == "answered":
            place = Place(line.query_id, line.sample, line.turn)
            self._answers[place, line.prompt] = at, size
        self._end(line)

    def _end(self, line: _Line) -> None:
        """Count a request by how it ended."""
        if (asked := self._open.pop(line.id, None)) is not None and line.event != "lost":
            self._count_unknown(asked, -1)
        if line.event == "answered" and line.id:
            self.spent.answers += 1
            self.spent.prompt_tokens += line.prompt_tokens
            self.spent.completion_tokens += line.completion_tokens
            self.spent.seconds += line.seconds

    def _count_unknown(self, line: _Line, sign: int) -> None:
        self.spent.unknown += sign
        self.spent.unknown_tokens += sign * (line.prompt_tokens + line.completion_tokens)
        self.spent.unknown_completion_tokens += sign * line.completion_tokens

    # -- writing ---------------------------------------------------------------------------------

    async def _commit(self, raw: bytes) -> None:
        """Append a line and wait until it is on disk, together with those of others."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((raw, done))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                lines, self._waiting = self._waiting, []
                try:
                    self._append(b"".join(raw for raw, _ in lines))
                    await asyncio.to_thread(self._sync)
                except Exception as error:
                    for _, done in lines:
                        done.set_exception(error)
                        done.exception()  # seen, should nobody wait any more
                else:
                    for _, done in lines:
                        done.set_result(None)
        finally:
            self._flushing = None

    def _append(self, raw: bytes) -> None:
        with disk_errors(self.path):
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._descriptor = os.open(self.path, flags, 0o600)
                sync(self.path.parent)
            left = memoryview(raw)
            while left:
                left = left[os.write(self._descriptor, left) :]
            self._size += len(raw)

    def _sync(self) -> None:
        with disk_errors(self.path):
            if self._descriptor is not None:
                os.fsync(self._descriptor)


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the digest of all that a request asks."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _line(
    event: Literal["asked", "answered"],
    request_id: str,
    place: Place,
    prompt: str,
    tokens: tuple[int, int],
    **facts: Any,
) -> _Line:
    return _Line(
        event=event,
        id=request_id,
        at=_now(),
        query_id=place.query_id,
        sample=place.sample,
        turn=place.turn,
        prompt=prompt,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        **facts,
    )


def _encoded(line: _Line) -> bytes:
    """Return a line in ASCII: nothing that somebody wrote can break it."""
    return (json.dumps(line.model_dump(exclude_none=True)) + "\n").encode()


def _now() -> str:
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="milliseconds")
