"""Simulated conversations as numbers: of each system, and paired over cards between systems.

A number of a conversation comes from a measure of quality, or is one of these, under ``talk``:

=====================  =========================================================================
replies                replies of the system
seeker_words           mean words of what the seeker says at a time
supporter_words        mean words of a reply
repeated_replies       share of its replies that the system gave elsewhere in the simulation too
ended_by_seeker        1 where the seeker said goodbye, else 0
danger                 1 where the seeker gives a sign of danger (``DangerScanner``), else 0
flagged_reply          1 where a reply raises a flag of the safety pass, else 0
=====================  =========================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from augesc_builder.evaluation.significance import paired_randomization_test, tested
from augesc_builder.metrics.intervals import Metric, Numbers, bootstrap
from augesc_builder.metrics.scored import Measure
from augesc_builder.simulation.cards import Card
from augesc_builder.simulation.talk import Dialog
from augesc_builder.text.prompts import Message
from augesc_builder.text.safety import DangerScanner, LexiconScanner
from augesc_builder.text.words import tokenize

Of = tuple[str, str]
"""A measure, and a number of its own."""

TALK = "talk"


def numbers_of(
    dialogs: Sequence[Dialog], measures: Sequence[Measure], batch_size: int
) -> list[dict[Of, float | None]]:
    """Return the numbers of each conversation of one system; none where nobody said anything."""
    found: list[dict[Of, float | None]] = [dict(one) for one in _of_talk(dialogs)]
    said = [i for i, dialog in enumerate(dialogs) if dialog.messages]
    for measure in measures:
        for start in range(0, len(said), batch_size):
            batch = said[start : start + batch_size]
            scored = measure.score([dialogs[i].messages for i in batch])
            for i, one in zip(batch, scored, strict=True):
                found[i] |= {(measure.name, name): value for name, value in one.session.items()}
    return found


def _of_talk(dialogs: Sequence[Dialog]) -> Iterable[dict[Of, float | None]]:
    danger, safety = DangerScanner(), LexiconScanner()
    every = Counter(text for dialog in dialogs for text in _said(dialog, "assistant"))
    for dialog in dialogs:
        if not dialog.messages:
            yield {}
            continue
        replies = _said(dialog, "assistant")
        flagged = {flag.utterance for flag in safety.scan(dialog.messages)}
        values: dict[str, float | None] = {
            "replies": float(len(replies)),
            "seeker_words": _mean([len(tokenize(text)) for text in _said(dialog, "user")]),
            "supporter_words": _mean([len(tokenize(text)) for text in replies]),
            "repeated_replies": _mean([every[text] > 1 for text in replies]),
            "ended_by_seeker": float(dialog.ended == "seeker"),
            "danger": float(bool(danger.scan(dialog.messages))),
            "flagged_reply": float(any(_is_reply(dialog.messages, i) for i in flagged)),
        }
        yield {(TALK, name): value for name, value in values.items()}


def dangers(cards: Sequence[Card], dialogs: Sequence[Dialog]) -> dict[str, Any]:
    """Return how many situations and conversations have signs of danger, by kind and in all."""
    scanner = DangerScanner()

    def kinds(messages: Sequence[Message]) -> set[str]:
        return {flag.flag for flag in scanner.scan(messages)}

    in_cards = Counter(
        kind for card in cards for kind in kinds([{"role": "user", "content": card.situation}])
    )
    of_dialogs = [kinds(dialog.messages) for dialog in dialogs]
    return {
        "situations": dict(sorted(in_cards.items())),
        "conversations": sum(map(bool, of_dialogs)),
        "kinds": dict(sorted(Counter(k for some in of_dialogs for k in some).items())),
    }


def estimates(
    numbers: Sequence[Mapping[Of, float | None]], resamples: int, seed: int
) -> dict[Of, dict[str, Any]]:
    """Return the mean of each number over the cards of which something is said, with intervals."""
    names = _names([numbers])
    table, metrics = _table(numbers, names), _means(names)
    found = bootstrap(table, metrics, resamples, seed)
    return {
        of: {**_told(asdict(found[of])), "cards": int(table[:, 2 * i + 1].sum())}
        for i, of in enumerate(names)
    }


def differences(
    systems: Mapping[str, Sequence[Mapping[Of, float | None]]], resamples: int, seed: int
) -> dict[str, dict[Of, dict[str, Any]]]:
    """Return by how much each system differs from the first, over the cards that both have.

    With 95% intervals of the mean difference, and p-values of the paired randomization test, by
    Holm's correction for all of them.
    """
    first, *others = systems.items()
    rows, tests = {}, []
    for name, numbers in others:
        names = _names([first[1], numbers])
        both = [_table(one, names) for one in (first[1], numbers)]
        known = both[0][:, 1::2] * both[1][:, 1::2]
        for table in both:
            table[:, 0::2] *= known
            table[:, 1::2] = known
        metrics = _means(names)
        apart = both[0].copy()
        apart[:, 0::2] = both[1][:, 0::2] - both[0][:, 0::2]
        spread = bootstrap(apart, metrics, resamples, seed)
        tests.append(paired_randomization_test(both[0], both[1], metrics, resamples, seed))
        rows[name] = {
            of: {"low": spread[of].low, "high": spread[of].high, "cards": int(known[:, i].sum())}
            for i, of in enumerate(names)
        }
    return {
        name: {of: {**test, **rows[name][of]} for of, test in of_one.items()}
        for name, of_one in zip(rows, tested(tests), strict=True)
    }


def _names(several: Iterable[Sequence[Mapping[Of, float | None]]]) -> list[Of]:
    return list(dict.fromkeys(of for numbers in several for one in numbers for of in one))


def _table(numbers: Sequence[Mapping[Of, float | None]], names: Sequence[Of]) -> Numbers:
    """Return (cards, 2 * names): a value and whether it is known, of each name."""
    values = np.array(
        [[np.nan if one.get(of) is None else one[of] for of in names] for one in numbers],
        dtype=np.float64,
    ).reshape(len(numbers), len(names))
    known = np.isfinite(values)
    table = np.empty((len(numbers), 2 * len(names)))
    table[:, 0::2], table[:, 1::2] = np.where(known, values, 0.0), known
    return table


def _means(names: Sequence[Of]) -> dict[Of, Metric]:
    def mean(i: int) -> Metric:
        def metric(sums: Numbers) -> Numbers:
            with np.errstate(divide="ignore", invalid="ignore"):
                found: Numbers = sums[:, 2 * i] / sums[:, 2 * i + 1]
            return found

        return metric

    return {of: mean(i) for i, of in enumerate(names)}


def _told(estimate: dict[str, Any]) -> dict[str, Any]:
    return {"mean": estimate.pop("value"), **estimate}


def _said(dialog: Dialog, role: str) -> list[str]:
    return [m["content"] for m in dialog.messages if m["role"] == role]


def _is_reply(messages: Sequence[Message], i: int) -> bool:
    return messages[i]["role"] == "assistant"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
