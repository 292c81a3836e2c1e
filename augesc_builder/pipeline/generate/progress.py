"""The line that generation writes while it works."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from augesc_builder.config.requirements import Requirements
from augesc_builder.pipeline.filter.functions import measure
from augesc_builder.pipeline.filter.requirements import decide
from augesc_builder.run.progress import Progress

_WINDOW = 30.0
"""Seconds that tokens a second are the mean of."""


class Beside:
    """The requirements, run on finished rows in a thread beside the engine.

    What they find is only shown: the ``filter`` stage judges for good.
    """

    def __init__(self, limits: Requirements) -> None:
        self._limits = limits
        self._judge = ThreadPoolExecutor(1, "requirements")
        self._judged: deque[Future[bool]] = deque()
        self.n_kept = self.n_judged = 0

    def row(self, row: dict[str, Any]) -> None:
        """Judge a finished row, when there is time."""
        self._judged.append(self._judge.submit(self._is_kept, row))

    def look(self) -> None:
        """Count what was judged by now."""
        while self._judged and self._judged[0].done():
            self.count(self._judged.popleft().result())

    def count(self, is_kept: bool) -> None:
        """Count a row that was judged."""
        self.n_kept += is_kept
        self.n_judged += 1

    def close(self, *, now: bool) -> None:
        """Judge no more, or first what is waiting."""
        self._judge.shutdown(cancel_futures=now)
        if not now:
            self.look()

    def _is_kept(self, row: dict[str, Any]) -> bool:
        batch = {name: [value] for name, value in row.items()}
        measured = measure(batch, self._limits)
        return decide(measured, self._limits.settings())["violations"] == [[]]


class LiveLine:
    """A bar over sessions, with tokens a second, the slots at work and the rows kept so far.

    With ``counts_kept`` the bar is over rows that are
    kept, and whoever counts them says which they are.
    """

    def __init__(
        self,
        progress: Progress,
        limits: Requirements,
        total: int,
        done: int,
        *,
        counts_kept: bool = False,
    ) -> None:
        self._counts_kept = counts_kept
        self._bar = progress.bar(total, "generating", "session", done=done)
        self._beside = Beside(limits)
        self._made = deque([(time.monotonic(), 0)])
        self._utilisation: float | None = None

    def step(self, ended: int, made: int, utilisation: float | None) -> None:
        """Count what a step brought."""
        now = time.monotonic()
        self._made.append((now, self._made[-1][1] + made))
        while now - self._made[0][0] > _WINDOW and len(self._made) > 2:  # noqa: PLR2004
            self._made.popleft()
        self._utilisation = utilisation
        self._bar.update(0 if self._counts_kept else ended, **self.facts())

    def row(self, row: dict[str, Any]) -> None:
        """Judge a finished row, when there is time."""
        self._beside.row(row)

    def judged(self, is_kept: bool, n_more: int) -> None:
        """Count a row that was judged, and by how many more the rows are enough."""
        self._beside.count(is_kept)
        self._bar.update(n_more, **self.facts())

    def facts(self) -> dict[str, float]:
        """Return what the line says besides sessions and time left."""
        self._beside.look()
        (begun, before), (now, after) = self._made[0], self._made[-1]
        facts: dict[str, float] = {}
        if self._beside.n_judged:
            facts |= {"kept": self._beside.n_kept, "judged": self._beside.n_judged}
        facts["tokens_a_second"] = (after - before) / max(now - begun, 1e-9)
        if self._utilisation is not None:
            facts["slots_in_use"] = self._utilisation
        return facts

    def __enter__(self) -> LiveLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.close(now=True)
        self._bar.__exit__()
