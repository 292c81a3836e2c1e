"""Sorting more texts than are to be held in memory: in runs, which wait in files without a name."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from operator import itemgetter
from typing import IO

Pair = tuple[str, str]

_RUN = 1 << 13
"""Pairs that are sorted at once: some MB of names and digests."""


def sorted_pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Yield pairs by their first text; of those with the same one, only the last."""
    with ExitStack() as held:
        runs: list[Iterable[Pair]] = []
        source = iter(pairs)
        while run := sorted(islice(source, _RUN), key=itemgetter(0)):
            if len(run) == _RUN:
                file = held.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
                runs.append(_put(run, file))
            else:
                runs.append(run)
        last: Pair | None = None
        for pair in heapq.merge(*runs, key=itemgetter(0)):
            if last is not None and last[0] != pair[0]:
                yield last
            last = pair
        if last is not None:
            yield last


def _put(run: Iterable[Pair], file: IO[str]) -> Iterator[Pair]:
    file.writelines(f"{json.dumps(pair)}\n" for pair in run)
    file.seek(0)
    return (tuple(json.loads(line)) for line in file)
