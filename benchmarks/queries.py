"""Posts a second through the rules for Reddit dumps, and peak memory, on a synthetic dump.

The dump is made of sentences of the shared sample, shuffled into new posts, so that hardly any text
stands twice and lengths are those of real posts; subreddits are all taken. Classifiers are off.

    python benchmarks/queries.py [--posts 1000000] [--source RS_FILE.zst]
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder, whose statistics.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[1])

import argparse
import json
import os
import random
import subprocess
import tempfile
import time

import zstandard

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.base import BadLines
from augesc_builder.sources.reddit import read_lines
from augesc_builder.text.words import tokenize_with_nltk
from benchmarks.memory import peak_memory

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "reddit"


def synthesize(source: Path, target: Path, n_posts: int, seed: int = 1) -> int:
    """Write a dump of ``n_posts``; give its size in bytes, decompressed."""
    rng = random.Random(seed)
    originals = [json.loads(line) for _, _, line in read_lines(source, BadLines(strict=True))]
    bodies = [post["selftext"].split(". ") for post in originals]
    sentences = [sentence for body in bodies for sentence in body]
    subreddits = [post["subreddit"] for post in originals]
    size = 0
    compressor = zstandard.ZstdCompressor(level=3)
    with target.open("wb") as file, compressor.stream_writer(file) as out:
        for i in range(n_posts):
            body = ". ".join(rng.choices(sentences, k=len(rng.choice(bodies))))
            post = {
                "id": str(i),
                "subreddit": rng.choice(subreddits),
                "title": "",
                "selftext": body,
            }
            post |= {"author": "[redacted]", "created_utc": i, "over_18": False, "is_self": True}
            line = json.dumps(post).encode() + b"\n"
            size += len(line)
            out.write(line)
    return size


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--source", type=Path, default=SHARED / "RS_dreaddit_train.zst")
    parser.add_argument("--num-proc", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "RS.zst"
        size = synthesize(arguments.source, dump, arguments.posts)
        command = [sys.executable, "-m", "augesc_builder", "queries", "--quiet"]
        command += ["--source", f"reddit={dump}", "--out", f"{folder}/out"]
        command += ["--set", "queries.reddit.subreddits=[]"]
        command += ["--num-proc", str(arguments.num_proc)]
        begun = time.perf_counter()
        with subprocess.Popen(command) as process:
            peak = peak_memory(process)
        seconds = time.perf_counter() - begun
        counts = json.loads(Path(folder, "out", "manifest.json").read_text())["tables"]
        plain = _plain_rate(arguments.source)
    print(f"{arguments.posts:,} posts, {size / 1e6:,.0f} MB of JSON, {counts}")
    rate = arguments.posts / seconds
    rows = [
        ["posts/s, the whole command", f"{rate:,.0f}"],
        ["posts/s, counting words by NLTK alone (one process)", f"{plain:,.0f}"],
        ["ratio", f"{rate / plain:.1f}"],
        ["peak memory of all processes (shared pages once), MB", f"{peak / 1e6:,.0f}"],
    ]
    print(markdown_table([f"{arguments.num_proc} processes", ""], rows))


def _plain_rate(source: Path) -> float:
    texts = [json.loads(line)["selftext"] for _, _, line in read_lines(source, BadLines())][:1000]
    begun = time.perf_counter()
    for text in texts:
        tokenize_with_nltk(text)
    return len(texts) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
