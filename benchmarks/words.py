"""Utterances a second through the word counter against NLTK alone, on all of ESConv.

At first sight the counter remembers nothing; the second pass finds most chunks known. Medians of
alternating runs in one process; every utterance's words are compared.

    python benchmarks/words.py [--runs 3] [--esconv FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder, whose statistics.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[1])

import argparse
import statistics
import time
from collections.abc import Callable

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.text import words

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "esconv"


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--esconv", type=Path, default=SHARED)
    arguments = parser.parse_args()
    said = [
        message["content"]
        for file in sorted(arguments.esconv.glob("*.txt"))
        for session in read_esconv(file)
        for message in session.messages
    ]
    rates: dict[str, list[float]] = {"NLTK alone": [], "first sight": [], "second sight": []}
    for _ in range(arguments.runs):
        words.clear_caches()
        ways = (words.tokenize_with_nltk, words.tokenize, words.tokenize)
        for name, way in zip(rates, ways, strict=True):
            rates[name].append(_rate(way, said))
    differ = sum(words.tokenize(text) != words.tokenize_with_nltk(text) for text in said)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    base = medians["NLTK alone"]
    print(f"{len(said):,} utterances, {differ} with other words, {arguments.runs} runs")
    print(
        markdown_table(
            ["one process", "utterances/s", "ratio"],
            [[name, f"{rate:,.0f}", f"{rate / base:.1f}"] for name, rate in medians.items()],
        )
    )


def _rate(way: Callable[[str], list[str]], said: list[str]) -> float:
    begun = time.perf_counter()
    for text in said:
        way(text)
    return len(said) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
