"""What a run says while it works: lines, and bars with rate and time left.

Where no bar can be drawn (a log file, a batch job, CI), a plain line comes instead before every
minute is over, also while a single step takes that long or a model is loaded.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from tqdm import tqdm

from augesc_builder.errors import DiskError
from augesc_builder.run.escape import for_terminal
from augesc_builder.run.heartbeat import Beat, Work, one_line

FIRST = 10.0
"""Seconds after which a stage first says how far it is; shorter ones do not."""

EVERY = 55.0
"""Seconds between two such lines: below a minute, with the time between two looks."""

_CHANGES = 60
"""Advances that the rate is the mean of, as far as they are :data:`~.heartbeat.TICK` s apart."""

_FASTEST = 1e12
"""Units a second, and seconds left, above which a number says nothing."""


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Turn a failure to write to standard output, as to a full disk, into one line.

    A reader that has gone, such as ``head``, is no failure, and passes as it is. Raises
    :class:`~augesc_builder.errors.DiskError` for the others.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DiskError(f"standard output cannot be written: {reason}") from None


class Bar:
    """Counts units, ``done`` of them by an earlier run, so that its rate is true; may be drawn."""

    def __init__(
        self,
        what: str,
        unit: str,
        total: int | None,
        done: int,
        *,
        drawn: bool,
        close: Callable[[], None],
    ) -> None:
        self.what, self.unit, self.total, self.done = what, unit, total, float(done)
        self.facts: dict[str, float] = {}
        self._seen = deque([(time.monotonic(), self.done)], _CHANGES)
        self._has_advanced = False
        self._close = close
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=f"  {what}",
            unit=f" {unit}",
            disable=not drawn,
            dynamic_ncols=True,
            leave=False,
            smoothing=0.1,
        )

    def update(self, n: float, **facts: float) -> None:
        """Count ``n`` more units; ``facts``, such as the loss, are shown behind them."""
        self.done += n
        if facts:
            self.facts = facts
            if not self._bar.disable:
                self._bar.set_postfix(_shown(facts), refresh=False)
        self._bar.update(n)

    def look(self) -> None:
        """Note how far it is, which the rate comes from."""
        if self.done == self._seen[-1][1]:
            return
        if not self._has_advanced:
            # What was loaded or compiled before the first unit says nothing about the others.
            self._seen.clear()
            self._has_advanced = True
        self._seen.append((time.monotonic(), self.done))

    def rate(self) -> float | None:
        """Return units a second, lately; ``None`` before two advances were seen."""
        (begun, before), (_, after) = self._seen[0], self._seen[-1]
        rate = (after - before) / max(time.monotonic() - begun, 1e-9)
        return rate if 0 < rate < _FASTEST else None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._bar.close()


class Progress:
    """Where lines and bars go; ``quiet`` silences both.

    Bars are drawn on a terminal only, never in CI; lines go to standard output.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars = not quiet and sys.stderr.isatty() and not os.environ.get("CI")
        self._lines = not quiet and not self._bars
        self._stage: str | None = None
        self._has_begun = False
        self._bar: Bar | None = None
        self._tell: Callable[[Work], None] | None = None
        self._beat: Beat | None = None
        self._lock, self._printing = threading.RLock(), threading.Lock()
        self._start(None)

    def say(self, text: str = "") -> None:
        """Print lines; what would command the terminal is written out.

        Raises :class:`~augesc_builder.errors.DiskError` where they cannot be written.
        """
        if not self.quiet:
            with self._printing, output_errors():
                print(for_terminal(text), flush=True)  # noqa: T201

    def bar(self, total: int | None, what: str, unit: str, *, done: int = 0) -> Bar:
        """Return a bar over ``total`` units, ``done`` of them by an earlier run."""
        with self._lock:
            self._bar = Bar(what, unit, total, done, drawn=self._bars, close=self._close)
            if self._beat is None:
                self._start(None)
                self._watch()
            return self._bar

    def begin(self, stage: str | None, tell: Callable[[Work], None] | None = None) -> None:
        """Say from now on how far a stage is, and ``tell`` it every few seconds.

        Until :meth:`end`, or until the next stage begins.
        """
        with self._lock:
            self._start(stage)
            self._has_begun, self._tell = True, tell
            if tell is not None:
                tell(self.work())
            self._watch()

    def end(self) -> None:
        """Say and tell no more."""
        with self._lock:
            beat, self._beat = self._beat, None
            self._has_begun, self._tell, self._stage = False, None, None
        if beat is not None:
            beat.stop()

    @contextlib.contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Say how far something is that fills no run's folder, while it is at work."""
        self.begin(stage)
        try:
            yield
        finally:
            self.end()

    def work(self) -> Work:
        """Return how far the work is."""
        bar = self._bar
        about: dict[str, Any] = {}
        if bar is not None:
            facts = bar.facts  # first: they are of no more than is done
            done, rate = int(bar.done), bar.rate()
            left = None if rate is None or bar.total is None else max(0, bar.total - done) / rate
            about = {
                **{"what": one_line(bar.what), "unit": bar.unit, "done": done, "total": bar.total},
                **{"rate": rate, "seconds_left": None if (left or 0) > _FASTEST else left},
                "facts": {k: v for k, v in facts.items() if abs(v) < _FASTEST},
            }
        return Work(
            stage=self._stage,
            since=self._since,
            seconds=time.monotonic() - self._clock,
            **about,
        )

    # -- inside ----------------------------------------------------------------------------------

    def _start(self, stage: str | None) -> None:
        self._stage, self._since = stage, datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._due = self._clock + FIRST

    def _watch(self) -> None:
        if self._beat is None and (self._lines or self._tell is not None):
            self._beat = Beat(self._look)

    def _close(self) -> None:
        """Forget the bar; where no stage is at work, it was all there is to say."""
        with self._lock:
            self._bar = None
            alone = not self._has_begun
        if alone:
            self.end()

    def _look(self) -> None:
        """Say and tell how far the work is, where it is time."""
        with self._lock:
            if self._beat is None:
                return  # it ended meanwhile
            if self._bar is not None:
                self._bar.look()
            work = self.work()
            if self._tell is not None:
                self._tell(work)
            is_due = self._lines and time.monotonic() >= self._due
            if is_due:
                self._due = time.monotonic() + EVERY
        if is_due:
            # Not under the lock, for a pipe may be full. Where nothing can be said any more, the
            # main thread meets that when it says what was made.
            with contextlib.suppress(DiskError, OSError, ValueError):
                self.say(f"  {line_of(work)}")


