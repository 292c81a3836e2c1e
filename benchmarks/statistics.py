"""Requirements and Table 2 of a corpus of AugESC's size, against NLTK's plain loop, with memory.

The corpus is resampled from ESConv: utterances of each role drawn at random into sessions of 25, a
typo in 3% of them. `augesc filter` judges all sessions, without the safety pass, which is another
job (--all times it too); then `augesc stats --basic` measures them all. Seconds are those of the
commands, their start included. The plain loop counts the words of a sample of the same utterances
by NLTK in one process; its time for all of them is what the ratio is against, though it judges
nothing and keeps no vocabulary.

    python benchmarks/statistics.py [--sessions 100000] [--num-proc 2] [--esconv FOLDER] [--all]
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder, whose statistics.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[1])

import argparse
import os
import random
import statistics
import string
import subprocess
import tempfile
import time

import pyarrow.parquet as pq

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.tables import GENERATIONS, SESSIONS, plain_schema, to_table
from augesc_builder.text.prompts import Message, render
from augesc_builder.text.words import tokenize_with_nltk
from benchmarks.memory import peak_memory

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "esconv"
UTTERANCES = 25


def synthesize(esconv: Path, folder: Path, n_sessions: int, seed: int = 1) -> list[str]:
    """Write the corpus as generations and as sessions; give a sample of its utterances."""
    rng = random.Random(seed)
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    for file in sorted(esconv.glob("*.txt")):
        for session in read_esconv(file):
            for message in session.messages:
                said[message["role"]].append(message["content"])
    sample: list[str] = []
    with (
        pq.ParquetWriter(folder / "generations.parquet", plain_schema(GENERATIONS)) as generations,
        pq.ParquetWriter(folder / "sessions.parquet", plain_schema(SESSIONS)) as sessions,
    ):
        for first in range(0, n_sessions, 2000):
            rows: tuple[list[dict[str, object]], list[dict[str, object]]] = ([], [])
            for i in range(first, min(first + 2000, n_sessions)):
                messages = _session(rng, said)
                if len(sample) < 50_000:
                    sample += [m["content"] for m in messages]
                key = {"query_id": str(i), "source": "resampled"}
                text = render(messages[1:]).removeprefix("AI:")
                counts = {"n_prompt_tokens": 60, "n_tokens": 640, "finish_reason": "eos", "seed": 0}
                query = messages[0]["content"]
                rows[0].append({**key, "sample": 0, "query": query, "text": text, **counts})
                rows[1].append({**key, "session_id": str(i), "messages": messages})
            generations.write_table(to_table(rows[0], GENERATIONS))
            sessions.write_table(to_table(rows[1], SESSIONS))
    return sample


def _session(rng: random.Random, said: dict[str, list[str]]) -> list[Message]:
    messages: list[Message] = []
    for i in range(UTTERANCES):
        role = ("user", "assistant")[i % 2]
        text = rng.choice(said[role])
        if rng.random() < 0.03:
            at = rng.randrange(len(text))
            text = (text[:at] + rng.choice(string.ascii_letters) + text[at + 1 :]).strip() or text
        messages.append({"role": role, "content": text})
    return messages


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--num-proc", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--esconv", type=Path, default=SHARED)
    parser.add_argument("--all", action="store_true", help="time every measurement too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = synthesize(arguments.esconv, folder, arguments.sessions)
        commands = {
            "requirements (augesc filter)": [
                *("filter", folder / "generations.parquet", "--no-safety"),
            ],
            "Table 2 (augesc stats --basic)": ["stats", folder / "sessions.parquet", "--basic"],
        }
        if arguments.all:
            commands["requirements and safety pass"] = ["filter", folder / "generations.parquet"]
            commands["all measurements (augesc stats)"] = ["stats", folder / "sessions.parquet"]
        seconds: dict[str, list[float]] = {what: [] for what in commands}
        memory = dict.fromkeys(commands, 0)
        plain: list[float] = []
        n_utterances = UTTERANCES * arguments.sessions
        for run in range(arguments.runs):
            begun = time.perf_counter()
            for text in sample:
                tokenize_with_nltk(text)
            plain.append((time.perf_counter() - begun) / len(sample) * n_utterances)
            for what, command in commands.items():
                out = ["--out", folder / f"{run}-{command[0]}-{len(command)}", "--quiet"]
                out += ["--num-proc", str(arguments.num_proc)]
                begun = time.perf_counter()
                with subprocess.Popen(
                    [sys.executable, "-m", "augesc_builder", *map(str, [*command, *out])]
                ) as process:
                    memory[what] = max(memory[what], peak_memory(process))
                if process.returncode:
                    sys.exit(f"{what} failed")
                seconds[what].append(time.perf_counter() - begun)
    rows = []
    base = statistics.median(plain)
    medians = {what: statistics.median(found) for what, found in seconds.items()}
    both = sum(list(medians.values())[:2])
    medians = {"requirements and Table 2": both, **medians}
    memory["requirements and Table 2"] = max(list(memory.values())[:2])
    for what, median in medians.items():
        per = median / arguments.sessions * 100_000
        peak = f"{memory[what] / 1e6:,.0f}"
        rows.append([what, f"{median:,.1f}", f"{per:,.1f}", f"{base / median:.1f}", peak])
    rows.append(
        [
            "NLTK's plain loop, one process",
            f"{base:,.1f}",
            f"{base / arguments.sessions * 1e5:,.1f}",
            "1",
            "",
        ]
    )
    print(
        f"{arguments.sessions:,} sessions, {n_utterances:,} utterances, medians of "
        f"{arguments.runs} alternating runs, {arguments.num_proc} processes"
    )
    header = ["", "seconds", "seconds/100,000", "times the plain loop", "peak memory, MB"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
