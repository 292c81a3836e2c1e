"""The memory of a command and of all processes below it."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; give the largest memory of it and all below it, shared pages once."""
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
