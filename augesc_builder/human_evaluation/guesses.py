"""Slowing down who tries out links: the one thing that a server remembers by itself.

A link cannot be guessed (128 random bits); this keeps those who try from filling log and machine.
Whoever came in from an address before passes from there whatever others try: sixty students behind
one address of their university are not shut out by the one who plays.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

WRONG = 20
"""Wrong links from one address, within the window, from which on it has to wait."""

WINDOW = 60.0
"""Seconds after which a wrong link is forgotten."""

_KEPT = 10_000
"""Addresses, and pairs of address and link, that are remembered at most."""


class Guesses:
    """Wrong links of the last minute, by address; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, client: str, token: str) -> int:
        """Return how many seconds this address waits before this link is looked at; 0: none."""
        if (client, token) in self._known:
            return 0
        times = self._recent(client)
        if len(times) < WRONG:
            return 0
        return max(1, round(times[0] + WINDOW - self._clock()))

    def right(self, client: str, token: str) -> None:
        """Remember a link that was right."""
        _put(self._known, (client, token), None)

    def wrong(self, client: str) -> bool:
        """Count a link that was wrong; return whether it is the first in the window."""
        times = self._recent(client)
        times.append(self._clock())
        _put(self._wrong, client, times)
        return len(times) == 1

    def _recent(self, client: str) -> deque[float]:
        times = self._wrong.get(client, deque(maxlen=WRONG))
        while times and times[0] <= self._clock() - WINDOW:
            times.popleft()
        return times


def _put(table: OrderedDict, key: object, value: object) -> None:  # type: ignore[type-arg]
    table[key] = value
    table.move_to_end(key)
    if len(table) > _KEPT:
        table.popitem(last=False)
