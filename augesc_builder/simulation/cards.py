"""Role cards: whom a model plays, by what seekers of ESConv said of their trouble beforehand.

Cards hold people's real distress. They are read from the user's copy of the corpus, and nothing of
them is kept but their ids, kinds of problem and emotions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from augesc_builder.config.training import Data, load_config
from augesc_builder.dialog.examples import of_sample_split, session_files
from augesc_builder.errors import InputError
from augesc_builder.readers.jsonl import json_of, read_json_rows
from augesc_builder.readers.records import BadLines, parse_each
from augesc_builder.simulation.settings import Cards
from augesc_builder.sources import sample
from augesc_builder.text.prompts import collapse

UNKNOWN = "not said"
"""Stands in a prompt for what a card does not tell."""

_SLOT = re.compile(r"\{(problem_type|emotion|situation)\}")


@dataclass(frozen=True)
class Card:
    """Whom a seeker is: ``situation`` in their own words, and what kind of problem and emotion."""

    card_id: str
    situation: str
    problem_type: str | None = None
    emotion: str | None = None

    def fill(self, prompt: str) -> str:
        """Return a prompt with the card's words in the place of its slots; these are text alone."""
        known = {
            "problem_type": self.problem_type or UNKNOWN,
            "emotion": self.emotion or UNKNOWN,
            "situation": self.situation,
        }
        return _SLOT.sub(lambda slot: known[slot[1]], prompt)


def card_files(settings: Cards) -> list[Path]:
    """Return the local files that cards are read from; ESConv's may be downloaded.

    Raises :class:`~augesc_builder.errors.InputError` where there is no such split or file.
    """
    return session_files(settings.path, _data(settings))


def read_cards(settings: Cards, seed: int) -> list[Card]:
    """Read the cards, or as many as the limit, drawn by the seed; in the order of the file.

    Raises :class:`~augesc_builder.errors.InputError` with file and line, for a card without a
    situation too, and where two have one id.
    """
    cards: list[Card] = []
    for path in card_files(settings):
        bad = BadLines(strict=True)
        lines = read_json_rows(path, bad.limits)
        cards += bad.good(parse_each(lines, partial(_card, path), path))
    name, _, split = settings.path.partition(":")
    if name == sample.INFO.name and split:
        cards = of_sample_split(cards, split)
    if not cards:
        raise InputError("holds no role card; give a file with a card a line", settings.path)
    _check_ids(cards, settings.path)
    if settings.limit is None or settings.limit >= len(cards):
        return cards
    drawn = random.Random(f"{seed}/cards").sample(range(len(cards)), settings.limit)
    return [cards[i] for i in sorted(drawn)]


def _data(settings: Cards) -> Data:
    known = {
        "esconv_folder": settings.esconv_folder,
        "esconv_revision": settings.esconv_revision,
    }
    return load_config("esconv").data.model_copy(update=known)


def _card(path: Path, line: bytes, number: int) -> Card:
    value = json_of(line, path, number)
    if not isinstance(value, dict):
        raise InputError(
            f"expected an object with a situation, found {str(value)[:80]}", path, number
        )
    found: dict[str, str | None] = {}
    for name in ("situation", "problem_type", "emotion_type", "card_id"):
        given = value.get(name)
        if not isinstance(given, str | None):
            raise InputError(f"{name!r} must be a text, found {str(given)[:80]}", path, number)
        found[name] = collapse(given or "") or None
    if found["situation"] is None:
        raise InputError(
            "a role card without a situation; give 'situation' a text (what the person is in), or "
            "remove the line",
            path,
            number,
        )
    return Card(
        found["card_id"] or f"{path.stem}-{number}",
        found["situation"],
        _lower(found["problem_type"]),
        _lower(found["emotion_type"]),
    )


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _check_ids(cards: Sequence[Card], path: Any) -> None:
    seen: set[str] = set()
    for card in cards:
        if card.card_id in seen:
            raise InputError(f"two cards are called {card.card_id!r:.80}; name one anew", path)
        seen.add(card.card_id)
