"""Turns of other sessions, which a supporter's turn is ranked against.

Which are drawn for a turn depends on the pool and on its session's own text, and on nothing else:
not on who is measured beside it. They have about as many words as the turn, or the rank would
measure length.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from augesc_builder.metrics.content_words import content_words
from augesc_builder.metrics.distinct import hash_of
from augesc_builder.metrics.sample import Sample
from augesc_builder.text.prompts import Message
from augesc_builder.text.words import count

SIZE = 2000
"""Turns of a pool that is made from sessions."""

_SLACK = 5
"""A turn of so many words may have a distractor of one word more or less; of twice as many, two."""


class Turn(NamedTuple):
    """What a supporter said, and a hash of the trigger of the session where it was said."""

    text: str
    trigger: int


def trigger_of(session: Sequence[Message]) -> int:
    """Return a hash of the seeker's first words: equal for sessions of one query.

    That is the first utterance with a content word in it, and what the seeker said before it:
    sessions that begin with "Hi!" are not of one query.
    """
    first: list[str] = []
    for message in session:
        if message["role"] == "user":
            first.append(message["content"])
            if content_words(message["content"]):
                break
    return hash_of("\n".join(first))


class TurnSample:
    """Turns of at most ``size``, drawn from sessions by a hash; parts merge in any order."""

    def __init__(self, size: int = SIZE, seed: int = 0) -> None:
        self.seed = seed
        self._drawn: Sample[tuple[str, int]] = Sample(size)

    def add(self, session: Sequence[Message]) -> None:
        """Offer the supporter's turns of a session."""
        trigger = trigger_of(session)
        for message in session:
            text = message["content"]
            if message["role"] == "assistant" and text.strip():
                self._drawn.add(hash_of(f"{trigger} {text}", seed=self.seed), (text, trigger))

    def merge(self, other: TurnSample) -> None:
        """Add what another drew."""
        self._drawn.merge(other._drawn)

    def turns(self) -> list[Turn]:
        """Return the turns that are drawn."""
        return [Turn(*item) for item in self._drawn]


class Distractors:
    """A pool of turns; of those that say the same, one is kept."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        by_text = {turn.text.strip().casefold(): turn for turn in sorted(turns)}
        by_length = sorted((count(turn.text), *turn) for turn in by_text.values())
        self._lengths = [length for length, *_ in by_length]
        self._turns = [Turn(text, trigger) for _, text, trigger in by_length]

    @classmethod
    def from_sessions(
        cls, sessions: Iterable[Sequence[Message]], size: int = SIZE, seed: int = 0
    ) -> Distractors:
        """Make a pool of at most ``size`` turns that supporters said in these sessions."""
        sample = TurnSample(size, seed)
        for session in sessions:
            sample.add(session)
        return cls(sample.turns())

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def texts(self) -> list[str]:
        """Return what the turns say, the shortest first."""
        return [turn.text for turn in self._turns]

    @property
    def digest(self) -> str:
        """Return a short digest of the pool, whatever order its turns came in."""
        running = hashlib.sha256()
        for turn in self._turns:
            running.update(f"{turn.trigger} {turn.text}\n".encode("utf-8", "surrogatepass"))
        return running.hexdigest()[:16]

    def draw(
        self, text: str, n: int, *, trigger: int, seed: int, said: Collection[str] = ()
    ) -> list[str]:
        """Return ``n`` turns of about as many words as ``text``; fewer where the pool has no more.

        None is of a session with this ``trigger``, and none is the text itself or among what was
        ``said`` beside it. Turns of the same number of words and a few more or less are taken,
        evenly over that stretch; where too few are, the stretch is made wider.
        """
        words, size = count(text), len(self)
        slack = words // _SLACK
        found: list[str] = []
        while True:
            low = bisect_left(self._lengths, words - slack)
            high = bisect_right(self._lengths, words + slack)
            if high - low >= min(n, size) > 0:
                found = []
                for at in _spread(low, high, n, seed):
                    turn = self._turns[at]
                    if turn.trigger != trigger and turn.text != text and turn.text not in said:
                        found.append(turn.text)
                        if len(found) == n:
                            return found
            if high - low == size:
                return found
            slack = 2 * slack + 1


def _spread(low: int, high: int, n: int, seed: int) -> Iterator[int]:
    """Yield every place from ``low`` to ``high``, first about ``n`` that lie evenly over them."""
    span = high - low
    step = max(1, span // n)
    start = seed % span
    return (
        low + (start + first + more) % span
        for first in range(step)
        for more in range(0, span - first, step)
    )
