"""How long the published corpus takes to parse: a file of its shape, ours beside plain json.loads.

    python benchmarks/published.py [--sessions 65000] [--runs 3] [--tiny]

The published file cannot be had everywhere, so one of its shape is written first: a JSON list of
["usr"|"sys", text] pairs a line, 26 utterances a session, words drawn from the bundled sample.
"""

from __future__ import annotations

import json
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import augesc
from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.published import ByteRange, byte_ranges, read_byte_range
from augesc_builder.sources.sample import read_sample_sessions
from benchmarks.harness import medians_of, options, parse, ratio, seconds_of

UTTERANCES = 26
BYTES_A_SESSION = 163_000_000 / 65_000


def write(path: Path, n_sessions: int) -> None:
    """Write a file of the published one's shape and size."""
    said = [m["content"] for s in read_sample_sessions() for m in s.messages]
    words = " ".join(said).split()
    rng = random.Random(0)
    length = BYTES_A_SESSION / UTTERANCES - len('["usr", ""], ')
    n_words = round(length / (sum(map(len, words)) / len(words) + 1))
    with path.open("w") as file:
        for _ in range(n_sessions):
            pairs = [
                ["sys" if i % 2 else "usr", " ".join(rng.choices(words, k=n_words))]
                for i in range(UTTERANCES)
            ]
            file.write(json.dumps(pairs) + "\n")


def rows_of(part: ByteRange) -> int:
    """Read a part; return the number of its rows."""
    return sum(table.num_rows for table in read_byte_range(part))


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--sessions", type=int, default=65_000)
    given = parse(parser, sessions=50)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "augesc.txt"
        write(path, given.sessions)

        def json_alone() -> int:
            with path.open("rb") as file:
                return sum(1 for line in file if json.loads(line))

        def one_process() -> int:
            return sum(map(rows_of, byte_ranges(path)))

        def two_processes() -> int:
            with ProcessPoolExecutor(2) as pool:
                return sum(pool.map(rows_of, byte_ranges(path)))

        def load_dataset() -> int:
            cache = tempfile.mkdtemp(dir=folder)  # a new one for each run: a cache is not read
            loaded = augesc.load_dataset(
                data_files=str(path), split="train", num_proc=2, cache_dir=cache
            )
            return len(loaded)

        ways = {
            "json.loads alone": json_alone,
            "ours, one process": one_process,
            "ours, two processes": two_processes,
            "load_dataset, num_proc=2": load_dataset,
        }
        for way, read in ways.items():  # also imports what is imported at first use
            if (n := read()) != given.sessions:
                raise RuntimeError(f"{way}: {n} sessions instead of {given.sessions}")
        medians = medians_of(
            {way: partial(seconds_of, read) for way, read in ways.items()}, given.runs
        )
        megabytes = path.stat().st_size / 1e6
    plain = medians["json.loads alone"]
    rows = [[way, f"{s:.1f}", ratio(s, plain)] for way, s in medians.items()]
    title = f"{given.sessions:,} sessions, {megabytes:.0f} MB, medians of {given.runs}"
    print(markdown_table([title, "seconds", "times json.loads"], rows))


if __name__ == "__main__":
    main()
