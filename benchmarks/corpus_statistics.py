"""Requirements and Table 2 of a corpus of AugESC's size, against NLTK's plain loop, with memory.

The corpus is resampled from ESConv: utterances of each role drawn at random into sessions of 25, a
typo in 3% of them. `augesc filter` judges all sessions, without the safety pass, which is another
job (--all times it too); then `augesc stats --basic` measures them all. Seconds are those of the
commands, their start included. The plain loop counts the words of a sample of the same utterances
by NLTK in one process; its time for all of them is what the ratio is against, though it judges
nothing and keeps no vocabulary.

    python benchmarks/corpus_statistics.py [--sessions 100000] [--num-proc 2] [--esconv FOLDER]
        [--all] [--tiny]
"""

from __future__ import annotations

import random
import string
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.base import Session
from augesc_builder.tables import GENERATIONS, SESSIONS, plain_schema, to_table
from augesc_builder.text.prompts import Message, render
from augesc_builder.text.words import tokenize_with_nltk
from benchmarks.harness import (
    SHARED,
    cores,
    esconv_sessions,
    medians_of,
    options,
    parse,
    ratio,
    run_measured,
    seconds_of,
)

FILTER, BASIC = "requirements (augesc filter)", "Table 2 (augesc stats --basic)"
BOTH, PLAIN = "requirements and Table 2", "NLTK's plain loop, one process"
UTTERANCES = 25


def synthesize(originals: list[Session], folder: Path, n_sessions: int, seed: int = 1) -> list[str]:
    """Write the corpus as generations and as sessions; return a sample of its utterances."""
    rng = random.Random(seed)
    said: dict[str, list[str]] = {"user": [], "assistant": []}
    for session in originals:
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


def commands_of(folder: Path, *, everything: bool) -> dict[str, list[str]]:
    """Return the arguments of each command that is measured, by its name in the table."""
    generations, sessions = str(folder / "generations.parquet"), str(folder / "sessions.parquet")
    commands = {
        FILTER: ["filter", generations, "--no-safety"],
        BASIC: ["stats", sessions, "--basic"],
    }
    if everything:
        commands["requirements and safety pass"] = ["filter", generations]
        commands["all measurements (augesc stats)"] = ["stats", sessions]
    return commands


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--num-proc", type=int, default=cores())
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    parser.add_argument("--all", action="store_true", help="time every measurement too")
    given = parse(parser, sessions=30, num_proc=1)
    originals, corpus = esconv_sessions(given.esconv, tiny=given.tiny)
    n_utterances = UTTERANCES * given.sessions
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = synthesize(originals, folder, given.sessions)

        def plain() -> float:
            seconds = seconds_of(lambda: [tokenize_with_nltk(text) for text in sample])
            return float(seconds / len(sample) * n_utterances)

        def measured(what: str, command: list[str]) -> Callable[[], float]:
            def run() -> float:
                out = tempfile.mkdtemp(dir=folder)
                rest = ["--out", f"{out}/out", "--quiet", "--num-proc", str(given.num_proc)]
                seconds, peak = run_measured(
                    [sys.executable, "-m", "augesc_builder", *command, *rest]
                )
                peaks[what] = max(peaks.get(what, 0), peak)
                return seconds

            return run

        commands = commands_of(folder, everything=given.all)
        contestants = {what: measured(what, command) for what, command in commands.items()}
        medians = medians_of({PLAIN: plain, **contestants}, given.runs)
    base = medians.pop(PLAIN)
    medians = {BOTH: medians[FILTER] + medians[BASIC], **medians, PLAIN: base}
    peaks[BOTH] = max(peaks[FILTER], peaks[BASIC])
    rows = []
    for what, seconds in medians.items():
        per = seconds / given.sessions * 100_000
        peak = f"{peaks[what] / 1e6:,.0f}" if what in peaks else ""
        rows.append([what, f"{seconds:,.1f}", f"{per:,.1f}", ratio(base, seconds), peak])
    print(
        f"{given.sessions:,} sessions, {n_utterances:,} utterances resampled from {corpus}, "
        f"medians of {given.runs} alternating runs, {given.num_proc} processes"
    )
    header = ["", "seconds", "seconds/100,000", "times the plain loop", "peak memory, MB"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
