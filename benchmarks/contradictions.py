"""Train the classifier of contradictions: whether two utterances of one speaker clash.

    python benchmarks/contradictions.py --out FOLDER [--pairs 40000] [--minutes 45]
        [--layers 22] [--trainable-layers 14] [--decode FILE] [--esconv FOLDER] [--model FOLDER]

FILE has columns ``seg1`` and ``seg2`` of utterances that contradict each other, as DECODE (Nie et
al. 2021) does. The first model is FOLDER, or the quickstart's, whose package has to be installed.
What comes out is ``FOLDER/model``: a classifier of transformers with the labels ``contradiction``
and ``no_contradiction``, for pairs of one speaker's utterances.

What pairs it learns stands in ``contradiction_pairs.py``, how in ``contradiction_training.py``.
What part of the pairs was used is printed, and how well those held out are told, beside the words
that the two share and their number.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.recipe import load_recipe
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.models.sequence_classifier import SequenceClassifier
from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources import sample
from benchmarks.contradiction_pairs import (
    CLASH,
    PARTS,
    SHARES,
    Example,
    make_part,
    of_sessions,
    overlap,
    part_of,
    read_decode,
)
from benchmarks.contradiction_training import Plan, train
from benchmarks.harness import SHARED, options, parse

TINY = FromScratch(vocab_size=400, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=256)
THINGS = "dogs cats sisters brothers cars books friends jobs houses bikes"
PLACES = "town school work home church college hospital market"


def main() -> None:
    """Make the pairs, train, and print what the held-out part says."""
    parser = options(__doc__)
    quality = SHARED / "quality" / "decode_contradictions.tsv"
    parser.add_argument("--out", type=Path, help="a folder for pairs and model")
    parser.add_argument("--decode", type=Path, default=quality)
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    parser.add_argument("--model", type=Path, help="a checkpoint folder to start from")
    parser.add_argument("--pairs", type=int, default=40000, help="that are there to train on")
    parser.add_argument("--minutes", type=float, default=45, help="that training takes at most")
    parser.add_argument("--layers", type=int, default=22, help="lower ones that are kept; 0: all")
    parser.add_argument("--trainable-layers", type=int, default=14, help="of those, the upper ones")
    parser.add_argument("--pairs-only", action="store_true", help="train nothing")
    given = parse(parser, pairs=120, layers=0, trainable_layers=1)
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        if given.tiny:
            given.decode, given.esconv, given.model = stand_ins(Path(temporary))
        parts = make_parts(given, out)
        if given.pairs_only:
            return
        start = given.model or plain_checkpoint(out / "start")
        plan = Plan(given.minutes, given.layers or None, given.trainable_layers)
        trained = train(start, parts["training"], parts["validation"], out / "model", plan)
        used = Counter(pair.kind for pair in parts["training"][: trained.pairs])["decode"]
        print(
            f"trained on {trained.pairs:,} pairs in {trained.minutes:.0f} minutes, among them "
            f"{used:,} of DECODE ({used / given.n_decode:.0%} of all); "
            f"validation loss {trained.validation_loss:.3f}"
        )
        judge(out / "model", parts["held_out"])


def make_parts(given: argparse.Namespace, out: Path) -> dict[str, list[Example]]:
    """Make and write the pairs of each part, and print how many of what they are."""
    decode = read_decode(given.decode)
    given.n_decode = max(1, len(decode))
    sessions = {"training": "train.txt", "validation": "valid.txt", "held_out": "test.txt"}
    most = {"training": given.pairs, "validation": 600, "held_out": 2400}
    parts = {}
    out.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        ours = [row for row in decode if part_of(row.first) == part]
        near = of_sessions([given.esconv / sessions[part]])
        parts[part] = make_part(min(given.pairs, most[part]), ours, near, part)
        lines = [f"{e.first}\t{e.second}\t{e.label}\t{e.kind}\n" for e in parts[part]]
        text = "text\ttext_pair\tlabel\tkind\n" + "".join(lines)
        (out / f"{part}.tsv").write_text(text, encoding="utf-8")
    of_kind = {part: Counter(pair.kind for pair in pairs) for part, pairs in parts.items()}
    rows = [[kind, *(f"{of_kind[part][kind]:,}" for part in PARTS)] for kind in SHARES]
    print(markdown_table(["kind", *(part.replace("_", " ") for part in PARTS)], rows), flush=True)
    return parts


def judge(folder: Path, pairs: Sequence[Example]) -> None:
    """Print how well a model tells contradictions from each kind of negatives."""
    classifier = SequenceClassifier(str(folder))
    found = classifier.probabilities([(pair.first, pair.second) for pair in pairs])
    scores = {
        "this model": found[:, classifier.labels.index(CLASH)],
        "shared words": np.array([overlap(pair) for pair in pairs]),
        "number of words": np.array([len(pair.second.split()) for pair in pairs], float),
    }
    kinds = np.array([pair.kind for pair in pairs])
    clash = np.array([pair.label == CLASH for pair in pairs])
    table = []
    for positive, negative in (
        *(("decode", kind) for kind in SHARES if kind not in {"decode", "turned copy"}),
        *(("turned copy", "copy"), ("all", "all")),
    ):
        chosen = (kinds == positive) | (kinds == negative) | (positive == "all")
        aucs = [auc(score[chosen], clash[chosen]) for score in scores.values()]
        table.append([f"{positive} against {negative}", f"{chosen.sum():,}", *map(_two, aucs)])
    print("AUC on the held-out part")
    print(markdown_table(["", "pairs", *scores], table))


def auc(scores: np.ndarray, is_positive: np.ndarray) -> float | None:
    """Return how often a positive has the higher score (ties count half); ``None`` without both."""
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    if not len(positive) or not len(negative):
        return None
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(
        negative, positive, "right"
    )
    return float(below.mean() / 2 / len(negative))


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plain_checkpoint(folder: Path) -> Path:
    """Save the quickstart's model as a plain checkpoint, once."""
    if not folder.exists():
        origin = load_recipe("quickstart").backbone
        model, tokenizer = causal_lm.load(place_of(origin), revision=None, dtype="float32")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def stand_ins(folder: Path) -> tuple[Path, Path, Path]:
    """Write made-up contradictions, the sample as ESConv's files, and a model of random weights."""
    things, places = (words.split() for words in (THINGS, PLACES))
    rows = [
        f"I have {n} {thing} near the {place}\tI never had any {thing} at the {other}\n"
        for n, thing, (place, other) in product(range(2, 5), things, permutations(places, 2))
    ]
    decode = folder / "decode.tsv"
    decode.write_text("seg1\tseg2\n" + "".join(rows), encoding="utf-8")
    for name in ("train.txt", "valid.txt", "test.txt"):
        shutil.copy(sample.SESSIONS, folder / name)
    texts = [m["content"] for session in sample.read_sample_sessions() for m in session.messages]
    model, tokenizer = causal_lm.from_scratch(TINY, texts, 1)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return decode, folder, folder / "model"


if __name__ == "__main__":
    main()
