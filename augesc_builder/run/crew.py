"""The workers of a run, told from outside: from the marks and from what each says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from augesc_builder.run.heartbeat import WorkerStatus, is_at_work, one_line, read_workers
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.run.progress import duration

_THERE = {"at work", "idle"}

_SHOWN = 50
"""Workers that have a line of their own."""


class Worker(BaseModel):
    """A worker, and what is to be thought of it."""

    state: Literal["at work", "idle", "ended", "failed", "gone", "silent"]
    """``idle``: it is there and makes nothing. ``gone`` and ``silent`` as those of a run."""
    status: WorkerStatus


class Crew(BaseModel):
    """All workers, and how far they are together."""

    shards: int
    """That have their mark, of ``n_shards``."""
    n_shards: int
    kept: int = 0
    """Rows that met every requirement, of those ``judged`` by workers so far."""
    judged: int = 0
    rows_a_second: float
    seconds_left: float | None
    workers: list[Worker]

    @property
    def is_at_work(self) -> bool:
        """Whether one of them is there."""
        return any(worker.state in _THERE for worker in self.workers)


def crew_of(folder: Path, counts: Mapping[str, int]) -> Crew | None:
    """Return the workers of the run in a folder; ``None`` where none ever said a word.

    ``counts`` says how many shards of each stage have their mark.
    """
    said = read_workers(folder)
    if not said:
        return None
    workers = [Worker(state=_state(each), status=each) for each in said]
    stage = said[0].stage
    shards = counts.get(stage, 0)
    n_shards = max(each.n_shards for each in said)
    rate = sum(w.status.rows_a_second for w in workers if w.state == "at work")
    size = _rows_a_shard(said)
    left = max(0, n_shards - shards) * size / rate if rate and size else None
    return Crew(
        shards=shards,
        n_shards=n_shards,
        kept=sum(each.kept for each in said),
        judged=sum(each.judged for each in said),
        rows_a_second=rate,
        seconds_left=left,
        workers=workers,
    )


def told(crew: Crew) -> list[str]:
    """Say in lines what the workers are at."""
    states = Counter(worker.state for worker in crew.workers)
    each = ", ".join(f"{n:,} {state}" for state, n in sorted(states.items()))
    left = "" if crew.seconds_left is None else f", {duration(crew.seconds_left)} left"
    if crew.judged:
        left = f", {crew.kept:,} of {crew.judged:,} rows kept so far{left}"
    rows = [_row(worker) for worker in crew.workers[:_SHOWN]]
    header = ["worker", "state", "heard of", "shards", "tokens a second", "slots", "computes on"]
    lines = [
        f"Workers: {each}; {crew.shards:,} of {crew.n_shards:,} shards are done{left}.",
        "",
        markdown_table(header, rows),
    ]
    if len(crew.workers) > _SHOWN:
        lines.append(f"and {len(crew.workers) - _SHOWN:,} more; --json has them all.")
    failed = [worker.status for worker in crew.workers if worker.state == "failed"]
    lines += [f"{_name(s)} failed: {one_line(s.error or '')}" for s in failed[:_SHOWN]]
    return [*lines, ""]


def _row(worker: Worker) -> list[str]:
    status = worker.status
    slots = NOTHING if status.slots_in_use is None else f"{status.slots_in_use:.0%}"
    is_there = worker.state in _THERE
    return [
        *(_name(status), worker.state, f"{_ago(status)} ago", f"{status.shards:,}"),
        f"{status.tokens_a_second:,.0f}" if is_there else NOTHING,
        slots if is_there else NOTHING,
        one_line(status.device, 60),
    ]


def _name(status: WorkerStatus) -> str:
    return f"{one_line(status.host, 60)}/{status.pid}"


def _state(
    status: WorkerStatus,
) -> Literal["at work", "idle", "ended", "failed", "gone", "silent"]:
    if status.state != "running":
        return "ended" if status.state == "finished" else "failed"
    at_work = is_at_work(status)
    if at_work is None:
        return "silent"
    if not at_work:
        return "gone"
    return "at work" if status.tokens_a_second or not status.tokens else "idle"


def _rows_a_shard(said: Sequence[WorkerStatus]) -> float:
    shards = sum(status.shards for status in said)
    return sum(status.rows for status in said) / shards if shards else 0.0


def _ago(status: WorkerStatus) -> str:
    return duration(max(0.0, (datetime.now(timezone.utc) - status.written).total_seconds()))
