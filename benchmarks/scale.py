"""What shards, marks and executors cost by themselves, and what two workers bring.

Shards of one row are made in no time, so that all that is measured is ours: asking which are
missing, writing a table, syncing it, creating its mark, and what an executor adds to that. Each
number of shards has a process for the driver (which for ``local`` and ``slurm`` is the worker,
too), and one that asks `augesc status` afterwards; peaks are the system's, above those of a process
that has only imported the same. The plain loop writes and syncs the same tables without any mark.

With ``--workers`` two workers are measured against one instead, with a real model
(:mod:`benchmarks.scale_workers`).

    python benchmarks/scale.py [--shards 100 10000 100000] [--executors local slurm ray]
    python benchmarks/scale.py --workers [--checkpoint DIR]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from augesc_builder.run.markdown import markdown_table
from benchmarks import scale_workers
from benchmarks.harness import options, parse
from benchmarks.scale_roles import begin

WORK = 10.0
"""Seconds of work in a shard that the share is of."""

ROOT = Path(__file__).parent.parent

_RUN = "from benchmarks.scale_roles import main; main()"


def measured(role: str, folder: Path, n_shards: int, executor: str = "") -> dict[str, float]:
    """Run a role in a process of its own; give its seconds and its peak of memory."""
    command = [sys.executable, "-c", _RUN, role, str(folder), str(n_shards), executor]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    if executor == "slurm":
        environ |= {"AUGESC_RANK": "0", "AUGESC_WORLD_SIZE": "2"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(executor: str, n_shards: int, folder: Path, *, loop: float, base: float) -> list[str]:
    """Make so many shards by an executor, and ask for the status.

    ``loop`` is seconds of a shard in the plain loop, ``base`` the peak of only importing.
    """
    begin(folder / "run")
    made = measured("make", folder / "run", n_shards, executor)
    asked = measured("ask", folder / "run", n_shards)
    each = made["seconds"] / n_shards
    # In processes of Ray's own, what has only imported the same is not known.
    worker = float((folder / "worker").read_text())
    return [
        f"{executor}, {n_shards:,} shards",
        f"{loop * 1000:.1f}",
        f"{each * 1000:.1f}",
        f"{(each - loop) / WORK:.3%}",
        f"{max(0.0, made['peak'] - base):.1f}",
        f"{worker:.0f}" if executor == "ray" else "the same",
        f"{asked['seconds']:.2f}",
        f"{max(0.0, asked['peak'] - base):.1f}",
    ]


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--shards", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--executors", nargs="+", default=["local", "slurm"])
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--workers", action="store_true", help="two workers against one")
    parser.add_argument("--recipe", default="quickstart", help="of the model of two workers")
    parser.add_argument("--checkpoint", type=Path, help="that of a build; default: it is made")
    parser.add_argument("--rows", type=int, nargs=2, default=[16, 144], help="few, and all")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="of a row, at most")
    given = parse(parser, shards=[100], **scale_workers.TINY)
    if given.workers:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            print(scale_workers.table(given, Path(name)))
        return
    rows = []
    for n_shards in given.shards:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            base = measured("nothing", Path(name), n_shards)["peak"]
            loop = measured("loop", Path(name), n_shards)["seconds"] / n_shards
        for executor in given.executors:
            with tempfile.TemporaryDirectory(dir=given.folder) as name:
                rows.append(row(executor, n_shards, Path(name), loop=loop, base=base))
    header = [
        *("of one row", "plain loop, ms", "ms a shard", f"more, of {WORK:.0f} s of work"),
        *("driver, MB", "worker, MB in all", "status, s", "status, MB"),
    ]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
