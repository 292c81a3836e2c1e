"""Statistics in parts against the whole: one outcome, and memory that does not grow with the rows.

Sessions are made: utterances drawn from ESConv's, or the sample's, a number of some of them a copy
of another with a word changed. In parts, each kind of work has a process to itself, as on a
cluster: the owner, who merges, and a worker each for the counts of shards, for ranges of hashes and
for bands of sketches. The whole is counted in one process that holds every session's hash and
sketch; above --whole rows it is left out. Peaks are the system's, with all that is imported.

    python benchmarks/statistics_parts.py [--rows 100000 1000000] [--whole 200000]
        [--utterances 6] [--no-near-duplicates] [--folder DIR] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from augesc_builder.config.recipe import load_recipe
from augesc_builder.executors import Executor, Job
from augesc_builder.executors.local import LocalExecutor
from augesc_builder.metrics.duplication.counts import DEFAULT
from augesc_builder.pipeline.statistics import stage
from augesc_builder.pipeline.statistics.jobs import BANDS, RANGES, STAGE
from augesc_builder.pipeline.statistics.measure import Counts, Measuring, statistics
from augesc_builder.pipeline.statistics.measuring import jobs_of, measure, part_of
from augesc_builder.pipeline.statistics.plan import Plan
from augesc_builder.readers.records import USUAL, BadLines
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.progress import Progress
from augesc_builder.run.shards import Shards
from augesc_builder.sources.sessions import session_chunks
from augesc_builder.tables import SESSIONS, plain_schema, to_table
from benchmarks.harness import SHARED, esconv_sessions, options, own_peak, parse

_FILE_ROWS = 50_000
_COPIES = 0.02


def make(folder: Path, n_rows: int, utterances: int, *, tiny: bool) -> None:
    """Write made sessions as Parquet files."""
    rng, said = random.Random(1), {"user": [""], "assistant": [""]}
    for session in esconv_sessions(SHARED / "esconv", tiny=tiny)[0]:
        for message in session.messages:
            said[message["role"]].append(message["content"])
    before: list[dict[str, str]] = []
    for first in range(0, n_rows, _FILE_ROWS):
        path = folder / f"train-{first // _FILE_ROWS:05d}.parquet"
        with pq.ParquetWriter(path, plain_schema(SESSIONS)) as writer:
            for start in range(first, min(first + _FILE_ROWS, n_rows), 2000):
                rows = []
                for i in range(start, min(start + 2000, first + _FILE_ROWS, n_rows)):
                    if before and rng.random() < _COPIES:
                        messages = [*before[:-1], {**before[-1], "content": f"yes {i % 7}"}]
                    else:
                        roles = (("user", "assistant")[k % 2] for k in range(utterances))
                        messages = [{"role": r, "content": rng.choice(said[r])} for r in roles]
                    if rng.random() < _COPIES:
                        before = messages
                    key = {"query_id": str(i), "session_id": str(i), "source": "made"}
                    rows.append({**key, "messages": messages})
                writer.write_table(to_table(rows, SESSIONS))


def planned(folder: Path, *, near: bool) -> Plan:
    """Return the plan of the sessions below a folder."""
    recipe = load_recipe("paper")
    what = Measuring(
        seed=recipe.seed,
        query_sample=recipe.statistics.query_sample,
        topic_sample=recipe.statistics.topic_sample,
        near=DEFAULT if near else None,
    )
    return Plan((part_of("made", sorted((folder / "made").glob("*")), what, USUAL),))


class Apart(Executor):
    """Has the shards of each job made by one other process, alone on this machine."""

    def __init__(self, folder: Path, *, near: bool) -> None:
        self._folder, self._near = folder, near
        self.said: dict[str, dict[str, float]] = {}

    def run(self, job: Job) -> Iterator[int]:
        """Start the process, and yield numbers as their marks are there."""
        self.said[job.stage] = started(self._folder, job.stage, near=self._near)
        yield from range(job.n_shards)


def work(folder: Path, name: str, *, near: bool) -> None:
    """Make all shards of one job in this process."""
    for job in jobs_of(Shards(folder / "out", print), planned(folder, near=near), 1, print):
        if job.stage == name:
            for _ in LocalExecutor().run(job):
                pass


def own(folder: Path, _: str, *, near: bool) -> dict[str, dict[str, float]]:
    """Own the run: start workers, merge, sum up; return what the workers said."""
    executor, quiet = Apart(folder, near=near), Progress(quiet=True)
    plan = planned(folder, near=near)
    with RunFolder(folder / "out", {"stage": STAGE}, quiet) as run:
        counted = measure(run, plan, executor, quiet, 1)
        found = stage._found(run, plan, counted, plan.parts[0].what)
        (folder / "parts.json").write_text(json.dumps(found))
    return executor.said


def whole(folder: Path, _: str, *, near: bool) -> None:
    """Count all sessions in this process, which holds what it keeps of each."""
    part = planned(folder, near=near).parts[0]
    columns: dict[str, Counts] = {}
    for chunk in session_chunks(list(part.files)):
        part.what.chunk(chunk, columns, BadLines())
    (folder / "whole.json").write_text(json.dumps(statistics(columns, part.what)))


ROLES: dict[str, Callable[..., object]] = {"owner": own, "whole": whole}


def started(folder: Path, role: str, *, near: bool) -> dict[str, float]:
    """Do one thing in a process of its own; return its seconds, its peak and what it said."""
    command = [sys.executable, "-m", "benchmarks.statistics_parts", "--role", role]
    ask = [*command, "--folder", str(folder), *([] if near else ["--no-near-duplicates"])]
    root = Path(__file__).parents[1]
    done = subprocess.run(ask, check=True, capture_output=True, text=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def say(role: str, folder: Path, *, near: bool) -> None:
    """Do one thing, and print how long it took and the most memory it held."""
    begun = time.perf_counter()
    said = ROLES.get(role, work)(folder, role, near=near)
    print(json.dumps({"seconds": time.perf_counter() - begun, "peak": own_peak(), "said": said}))


def compared(folder: Path, n_rows: int, given: argparse.Namespace) -> list[list[str]]:
    """Measure one size; return the rows of the table."""
    near = given.near_duplicates
    (folder / "made").mkdir(parents=True)
    make(folder / "made", n_rows, given.utterances, tiny=given.tiny)
    parts = started(folder, "owner", near=near)
    said = {"owner": parts, **dict(parts["said"])}  # type: ignore[call-overload]
    found = json.loads((folder / "parts.json").read_text())
    same = "not counted"
    if n_rows <= given.whole:
        said["whole"] = started(folder, "whole", near=near)
        same = "yes" if json.loads((folder / "whole.json").read_text()) == found else "NO"
    names = {
        "owner": "owner, in parts",
        STAGE: "counts of shards",
        RANGES: "ranges of hashes",
        BANDS: "bands of sketches",
        "whole": "the whole, one process",
    }
    outcome = found["duplication"]
    shown = f"{outcome['duplicate_sessions']:,} / {outcome['near_duplicate_sessions'] or 0:,}"
    return [
        [f"{n_rows:,} rows: {names[role]}", f"{it['seconds']:,.1f}", f"{it['peak']:,.0f}"]
        + ([shown, same] if role in {"owner", "whole"} else ["", ""])
        for role, it in said.items()
    ]


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--whole", type=int, default=200_000)
    parser.add_argument("--utterances", type=int, default=6)
    parser.add_argument("--near-duplicates", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--role")
    given = parse(parser, rows=[300], whole=1000)
    if given.role:
        say(given.role, given.folder, near=given.near_duplicates)
        return
    rows = []
    for n_rows in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            rows += compared(Path(name), n_rows, given)
    header = ["", "seconds", "peak memory, MB", "duplicates / near", "same as the whole"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
