"""What the signs of danger find and what they raise falsely, in the notice of a chat and as flags.

    python benchmarks/danger.py [--misses] [--tiny]

Lists in tests/data say by whom they were written. The false alarms are those on the first words of
500 seekers of ESConv, drawn with a seed, and on all words of those sessions; Dreaddit's posts are
real, and the subreddit says what they are about. Both corpora are in ../shared/data.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.base import BadLines, Post
from augesc_builder.sources.esconv import read_esconv
from augesc_builder.sources.reddit import parse_posts, read_posts
from augesc_builder.text.danger import KINDS
from augesc_builder.text.prompts import Message
from augesc_builder.text.safety import DangerScanner, LexiconScanner
from benchmarks.harness import SHARED, options, parse

DATA = Path(__file__).parent.parent / "tests" / "data"
NOTICE_LISTS = tuple(f"danger_{name}.tsv" for name in ("dev", "heldout", "second", "third"))
FLAGS_LIST = "danger_flags_heldout.tsv"
N_SEEKERS, SEED = 500, 13

ABUSE = ("domesticviolence", "survivorsofabuse")
OTHER = ("assistance", "food_pantry", "homeless", "almosthomeless", "stress")
_ROLES = {"S": "user", "A": "assistant"}
_OF_DANGER = {"crisis", "abuse", "sexual_violence", "eating_disorder"}
_FLAG = {"suicide": "crisis", "self_harm": "crisis"}


def read_list(name: str) -> list[list[str]]:
    """Read the lines of a list as its fields, the label first."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def noticed(text: str) -> bool:
    """Whether the notice of a chat comes for what a person writes."""
    return bool(_NOTICE.scan([{"role": "user", "content": text}]))


def flags_of(text: str, role: str = "user") -> set[str]:
    """Return the flags of danger that the safety pass raises for an utterance."""
    found = _FLAGS.scan([{"role": role, "content": text}])
    return {flag.flag for flag in found} & _OF_DANGER


_NOTICE, _FLAGS = DangerScanner(), LexiconScanner()


def notice_table() -> str:
    """Write how many statements of each list the notice comes for, by kind."""
    lists = [read_list(name) for name in NOTICE_LISTS]
    rows = []
    for kind in (*KINDS, "all danger", "none"):
        cells = [kind]
        for lines in lists:
            texts = [t for k, t in lines if k == kind or (kind == "all danger" and k != "none")]
            cells.append(f"{sum(map(noticed, texts))} of {len(texts)}")
        rows.append(cells)
    return markdown_table(["noticed", *NOTICE_LISTS], rows)


def flags_table() -> str:
    """Write how many utterances carry the right flag, by kind and role."""
    rows = []
    lines = read_list(FLAGS_LIST)
    for kind in dict.fromkeys(line[0] for line in lines):
        cells = [f"{kind}, flag"]
        for role in "SA":
            found = [flags_of(text, _ROLES[role]) for k, r, text in lines if (k, r) == (kind, role)]
            right = [f for f in found if (f if kind == "none" else _FLAG.get(kind, kind) in f)]
            cells.append(f"{len(right)} of {len(found)}")
        rows.append(cells)
    return markdown_table(["flagged", "seeker", "supporter"], rows)


def flagged(name: str) -> tuple[int, int]:
    """Count how many statements of a list carry any flag of danger, of those that should."""
    texts = [text for kind, text in read_list(name) if _FLAG.get(kind, kind) in _OF_DANGER]
    return sum(bool(flags_of(text)) for text in texts), len(texts)


def flags_recall() -> tuple[int, int]:
    """Count how many utterances of the three kinds with a flag of their own carry it, of how many.

    They are those of both held-out lists.
    """
    lines = [(k, r, t) for k, r, t in read_list(FLAGS_LIST) if k in _OF_DANGER]
    lines += [(k, "S", t) for k, t in read_list(NOTICE_LISTS[1]) if k in _OF_DANGER]
    return sum(kind in flags_of(text, _ROLES[role]) for kind, role, text in lines), len(lines)


def seekers() -> list[list[Message]]:
    """Draw the sessions of 500 seekers of ESConv, all splits."""
    files = [SHARED / "esconv" / f"{split}.txt" for split in ("train", "valid", "test")]
    sessions = [list(session.messages) for file in files for session in read_esconv(file)]
    return random.Random(SEED).sample(sessions, N_SEEKERS)


def false_alarms(drawn: Sequence[Sequence[Message]]) -> str:
    """Say how often the notice comes for ordinary seekers."""
    said = [[m["content"] for m in session if m["role"] == "user"] for session in drawn]
    first = sum(noticed(texts[0]) for texts in said)
    some = sum(any(map(noticed, texts)) for texts in said)
    utterances = [text for texts in said for text in texts]
    n = sum(map(noticed, utterances))
    return (
        f"{first} of {len(said)} first utterances, {n:,} of all {len(utterances):,} utterances, "
        f"and at least one in {some} of {len(said)} sessions"
    )


def reddit_table() -> str:
    """Write the share of Dreaddit's posts with a flag of abuse or sexual violence."""
    file = SHARED / "reddit" / "RS_dreaddit_train.zst"
    parsed = [post for raw in read_posts(file, BadLines()) for post in parse_posts(raw)]
    rows = []
    for names in (ABUSE, OTHER):
        texts = [p.text for p in parsed if isinstance(p, Post) and p.subreddit in names]
        found = [flags_of(text) for text in texts]
        abuse = sum(bool(f & {"abuse", "sexual_violence"}) for f in found)
        rows.append([", ".join(names), f"{len(texts):,}", f"{abuse / len(texts):.0%}"])
    return markdown_table(["posts of r/", "posts", "flagged"], rows)


def main() -> None:
    """Print all tables; with ``--misses`` what is wrong on the list for development."""
    parser = options(__doc__)
    parser.add_argument("--misses", action="store_true", help="print what is wrong in danger_dev")
    given = parse(parser)
    if given.misses:
        for label, text in read_list("danger_dev.tsv"):
            if noticed(text) == (label == "none"):
                print(f"{label}: {text}")
    found, n = flags_recall()
    print(f"{notice_table()}\n\n{flags_table()}\n")
    print(f"Abuse, sexual violence and eating disorders: {found} of {n}.")
    if given.tiny or not SHARED.is_dir():
        return
    print(f"\nOrdinary seekers: {false_alarms(seekers())}.\n\n{reddit_table()}")


if __name__ == "__main__":
    main()
