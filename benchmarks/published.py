"""How long the published corpus takes to parse: a file of its shape, ours beside plain json.loads.

    python benchmarks/published.py [--sessions 65000] [--runs 3]

The published file cannot be had everywhere, so one of its shape is written first: a JSON list of
["usr"|"sys", text] pairs a line, 26 utterances a session, words drawn from the bundled sample.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from augesc_builder.sources.published import ByteRange, byte_ranges, read_byte_range
from augesc_builder.sources.sample import read_sample_sessions

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
    """Read a part; give its rows."""
    return sum(table.num_rows for table in read_byte_range(part))


def main() -> None:
    """Print seconds and the ratio, medians of alternating runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=65_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "augesc.txt"
        write(path, given.sessions)
        ways: dict[str, list[float]] = {"json.loads alone": [], "ours, one process": []}
        ways |= {"ours, two processes": [], "load_dataset, num_proc=2": []}
        for run in range(given.runs):
            start = time.perf_counter()
            with path.open("rb") as file:
                n = sum(1 for line in file if json.loads(line))
            ways["json.loads alone"].append(time.perf_counter() - start)

            start = time.perf_counter()
            assert n == sum(map(rows_of, byte_ranges(path))), "rows were lost"
            ways["ours, one process"].append(time.perf_counter() - start)

            start = time.perf_counter()
            with ProcessPoolExecutor(2) as pool:
                assert n == sum(pool.map(rows_of, byte_ranges(path))), "rows were lost"
            ways["ours, two processes"].append(time.perf_counter() - start)

            start = time.perf_counter()
            import augesc

            cache = str(Path(folder) / f"cache{run}")
            loaded = augesc.load_dataset(
                data_files=str(path), split="train", num_proc=2, cache_dir=cache
            )
            assert n == len(loaded), "rows were lost"
            ways["load_dataset, num_proc=2"].append(time.perf_counter() - start)
        size = path.stat().st_size
    print(f"{given.sessions:,} sessions, {size / 1e6:.0f} MB, medians of {given.runs} runs")
    plain = statistics.median(ways["json.loads alone"])
    for way, seconds in ways.items():
        middle = statistics.median(seconds)
        print(f"{way:26} {middle:6.1f} s   {middle / plain:4.1f} times json.loads")


if __name__ == "__main__":
    main()
