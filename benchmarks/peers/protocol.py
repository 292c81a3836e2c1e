"""How the benchmark and another engine's process speak with each other.

    python -m benchmarks.peers.NAME SETUP

``SETUP`` is JSON with the fields of :class:`Setup`. The process loads the model and writes a line
``ready``. Each line that it then reads is JSON with the fields of :class:`Work`; it decodes that
and writes a line ``made``, with the tokens of every row and the seconds of the processor that they
took. It ends where its input ends. Engines write lines of their own, so these begin with a mark.
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
from typing import Any

MARK = "augesc-peer"


@dataclass(frozen=True)
class Setup:
    """What to load, and for what.

    ``model`` is a checkpoint of transformers, ``slots`` the rows decoded at once, ``longest`` the
    tokens of the longest row with its prompt.
    """

    model: str
    type: str
    threads: int
    slots: int
    longest: int
    vocabulary: int
    eos: int


@dataclass(frozen=True)
class Work:
    """What to decode, and how. ``prompts`` are token ids, ``lengths`` the tokens each row makes.

    All of the vocabulary is sampled from: the penalty (on every token of the row and its prompt),
    the temperature, then the nucleus. With a temperature of 0 the likeliest token is taken.
    """

    prompts: list[list[int]]
    lengths: list[int]
    temperature: float
    top_p: float
    repetition_penalty: float


@dataclass(frozen=True)
class Engine:
    """A loaded engine: its version, what decodes (tokens of each row), its processor seconds."""

    version: str
    decode: Callable[[Work], list[list[int]]]
    seconds: Callable[[], float] = time.process_time


def serve(load: Callable[[Setup], AbstractContextManager[Engine]]) -> None:
    """Run one engine as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("setup", type=json.loads)
    setup = Setup(**parser.parse_args().setup)
    # So that a process of the engine's own ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with load(setup) as engine:
        _say("ready", version=engine.version)
        for line in sys.stdin:
            work = Work(**json.loads(line))
            begun = engine.seconds()
            tokens = engine.decode(work)
            seconds = engine.seconds() - begun
            _say("made", tokens=tokens, seconds=seconds)


def _say(what: str, **about: Any) -> None:
    print(MARK, what, json.dumps(about), flush=True)
