"""The requests of a run, line by line: what was asked, what was answered, and what it cost.

The journal is only appended to, and an answer is synced before it is taken. So what is paid for is
on disk whenever the process or the machine stops, and a resumed run takes it from there. Each of
several workers has a journal of its own and reads those of the others: what one of them was
answered, or is being answered, no other asks for, and the budget is that of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from augesc_builder.config.openai_api import Prices
from augesc_builder.pipeline.generate.endpoint.client import FAILED, Answer
from augesc_builder.pipeline.generate.endpoint.lines import (
    Begun,
    Line,
    Place,
    Reader,
    Spent,
    encoded,
    estimated_tokens,
    line_of,
    now,
)
from augesc_builder.run.disk import disk_errors, sync
from augesc_builder.run.heartbeat import Process, this_process

LOOK = 0.1
"""Seconds between two looks at what other workers have noted."""

FORGET = 5.0
"""Seconds between two looks which shards are done, for which a store may have to be asked."""


def journal_of_one(folder: Path) -> Path:
    """Return a path for the journal of this worker, beside those of others in a folder."""
    return folder / f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"


class Journal:
    """The file, what is spent by it, and its answers.

    ``others`` lists the journals of the same run's other processes. ``is_done`` says whether a
    shard has all its rows: no answer for those is kept in mind. Of ``is_one_of_several`` the file
    says who writes it.

    Raises :class:`~augesc_builder.errors.RunFolderError` for a file that is not a journal. Only its
    last line may be torn: that one is taken off, but of another's, who may be at it.
    """

    def __init__(
        self,
        path: Path,
        prices: Prices | None,
        *,
        others: Callable[[], list[Path]] = list,
        is_done: Callable[[int], bool] | None = None,
        is_one_of_several: bool = False,
    ) -> None:
        self.path, self._prices = path, prices
        self._is_one_of_several = is_one_of_several
        self._own = Reader(path)
        self._others, self._beside = others, dict[Path, Reader]()
        self._is_done = is_done
        self._looked = self._forgot = -math.inf
        self._answers: dict[tuple[Place, str], tuple[Path, int, int]] = {}
        self._of_shards: dict[int, list[tuple[Place, str]]] = {}
        self._descriptor: int | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        if path.exists():
            self._read()
        self.look()

    @property
    def own(self) -> Spent:
        """Return what this journal's requests took."""
        return self._own.spent

    @property
    def spent(self) -> Spent:
        """Return what the requests of all took, as far as it is known here.

        What is under way elsewhere counts with the most that it can cost, but on this machine.
        """
        found = Spent()
        found.add(self._own.spent)
        for reader in self._beside.values():
            found.add(reader.spent)
            if reader.open and not reader.is_alive:
                found.add_unknown(reader.open.values())
        return found

    def look(self) -> None:
        """Read what others have noted since, unless that was done just now."""
        if time.monotonic() - self._looked < LOOK:
            return
        for path in self._others():
            if path != self.path:
                self._index(self._beside.setdefault(path, Reader(path)))
        if self._is_done is not None and time.monotonic() - self._forgot >= FORGET:
            for shard in list(filter(self._is_done, self._of_shards)):
                for key in self._of_shards.pop(shard):
                    self._answers.pop(key, None)
            self._forgot = time.monotonic()
        self._looked = time.monotonic()

    def answer(self, place: Place, prompt: str) -> Answer | None:
        """Return the answer to a prompt that is there already."""
        self.look()
        found = self._answers.get((place, prompt))
        if found is None:
            return None
        path, at, size = found
        with path.open("rb") as file:
            file.seek(at)
            line = Line.model_validate_json(file.read(size))
        return Answer(
            line.text or "", line.finish_reason or "", line.prompt_tokens, line.completion_tokens
        )

    def is_asked(self, place: Place, prompt: str) -> bool:
        """Whether another, who may be alive, waits for the answer to a prompt."""
        self.look()
        return any(
            (line.prompt, line.place) == (prompt, place) and reader.is_alive is not False
            for reader in self._beside.values()
            for line in reader.open.values()
        )

    def asked(self, request_id: str, place: Place, prompt: str, most: tuple[int, int]) -> None:
        """Note a request that is about to be sent; ``most`` tokens of prompt and completion."""
        line = line_of("asked", request_id, place, prompt, most, counted=False)
        self._own.take(line)
        self._append(encoded(line))

    async def answered(self, request_id: str, answer: Answer, seconds: float) -> Answer:
        """Note an answer; it is on disk when this returns. Return it with its tokens."""
        asked = self._own.open[request_id]
        prompt_tokens, completion_tokens = answer.prompt_tokens, answer.completion_tokens
        counted = prompt_tokens is not None and completion_tokens is not None
        n_prompt = asked.prompt_tokens if prompt_tokens is None else prompt_tokens
        n_text = completion_tokens
        if n_text is None:
            n_text = estimated_tokens(answer.text)
        line = asked.model_copy(
            update={
                "event": "answered",
                "at": now(),
                "prompt_tokens": n_prompt,
                "completion_tokens": n_text,
                "counted": counted,
                "seconds": round(seconds, 3),
                "finish_reason": answer.finish_reason,
                "text": answer.text,
            }
        )
        cost = Spent(prompt_tokens=n_prompt, completion_tokens=n_text).money(self._prices)
        await self._commit(encoded(line.model_copy(update={"money": cost})))
        self._own.take(line)
        return Answer(answer.text, answer.finish_reason, n_prompt, n_text)

    async def given_up(self, place: Place, prompt: str, reason: str) -> Answer:
        """Note that a prompt has no answer, and will have none: an answer without a text."""
        answer = Answer("", FAILED, 0, 0)
        line = line_of("answered", "", place, prompt, (0, 0), finish_reason=FAILED, reason=reason)
        await self._commit(encoded(line))
        return answer

    def failed(self, request_id: str, reason: str, seconds: float, *, paid: bool) -> None:
        """Note a request without an answer, which may have been paid for or not."""
        line = self._own.open[request_id].model_copy(
            update={
                "event": "lost" if paid else "refused",
                "at": now(),
                "seconds": round(seconds, 3),
                "reason": reason,
            }
        )
        self._append(encoded(line))
        self._own.take(line)

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
        is_paid = self.own.answers or self.own.unknown or self._own.open
        if self.path.exists() and not is_paid:
            self.path.unlink()
            if self._is_one_of_several:
                with contextlib.suppress(OSError):  # others have theirs in it
                    self.path.parent.rmdir()

    # -- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read what processes before this one noted here."""
        self._index(self._own)
        with disk_errors(self.path):
            os.truncate(self.path, self._own.read_to)
        self._own.bury()

    def _index(self, reader: Reader) -> None:
        """Note where answers stand, but of rows that are in their shard."""
        done: dict[int, bool] = {}
        for line, at, size in reader.lines():
            shard = line.shard
            if line.event != "answered":
                continue
            if shard is not None and self._is_done is not None:
                if shard not in done:
                    done[shard] = self._is_done(shard)
                if done[shard]:
                    continue
                self._of_shards.setdefault(shard, []).append((line.place, line.prompt))
            self._answers[line.place, line.prompt] = reader.path, at, size

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
                self.path.parent.mkdir(exist_ok=True)
                if self._is_one_of_several and not self.path.exists():
                    raw = encoded(Begun(process=Process(**this_process("running")))) + raw
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._descriptor = os.open(self.path, flags, 0o600)
                sync(self.path.parent)
            left = memoryview(raw)
            while left:
                left = left[os.write(self._descriptor, left) :]

    def _sync(self) -> None:
        with disk_errors(self.path):
            if self._descriptor is not None:
                os.fsync(self._descriptor)
