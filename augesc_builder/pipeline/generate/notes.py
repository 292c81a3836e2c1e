"""What a worker notes of the shards that it is at: which are made again, and which row by row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from augesc_builder.errors import AugescError, WorkerDiedError
from augesc_builder.run.attempts import MOST, Attempt, Attempts
from augesc_builder.run.heartbeat import one_line
from augesc_builder.run.marks import shard_mark


class Notes:
    """The attempts of one worker at shards of a stage, in the folder of its run.

    A process that a row kills leaves its notes. Where a row raises an error that is none of ours,
    or ends a process that works for this one, the shards under way are begun again here.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self._stage, self._attempts = stage, Attempts(folder)
        self._open: dict[int, Attempt] = {}
        self._suspected: set[int] = set()
        self._again: list[int] = []
        self._alone: int | None = None
        self._own: Exception | None = None
        self.has_made = False
        """Whether the worker ever made a row: else an error is no row's."""
        self.told = ""
        """What the last attempt ended by, in a line."""

    def begin(self, number: int) -> bool:
        """Begin a shard; whether it may be made together with others."""
        name = shard_mark(self._stage, number)
        if left := self._attempts.left(name):
            self._suspected.add(number)
        if len(left) >= MOST:
            self._alone = number
            return False
        self._open[number] = self._attempts.begin(name)
        return True

    def done(self, number: int) -> None:
        """Note that a shard has its mark: no attempt at it matters any more."""
        if (attempt := self._open.pop(number, None)) is not None:
            attempt.drop()
        if number in self._suspected:
            self._suspected.discard(number)
            self._attempts.clear(shard_mark(self._stage, number))

    def drop(self) -> None:
        """Take back all attempts under way: what ended them is no shard's fault."""
        for number in list(self._open):
            self._open.pop(number).drop()

    def failed(self, error: Exception) -> bool:
        """Note what ended the attempts under way; whether the worker begins them again.

        Errors of ours, such as of a full disk, are no row's fault. Neither is one before any row
        was made, but that of a process that was killed: then this one ends, and leaves its notes.
        """
        has_died = isinstance(error, WorkerDiedError)
        if error is self._own or (isinstance(error, AugescError) and not has_died):
            return False
        text = one_line(str(error) if has_died else f"{type(error).__name__}: {error}")
        self._again = list(self._open)
        for attempt in self._open.values():
            attempt.failed(text)
        self._open = {}
        self.told = f"{text}; begun again: {len(self._again):,} shards that were under way"
        return has_died or self.has_made

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Mark errors in here, which pass through a backend, as none of a row."""
        try:
            yield
        except Exception as error:
            self._own = error
            raise

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be made again, and nothing alone."""
        return not self._again and self._alone is None

    def again(self) -> list[int]:
        """Return the shards to begin again, once."""
        numbers, self._again = self._again, []
        return numbers

    def alone(self) -> int | None:
        """Return the shard to make row by row, once."""
        number, self._alone = self._alone, None
        return number
