"""How the cores of a machine share the work: processes, and threads in each, by measured rates.

Which way is the fastest depends on model and machine. Processes with one thread wait for nobody,
and each reads weights of its own; threads read one copy, and wait for each other in every layer.
So a run measures when it begins, and keeps what it chose (:mod:`.backends.local`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WORTH = 15.0
"""Seconds of work for each process from which several are worth their start and the measuring."""

_CLEARLY = 1.05
"""How much faster a way must be than one that takes less of the machine."""


class Way(NamedTuple):
    """A number of processes, with as many threads in each."""

    processes: int
    threads: int

    def __str__(self) -> str:
        several = f"{self.processes:,} processes" if self.processes > 1 else "1 process"
        threads = f"{self.threads:,} threads" if self.threads > 1 else "1 thread"
        return f"{several}, {threads}{' each' if self.processes > 1 else ''}"


def ways(most: int, threads: int, workers: int | None) -> list[Way]:
    """Return the ways there are, the simplest first.

    ``most`` is how many processes fit, ``threads`` how many threads they may have together;
    with ``workers``, it is that many processes and no others.
    """
    if workers is not None:
        return sorted({Way(workers, 1), Way(workers, max(1, threads // workers))})
    doubled = {2**i for i in range(most.bit_length())}
    shared = {Way(n, max(1, threads // n)) for n in {*doubled, most}}
    return sorted({Way(1, 1), Way(most, 1), *shared})


def worth_trying(found: Sequence[Way], seconds: float) -> list[Way]:
    """Return the ways to measure where the simplest would take ``seconds`` for all that is left.

    With one left there is nothing to measure.
    """
    simplest = found[0]
    if seconds < 2 * WORTH:
        return [simplest]
    return [way for way in found if way.processes <= max(simplest.processes, seconds // WORTH)]


def fastest(rates: Mapping[Way, float]) -> Way:
    """Return the way with the highest rate; of those that are hardly slower, the cheapest.

    Threads are the dearest, since other work on the machine slows them down most; then processes,
    for their memory.
    """
    best = max(rates.values())
    enough = [way for way, rate in rates.items() if rate * _CLEARLY >= best]
    return min(enough, key=lambda way: (way.threads, way.processes))


def kept(begun: Way, most: int, cores: int) -> Way:
    """Return the way in which a run goes on here that was begun in another.

    Rows may depend on the number of threads, and never on that of processes: threads stay, and
    processes are as many of them as there is room for, ``most``, and as have ``cores``.
    """
    return Way(max(1, min(begun.processes, most, cores // begun.threads)), begun.threads)


def told(way: Way, rates: Mapping[Way, float]) -> str:
    """Say in a line which way was chosen, and what each makes of the simplest one's rate."""
    if len(rates) < 2:  # noqa: PLR2004 - nothing to compare with
        return str(way)
    simplest = min(rates)
    name = "one" if simplest == (1, 1) else str(simplest)
    others = [f"{w}: {rates[w] / rates[simplest]:.2f}" for w in rates if w not in {way, simplest}]
    line = f"{way}: {rates[way] / rates[simplest]:.2f} times {name}"
    return f"{line} ({'; '.join(others)})" if others else line


def noted(way: Way, rates: Mapping[Way, float]) -> dict[str, Any]:
    """Return what the manifest says of the choice: the way, and tokens a second of each tried."""
    measured = [{**w._asdict(), "tokens_a_second": round(rate, 1)} for w, rate in rates.items()]
    return {**way._asdict(), "measured": measured, "choice": told(way, rates)}
