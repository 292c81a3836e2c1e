"""How often the safety pass is right on our hand-labelled sentences, and how fast it is.

    python benchmarks/safety.py [--misses] [--tiny]

A flag is right where a careful reader raised the same one for that text. The sentences are in
tests/data/safety_sentences.tsv; the rules were mended on part "dev" and only measured on "test".
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompts import Message
from augesc_builder.text.safety import FLAGS, LexiconScanner
from benchmarks.harness import medians_of, options, parse, seconds_of

SENTENCES = Path(__file__).parent.parent / "tests" / "data" / "safety_sentences.tsv"
_ROLES = {"S": "user", "A": "assistant"}


def read_sentences() -> list[tuple[str, set[str], list[Message]]]:
    """Read part, labels and turns of each line."""
    rows = []
    for line in SENTENCES.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        part, labels, text = line.split("\t")
        turns: list[Message] = [
            {"role": _ROLES[turn[0]], "content": turn[3:]} for turn in text.split(" // ")
        ]
        rows.append((part, set(labels.split(",")) - {"-"}, turns))
    return rows


def measure() -> dict[str, dict[str, Counter[str]]]:
    """Count, for each part and flag, what was raised and right, raised and wrong, and missed."""
    scanner = LexiconScanner()
    counts: dict[str, dict[str, Counter[str]]] = {}
    for part, labels, turns in read_sentences():
        raised = {flag.flag for flag in scanner.scan(turns)}
        for name in (part, "all"):
            of_part = counts.setdefault(name, {flag: Counter() for flag in (*FLAGS, "any flag")})
            for flag in FLAGS:
                of_part[flag][_kind(flag in raised, flag in labels)] += 1
            for kind in ("right", "wrong", "missed"):
                of_part["any flag"][kind] = sum(of_part[flag][kind] for flag in FLAGS)
    return counts


def _kind(raised: bool, true: bool) -> str:
    return {(True, True): "right", (True, False): "wrong", (False, True): "missed"}.get(
        (raised, true), "quiet"
    )


def table() -> str:
    """Write precision and recall by flag, for both parts."""
    counts = measure()
    rows = []
    for flag in (*FLAGS, "any flag"):
        cells = [flag]
        for part in ("test", "dev"):
            n = counts[part][flag]
            raised, true = n["right"] + n["wrong"], n["right"] + n["missed"]
            cells += [f"{n['right']} of {raised}", f"{n['right']} of {true}"]
        rows.append(cells)
    head = [f"{what}, {part}" for part in ("test", "dev") for what in ("raised rightly", "found")]
    return markdown_table(["flag", *head], rows)


def main() -> None:
    """Print the table, then sessions and characters a second on the bundled sample."""
    parser = options(__doc__)
    parser.add_argument("--misses", action="store_true", help="print what is wrong in part dev")
    given = parse(parser)
    scanner = LexiconScanner()
    if given.misses:
        for part, labels, turns in read_sentences():
            raised = {flag.flag for flag in scanner.scan(turns)}
            if part == "dev" and raised != labels:
                print(sorted(labels), sorted(raised), [turn["content"] for turn in turns])
    print(table())
    sessions = [list(session.messages) for session in read_sample_sessions()]
    size = sum(len(m["content"]) for session in sessions for m in session)

    def scan() -> float:
        return seconds_of(lambda: [scanner.scan(session) for session in sessions])

    seconds = medians_of({"scan": scan}, given.runs)["scan"]
    print(f"{len(sessions) / seconds:,.0f} sessions a second, {size / seconds / 1e6:.2f} MB/s")


if __name__ == "__main__":
    main()
