"""How many requests are under way at once: as many as the endpoint bears.

The limit begins at one, so that a mistake is met by one request alone. It doubles with every round
of answers until the endpoint first says that there are too many (429). From then on it halves when
that is said, and grows by one with every round: additive increase, multiplicative decrease, as TCP
finds its rate.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
"""Seconds that the first back-off may take, and any."""


class Throttle:
    """Lets so many requests through at a time, ``most`` at most.

    ``pause`` waits for seconds, or raises where the run ends meanwhile: an endpoint may ask for an
    hour, and nobody should wait for that.
    """

    def __init__(
        self, most: int, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.most, self.under_way = most, 0
        self._pause = pause
        self._limit, self._is_exploring = 1.0, True
        self._round = 0
        self._not_before = 0.0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        """Return how many requests may be under way now."""
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Wait for a place among the requests under way; give the round in which it was found."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.under_way < self.limit)
            self.under_way += 1
        try:
            while (left := self._not_before - time.monotonic()) > 0:
                await self._pause(left)
            yield self._round
        finally:
            self.under_way -= 1
            async with self._changed:
                self._changed.notify_all()

    def answered(self) -> None:
        """Note an answer: a little more may be borne."""
        more = 1.0 if self._is_exploring else 1.0 / self._limit
        self._limit = min(self._limit + more, float(self.most))

    def congested(self, sent_in: int, wait: float) -> None:
        """Note that a request of a round came to too many, and for how many seconds to stay away.

        The many that were sent together are one sign, not many.
        """
        self._not_before = max(self._not_before, time.monotonic() + wait)
        if sent_in != self._round:
            return
        self._round += 1
        self._is_exploring = False
        self._limit = max(1.0, self._limit / 2)


def back_off(attempt: int, at_least: float = 0.0) -> float:
    """Return seconds to wait before attempt ``attempt`` (from 1): random up to twice the last.

    Many clients that failed together do not come back together. What the endpoint asks for is the
    least.
    """
    most = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt - 1, 16))
    return at_least + random.uniform(0.0, most)
