"""How the benchmark and another engine's process speak with each other.

    python -m benchmarks.peers.NAME TASK.json MODEL TYPE THREADS

The process loads ``MODEL`` (a checkpoint of transformers), writes a line ``ready``, waits for a
line, decodes the task, and writes a line ``made`` with the tokens of each row and the seconds of
the processor that it took. Engines write lines of their own, so these two begin with a mark.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "augesc-peer"


@dataclass(frozen=True)
class Work:
    """What to decode, and how. ``prompts`` are token ids, ``lengths`` the tokens each row makes."""

    prompts: list[list[int]]
    lengths: list[int]
    slots: int
    vocabulary: int
    eos: int
    sampling: dict[str, float]
    model: Path
    type: str
    threads: int


@dataclass(frozen=True)
class Engine:
    """A loaded engine: its version, what decodes (tokens of each row), its processor seconds."""

    version: str
    decode: Callable[[], list[int]]
    seconds: Callable[[], float] = time.process_time


def serve(load: Callable[[Work], AbstractContextManager[Engine]]) -> None:
    """Run one engine as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("type")
    parser.add_argument("threads", type=int)
    given = vars(parser.parse_args())
    task: dict[str, Any] = json.loads(given.pop("task").read_text())
    work = Work(**task, **given)
    # So that a process of the engine's own ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with load(work) as engine:
        print(MARK, "ready", json.dumps({"version": engine.version}), flush=True)
        if not sys.stdin.readline():
            sys.exit(1)
        begun = engine.seconds()
        made = engine.decode()
        seconds = engine.seconds() - begun
        print(MARK, "made", json.dumps({"made": made, "seconds": seconds}), flush=True)
