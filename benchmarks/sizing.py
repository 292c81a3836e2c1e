"""What corpora of 100 thousand to 100 million sessions take: pure arithmetic over named inputs.

What an input is (measured here, published elsewhere, or only computed) stands beside it. Whoever
has measured better gives the figure on the command line.

    python benchmarks/sizing.py [--tokens-a-second-gpu 6000] [--kept-share 0.5] ...
"""

from __future__ import annotations

from typing import NamedTuple

from augesc_builder.run.markdown import markdown_table
from benchmarks.harness import options, parse

SESSIONS = (100_000, 1_000_000, 100_000_000)


class Input(NamedTuple):
    """A figure, what it is of, and where it is from."""

    value: float
    about: str
    source: str


def gptj_rate(slots: int = 128, tokens: int = 400, bandwidth: float = 3.35e12) -> float:
    """Return tokens a second of GPT-J-6B in bfloat16, were half of the memory's speed reached.

    A step reads all weights, and the keys and values of every row; ``tokens`` is how many of them
    a row has on average. ``bandwidth`` is in bytes a second.
    """
    weights = 6.05e9 * 2
    cache = slots * tokens * 28 * 2 * 4096 * 2
    return slots * 0.5 * bandwidth / (weights + cache)


INPUTS = {
    "kept_share": Input(0.491, "texts that are kept", "published, of GPT-J over ED's queries"),
    "tokens_a_text": Input(780, "tokens of a text", "measured: ESConv's in GPT-J's tokens"),
    "tokens_a_second_gpu": Input(
        round(gptj_rate(), -2),
        "tokens a second of GPT-J-6B on a GPU of 3.35 TB/s",
        "computed: half of the memory's speed, 128 slots; not measured",
    ),
    "tokens_a_second_cpu": Input(
        1264, "tokens a second of SmolLM2-135M on two cores", "measured: the quickstart"
    ),
    "rows_a_shard": Input(256, "rows of a shard", "the paper's recipe"),
    "bytes_a_text": Input(2170, "bytes of a text in Parquet", "measured: 1,153 for 414 tokens"),
    "bytes_a_session": Input(2110, "bytes of a kept session", "measured: 1,120 for 414 tokens"),
    "bytes_a_mark": Input(800, "bytes of a mark", "measured"),
    "writes_a_shard": Input(3, "writes a shard and stage: file, mark, copy", "computed"),
    "reads_a_shard": Input(6, "other requests: three looks, a removal, two reads", "computed"),
    "stages": Input(2, "stages over shards: generate and filter", "computed"),
}
"""Bytes grow with tokens: they are those of the quickstart's texts, times 780 / 414."""


def needs(n_sessions: int, given: dict[str, float]) -> dict[str, str]:
    """Return what so many kept sessions take, by the names of rows."""
    texts = n_sessions / given["kept_share"]
    tokens = texts * given["tokens_a_text"]
    shards = -(-texts // given["rows_a_shard"])
    marks = shards * given["stages"]
    rejected = texts - n_sessions
    written = texts * given["bytes_a_text"] + marks * given["bytes_a_mark"]
    written += n_sessions * given["bytes_a_session"] + rejected * given["bytes_a_text"]
    read = texts * given["bytes_a_text"] + 2 * marks * given["bytes_a_mark"]
    hours = tokens / given["tokens_a_second_gpu"] / 3600
    cpu = tokens / given["tokens_a_second_cpu"] / 3600
    return {
        "texts to generate": _round(texts),
        "tokens": _round(tokens),
        "shards": f"{shards:,.0f}",
        "GPU hours, GPT-J-6B (computed)": f"{hours:,.0f}",
        "hours on 16 such GPUs (computed)": f"{hours / 16:,.1f}",
        "hours of two cores, as many tokens of SmolLM2-135M": f"{cpu:,.0f}",
        "storage, GB": f"{written / 1e9:,.1f}",
        "network, workers and store, GB": f"{(2 * written + read) / 1e9:,.1f}",
        "writes to the store": f"{marks * given['writes_a_shard']:,.0f}",
        "other requests": f"{marks * given['reads_a_shard']:,.0f}",
    }


def _round(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,.0f}"


def main() -> None:
    """Print what goes in, and what comes out."""
    parser = options(__doc__, runs=1)
    for name, figure in INPUTS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=figure.value, help=figure.about
        )
    given = vars(parse(parser))
    rows = [
        [
            each.about,
            f"{given[name]:,.0f}" if given[name] >= 1 else f"{given[name]:.1%}",
            each.source if given[name] == each.value else "given",
        ]
        for name, each in INPUTS.items()
    ]
    print(markdown_table(["input", "figure", "from"], rows))
    print()
    columns = [needs(n, given) for n in SESSIONS]
    header = ["kept sessions", *(f"{n:,}" for n in SESSIONS)]
    print(markdown_table(header, [[name, *(c[name] for c in columns)] for name in columns[0]]))


if __name__ == "__main__":
    main()