def line_of(work: Work) -> str:
    """Say in a line how far the work is."""
    names = ", ".join(filter(None, (work.stage, work.what)))
    return f"{names or 'checking what is done'}: {how_far(work)}"


def how_far(work: Work) -> str:
    """Say how much is done, how fast, and what is left."""
    if work.done is None or work.unit is None:
        return f"at work for {duration(work.seconds)}"
    parts = [f"{work.done:,} {work.unit}s"]
    if work.total is not None:
        share = f" ({work.done / work.total:.0%})" if work.total else ""
        parts = [f"{work.done:,} of {work.total:,} {work.unit}s{share}"]
    if work.rate is None:
        parts.append(f"at work for {duration(work.seconds)}")
    else:
        parts.append(_speed(work.rate))
    if work.seconds_left is not None:
        parts.append(f"{duration(work.seconds_left)} left")
    return ", ".join([*parts, *(f"{k} {v}" for k, v in _shown(work.facts).items())])


def duration(seconds: float) -> str:
    """Return a time as ``h:mm:ss``, or ``mm:ss`` below an hour."""
    return str(tqdm.format_interval(seconds))


def _speed(rate: float) -> str:
    for unit, length in (("second", 1), ("minute", 60)):
        if rate * length >= 1:
            return f"{_number(rate * length)} a {unit}"
    return f"{_number(rate * 3600)} an hour"


def _shown(facts: Mapping[str, float]) -> dict[str, str]:
    return {
        name.replace("_", " "): _number(value)
        for name, value in facts.items()
        if math.isfinite(value)
    }


def _number(value: float) -> str:
    """Return a count as it is, another number with three digits or all before the point."""
    if isinstance(value, int) or abs(value) >= 99.95:  # noqa: PLR2004 - three digits: 100
        return f"{value:,.0f}"
    return f"{value:#.3g}"
