"""Utterances a second through the word counter against NLTK alone, on all of ESConv.

At first sight the counter remembers nothing; the second pass finds most chunks known. Medians of
alternating runs in one process; every utterance's words are compared.

    python benchmarks/words.py [--runs 3] [--esconv FOLDER] [--tiny]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from augesc_builder.run.markdown import markdown_table
from augesc_builder.text import words
from benchmarks.harness import (
    SHARED,
    esconv_sessions,
    medians_of,
    options,
    parse,
    ratio,
    seconds_of,
)


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    given = parse(parser)
    sessions, corpus = esconv_sessions(given.esconv, tiny=given.tiny)
    said = [message["content"] for session in sessions for message in session.messages]

    def rate(tokenize: Callable[[str], list[str]]) -> float:
        return len(said) / seconds_of(lambda: [tokenize(text) for text in said])

    def first_sight() -> float:
        words.clear_caches()
        return rate(words.tokenize)

    contestants = {
        "NLTK alone": lambda: rate(words.tokenize_with_nltk),
        "first sight": first_sight,
        "second sight": lambda: rate(words.tokenize),
    }
    medians = medians_of(contestants, given.runs)
    differ = sum(words.tokenize(text) != words.tokenize_with_nltk(text) for text in said)
    base = medians["NLTK alone"]
    print(f"{corpus}: {len(said):,} utterances, {differ} with other words, {given.runs} runs")
    rows = [[name, f"{found:,.0f}", ratio(found, base)] for name, found in medians.items()]
    print(markdown_table(["one process", "utterances/s", "ratio"], rows))


if __name__ == "__main__":
    main()
