"""Train the classifier of contradictions: whether two utterances of one speaker clash.

    python benchmarks/contradictions.py --out FOLDER [--pairs 9000] [--trainable-layers 12]
        [--decode FILE] [--esconv FOLDER] [--model FOLDER] [--tiny]

FILE has columns ``seg1`` and ``seg2`` of utterances that contradict each other, as DECODE (Nie et
al. 2021) does. The first model is FOLDER, or the quickstart's, whose package has to be installed.
What comes out is ``FOLDER/training/model-first``: a classifier of transformers with the labels
``contradiction`` and ``no_contradiction``, for pairs of one speaker's utterances.

What pairs it learns stands in ``contradiction_pairs.py``. What part of the pairs was used is
printed, and how well those held out are told, beside the words that the two share and their number.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from itertools import permutations, product
from pathlib import Path

import numpy as np

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.recipe import load_recipe
from augesc_builder.config.training import Config, load_config
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.models.sequence_classifier import SequenceClassifier
from augesc_builder.run.markdown import markdown_table
from augesc_builder.run.progress import Progress
from augesc_builder.sources import sample
from augesc_builder.training.run import train
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
    parser.add_argument("--pairs", type=int, default=24000, help="that are trained on")
    parser.add_argument(
        "--trainable-layers", type=int, default=18, help="of the model's upper ones"
    )
    parser.add_argument("--pairs-only", action="store_true", help="train nothing")
    parser.add_argument("--set", action="append", default=[], help="of the training's config")
    given = parse(parser, pairs=120, trainable_layers=1)
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        if given.tiny:
            given.decode, given.esconv, given.model = stand_ins(Path(temporary))
        files = write_pairs(given, out)
        if given.pairs_only:
            return
        start = given.model or plain_checkpoint(out / "start")
        train(training_config(given, files, start), out / "training", Progress())
        judge(out, files["held_out"])


def write_pairs(given: argparse.Namespace, out: Path) -> dict[str, Path]:
    """Write the pairs of each part and print how many of what they are; return the files."""
    decode, of_kind = read_decode(given.decode), {}
    sessions = {"training": "train.txt", "validation": "valid.txt", "held_out": "test.txt"}
    sizes = {"training": given.pairs, "validation": min(800, given.pairs // 20), "held_out": min(2400, given.pairs // 6)}
    files = {part: out / f"{part}.tsv" for part in PARTS}
    out.mkdir(parents=True, exist_ok=True)
    for part, path in files.items():
        ours = [row for row in decode if part_of(row.first) == part]
        pairs = make_part(sizes[part], ours, of_sessions([given.esconv / sessions[part]]), part)
        lines = [f"{e.first}\t{e.second}\t{e.label}\t{e.first}\t{e.kind}\n" for e in pairs]
        text = "text\ttext_pair\tlabel\tgroup\tkind\n" + "".join(lines)
        path.write_text(text, encoding="utf-8")
        of_kind[part] = Counter(pair.kind for pair in pairs)
    used = of_kind["training"]["decode"] / max(1, len(decode))
    print(f"{100 * used:.0f} % of {len(decode):,} contradictions are trained on")
    rows = [[kind, *(f"{of_kind[part][kind]:,}" for part in PARTS)] for kind in SHARES]
    print(markdown_table(["kind", *(part.replace("_", " ") for part in PARTS)], rows))
    return files


def training_config(given: argparse.Namespace, files: dict[str, Path], start: Path) -> Config:
    """Return the config of the training."""
    every = max(2, given.pairs // 64 // 8)
    settings = {
        "name": "contradictions",
        "about": "A classifier of whether a speaker contradicts what they said before.",
        "model.name": start,
        "model.trainable_layers": given.trainable_layers,
        "data.validation": [str(files["validation"])],
        "phases.first.sessions": [str(files["training"])],
        "phases.first.epochs": 1,
        "phases.first.learning_rate": 1.2e-4,
        "phases.first.warmup_steps": 30,
        "examples.max_source_tokens": 96,
        "train.batch_size": 64,
        "train.evaluate_every": every,
        "train.patience": "null",
        "machine.micro_batch_size": 16,
        "machine.save_every": every,
        "machine.trackers": "[]",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return load_config("strategies", [*overrides, *given.set])


def judge(out: Path, held_out: Path) -> None:
    """Print how well the model tells contradictions from each kind of negatives."""
    lines = held_out.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    pairs = [Example(row[0], row[1], row[4]) for row in rows]
    classifier = SequenceClassifier(str(out / "training" / "model-first"))
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
