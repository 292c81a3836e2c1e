"""Small studies of corpora that are written for them, and people who do what they are asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from augesc_builder.human_evaluation.create import create
from augesc_builder.human_evaluation.settings import load_settings
from augesc_builder.human_evaluation.store import Store
from augesc_builder.human_evaluation.study import Study
from augesc_builder.run.progress import Progress

QUIET = Progress(quiet=True)


class Clock:
    """A clock that stands still until it is set on."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def corpus(path: Path, n: int, word: str = "low", turns: int = 2) -> Path:
    """Write ``n`` sessions as JSON lines."""
    lines = []
    for i in range(n):
        said = []
        for turn in range(turns):
            said.append({"role": "user", "content": f"I feel {word} {i}, {turn}."})
            said.append({"role": "assistant", "content": f"I hear you, {word} {i}, {turn}."})
        lines.append(json.dumps({"messages": said}) + "\n")
    path.write_text("".join(lines))
    return path


def make_study(
    folder: Path, *overrides: str, sets: tuple[str, ...] = ("A", "B", "C"), n: int = 8
) -> Study:
    """Create a study of small corpora beside ``folder``."""
    corpora: Mapping[str, str] = {
        name: str(corpus(folder.parent / f"{name}.jsonl", n, name)) for name in sets
    }
    given = ["sessions=4", "per_person=4", "ratings=3", *overrides]
    return create(load_settings("quality", given), corpora, folder, QUIET)


def enter(store: Store, annotator: str) -> None:
    """Bring somebody to where they get a place."""
    store.arrive(annotator)
    store.consent(annotator, "consent")
    questions = store.study.settings.comprehension.questions
    right = {i: question.right for i, question in enumerate(questions)}
    assert store.comprehension(annotator, right, "check") == "passed"


def rate(
    store: Store,
    annotator: str,
    item: str,
    option: Callable[[str], int] = lambda key: 2,
    submission: str | None = None,
) -> bool:
    """Answer all that is asked about an item; checks of attention rightly."""
    place = store.progress(annotator).place
    check = None if place is None else place.checks.get(item)
    answers = {
        slot.key: check if slot.key == "attention_check" else option(slot.key)
        for slot in store.study.slots(item, check)
    }
    return store.answer(annotator, item, answers, submission)


def rate_all(store: Store, option: Callable[[str], int] = lambda key: 2) -> None:
    """Let everybody who has a link do all of it."""
    for annotator in store.study.tokens.links:
        enter(store, annotator)
        place = store.assign(annotator)
        for item in place.items:
            rate(store, annotator, item, option)
