"""Posts a second through the rules for Reddit dumps, and peak memory, on a synthetic dump.

The dump is made of sentences of Dreaddit's posts (of the bundled sample's where they are missing),
shuffled into new posts, so that hardly any text stands twice and lengths are those of real posts;
subreddits are all taken. Classifiers are off.

    python benchmarks/queries.py [--posts 1000000] [--source RS_FILE.zst] [--tiny]
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

import zstandard

from augesc_builder.readers.jsonl import read_lines
from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.sample import read_sample_queries
from augesc_builder.text.words import tokenize_with_nltk
from benchmarks.harness import SHARED, cores, options, parse, ratio, run_measured, seconds_of


def read_originals(source: Path, *, tiny: bool) -> tuple[list[tuple[str, str]], str]:
    """Return subreddit and text of the posts that new ones are made of, and where they are from."""
    if source.exists() and not tiny:
        posts = [json.loads(line) for _, line in read_lines(source) if isinstance(line, bytes)]
        return [(post["subreddit"], post["selftext"]) for post in posts], source.name
    return [("sample", post.text) for post in read_sample_queries()], "the bundled sample"


def synthesize(originals: list[tuple[str, str]], target: Path, n_posts: int, seed: int = 1) -> int:
    """Write a dump of ``n_posts``; return its size in bytes, decompressed."""
    rng = random.Random(seed)
    bodies = [text.split(". ") for _, text in originals]
    sentences = [sentence for body in bodies for sentence in body]
    subreddits = [subreddit for subreddit, _ in originals]
    size = 0
    compressor = zstandard.ZstdCompressor(level=3)
    with target.open("wb") as file, compressor.stream_writer(file) as out:
        for i in range(n_posts):
            body = ". ".join(rng.choices(sentences, k=len(rng.choice(bodies))))
            post: dict[str, object] = {
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
    parser = options(__doc__, runs=1)
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--source", type=Path, default=SHARED / "reddit/RS_dreaddit_train.zst")
    parser.add_argument("--num-proc", type=int, default=cores())
    given = parse(parser, posts=200, num_proc=1)
    originals, corpus = read_originals(given.source, tiny=given.tiny)
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "RS.zst"
        size = synthesize(originals, dump, given.posts)
        runs = []
        for run in range(given.runs):
            out = f"{folder}/out-{run}"
            command = [sys.executable, "-m", "augesc_builder", "queries", "--quiet"]
            command += ["--source", f"reddit={dump}", "--out", out]
            command += ["--set", "queries.reddit.subreddits=[]"]
            command += ["--num-proc", str(given.num_proc)]
            runs.append(run_measured(command))
            counts = json.loads(Path(out, "manifest.json").read_text())["tables"]
    seconds = statistics.median(seconds for seconds, _ in runs)
    peak = max(peak for _, peak in runs)
    texts = [text for _, text in originals[:1000]]
    plain = len(texts) / seconds_of(lambda: [tokenize_with_nltk(text) for text in texts])
    print(f"{given.posts:,} posts of {corpus}, {size / 1e6:,.0f} MB of JSON, {counts}")
    rate = given.posts / seconds
    rows = [
        ["posts/s, the whole command", f"{rate:,.0f}"],
        ["posts/s, counting words by NLTK alone (one process)", f"{plain:,.0f}"],
        ["ratio", ratio(rate, plain)],
        ["peak memory of all processes (shared pages once), MB", f"{peak / 1e6:,.0f}"],
    ]
    print(markdown_table([f"{given.num_proc} processes", ""], rows))


if __name__ == "__main__":
    main()
