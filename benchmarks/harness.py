"""What the benchmarks share: their options, alternating runs, memory, and sessions to measure on.

Every script knows ``--tiny``: the same table within seconds, on one core, of the bundled sample
alone, without other engines. Its figures mean nothing; it shows that a script works. An option that
is given beside it holds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from augesc_builder.sources.base import Session
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.sample import read_sample_sessions

Name = TypeVar("Name")
"""Of what is measured: a word, or the first cells of its row."""

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
"""Real data, beside a clone; without it the bundled sample stands in, and the output says so."""


LOOSE = (
    "requirements.total_utterances={min: 1, max: 500}",
    "requirements.continuous_utterances.max=500",
    "requirements.balanced_utterances.max_ratio=500",
    "requirements.role_words.words=[]",
    *(
        f"requirements.{speaker}_utterance_length="
        "{mean: {min: 1, max: 500}, short: 1, max_short_share: 1, max: 900}"
        for speaker in ("seeker", "supporter")
    ),
)
"""Requirements for a tiny size, whose model would keep nothing else."""


def options(about: str | None, *, runs: int = 3) -> argparse.ArgumentParser:
    """Make a parser of the options that all scripts have."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="within seconds, of the sample alone")
    parser.add_argument("--runs", type=int, default=runs, help="of which the median is shown")
    return parser


def parse(parser: argparse.ArgumentParser, **tiny: object) -> argparse.Namespace:
    """Parse the command line; with ``--tiny``, ``tiny`` replaces the defaults and runs is 1."""
    if parser.parse_known_args()[0].tiny:
        parser.set_defaults(**{"runs": 1, **tiny})
    return parser.parse_args()


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds_of(action: Callable[[], object]) -> float:
    """Time one call by the clock."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def medians_of(contestants: Mapping[Name, Callable[[], float]], runs: int) -> dict[Name, float]:
    """Run all contestants in turn, ``runs`` times; return the median of what each returned."""
    found: dict[Name, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, contestant in contestants.items():
            found[name].append(contestant())
    return {name: statistics.median(numbers) for name, numbers in found.items()}


def ratio(numerator: float, denominator: float) -> str:
    """Write a ratio with one decimal place."""
    return f"{numerator / denominator:.1f}"


def esconv_sessions(folder: Path, *, tiny: bool) -> tuple[list[Session], str]:
    """Return ESConv's sessions, or the sample's where they are missing, and the name of either."""
    files = [] if tiny else sorted(folder.glob("*.txt"))
    if files:
        return [session for file in files for session in read_esconv(file)], "ESConv"
    return read_sample_sessions(), "the bundled sample"


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return the largest memory of it and all below it, shared pages once.

    Where the system has no ``/proc`` that is 0.
    """
    peak = 0
    while process.poll() is None:
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[stat.parent.name] = stat.read_text().rsplit(")", 1)[1].split()[1]
        ours = {str(process.pid)}
        while more := {p for p, parent in parents.items() if parent in ours} - ours:
            ours |= more
        total = 0
        for one in ours:
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(x for x in lines if x.startswith("Pss:")).split()[1])
        peak = max(peak, total)
        time.sleep(0.2)
    return peak


def own_peak() -> float:
    """Return the largest memory of this process so far, in MB.

    What the system tells of a process by ``getrusage`` begins with that of whoever began it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def run_measured(command: list[str]) -> tuple[float, int]:
    """Run a command; return its seconds, start included, and its peak memory in bytes.

    Raises :class:`subprocess.CalledProcessError` where it fails.
    """
    begun = time.perf_counter()
    with subprocess.Popen(command) as process:
        peak = peak_memory(process)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds, peak
