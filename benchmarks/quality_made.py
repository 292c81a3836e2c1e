"""Small made data in the forms of the real ones: they show that the benchmark works, no more."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

PLANTED_FILE, ABCEVAL_FILE = "planted_dev.tsv", "abceval_dev.json"
FED_FILE, LEND_AN_EAR_FILE = "fed.json", "lend_an_ear_dev.json"
ESCONV_FILE = "train.txt"

BEHAVIORS = ("self contradiction", "irrelevant", "redundant")
FED_TURN, FED_DIALOG = ("Relevant",), ("Consistent", "Coherent", "Informative")
SURVEY = ("empathy", "relevance")
_THINGS = ("dog", "sister", "job", "car", "garden", "brother", "landlord", "exam")


def _sentence(rng: random.Random) -> str:
    thing, n = rng.choice(_THINGS), rng.randint(2, 40)
    ends = ("and I am worried", "since last year", "but only Anna knows", "so I cannot sleep")
    if rng.random() < 0.3:
        return f"Is your {thing} {n} years old?"
    return f"My {thing} is {n} years old {rng.choice(ends)}" + " now" * rng.randint(0, 6) + "."


def _lines(rng: random.Random, n: int) -> list[str]:
    return [_sentence(rng) for _ in range(n)]


def make(folder: Path, n: int, seed: int = 1) -> None:
    """Write ``n`` dialogs of each kind into a folder."""
    rng = random.Random(seed)
    planted: list[str] = []
    for i in range(n):
        said = _lines(rng, 5)
        planted.append("\t".join(["original", f"made-{i}", *said]))
        said[-1] = said[-3].replace(" is ", " is not ")
        planted.append("\t".join(["contradiction", f"made-{i}", *said]))
    (folder / PLANTED_FILE).write_text("\n".join(planted) + "\n", encoding="utf-8")
    _write(
        folder / ABCEVAL_FILE,
        {f"({i},1)_made{i % 2}": [_turn(rng) for _ in range(4)] for i in range(n)},
    )
    _write(folder / FED_FILE, [entry for _ in range(n) for entry in _fed(rng)])
    _write(folder / LEND_AN_EAR_FILE, [_support(rng, f"made-{i}") for i in range(n)])
    lines = [json.dumps(_session(rng)) for _ in range(n)]
    (folder / ESCONV_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _turn(rng: random.Random) -> dict[str, Any]:
    user, system = _lines(rng, 2)
    behaviors = {}
    for name in BEHAVIORS:
        so = rng.random() < 0.4
        human = [int(so), int(so if rng.random() < 0.8 else not so)]
        behaviors[name] = {"human": human, "gpt": rng.randint(0, 1)}
    return {"user": user, "system": system, "behaviors": behaviors}


def _fed(rng: random.Random) -> list[dict[str, Any]]:
    said = [f"{'User' if i % 2 == 0 else 'System'}: {x}" for i, x in enumerate(_lines(rng, 6))]
    turn = {"context": "\n".join(said[:3]), "response": said[3], "system": "made"}
    whole = {"context": "\n".join(said), "system": "made"}
    return [
        {**turn, "annotations": {name: _rated(rng, 5) for name in FED_TURN}},
        {**whole, "annotations": {name: _rated(rng, 5) for name in FED_DIALOG}},
    ]


def _rated(rng: random.Random, raters: int) -> list[int]:
    middle = rng.randint(0, 2)
    return [min(2, max(0, middle + rng.choice((-1, 0, 0, 1)))) for _ in range(raters)]


def _support(rng: random.Random, name: str) -> dict[str, Any]:
    said = [f"{'Seeker' if i % 2 == 0 else 'Supporter'}: {x}" for i, x in enumerate(_lines(rng, 4))]
    raters = ("expert1", "expert2", "expert3", "crowd", "gpt")
    level = rng.randint(1, 5)
    annotations = [
        {rater: {"advice_giving": float(min(5, max(1, level + rng.choice((-1, 0, 1)))))}}
        for rater in raters
    ]
    return {
        "conversation_id": name,
        "conversation": "\n".join(said),
        "annotations": annotations,
    }


def _session(rng: random.Random) -> dict[str, Any]:
    dialog = [
        {"speaker": ("usr", "sys")[i % 2], "text": text}
        for i, text in enumerate(_lines(rng, rng.randint(4, 8)))
    ]
    survey = {"seeker": {name: str(rng.randint(3, 5)) for name in SURVEY}}
    return {"problem_type": "made", "survey_score": survey, "dialog": dialog}
