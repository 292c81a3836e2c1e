"""``augesc simulate``: a model plays seekers, who talk to dialog systems; tables and a report.

What is said is on disk at once, in journals beside the tables: those of endpoints, which may have
been paid for, and those of local models. A simulation that was stopped goes through both, and on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

from augesc_builder.config.published import label_of
from augesc_builder.dialog.examples import is_named
from augesc_builder.dialog.folder import find_model
from augesc_builder.errors import CheckpointError, EndpointError
from augesc_builder.models.causal_lm import check_folder
from augesc_builder.pipeline.generate.endpoint.journal import Journal
from augesc_builder.pipeline.generate.endpoint.lines import estimated_tokens
from augesc_builder.pipeline.quality.measures import measures_of
from augesc_builder.pipeline.quality.stage import measured_files, pinned
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import content_of, digest, is_new
from augesc_builder.simulation.cards import Card, card_files, read_cards
from augesc_builder.simulation.measure import dangers, differences, estimates, numbers_of
from augesc_builder.simulation.outputs import write_simulation
from augesc_builder.simulation.parties import speaker_of
from augesc_builder.simulation.report import MARK
from augesc_builder.simulation.roles import SeekerRole, SystemRole
from augesc_builder.simulation.settings import (
    SEEKER,
    SYSTEMS,
    SimulationSettings,
)
from augesc_builder.simulation.talk import Dialog, Ended, Talk, talk_about_all

STAGE = "simulate"

_A_LINE = 30
"""Tokens of an utterance, about, for estimates."""


def simulate(settings: SimulationSettings, out: Path, progress: Progress) -> None:
    """Let a seeker talk to every system about every card, into ``out``; a stopped run goes on.

    Raises :class:`~augesc_builder.errors.InputError` for cards that cannot be read,
    :class:`~augesc_builder.errors.CheckpointError` for a folder that holds no dialog model of its
    role, :class:`~augesc_builder.errors.EndpointError` and
    :class:`~augesc_builder.errors.BudgetError` where an endpoint answers no more, and
    :class:`~augesc_builder.errors.RunFolderError` where the folder cannot be used.
    """
    cards = read_cards(settings.cards, settings.seed)
    with RunFolder(out, _identity(settings), progress) as folder:
        if is_new(folder, STAGE, progress):
            folder.record(name=settings.name, seed=settings.seed)
            quality, not_measured = pinned(folder, settings.quality, progress)
            measures = measures_of(quality)
            told, dialogs = _talk(settings, cards, folder, progress)
            _check_spoken(settings, cards, dialogs)
            by_system = {
                name: [dialog for dialog in dialogs if dialog.system == name]
                for name in settings.systems
            }
            numbers = {
                name: numbers_of(some, measures, quality.batch_size)
                for name, some in by_system.items()
            }
            report = {
                **_head(settings, cards, told=told),
                "systems": {
                    name: {
                        "model": settings.systems[name].label,
                        "conversations": sum(bool(dialog.messages) for dialog in some),
                        "ended": _ends(some),
                        "numbers": _nested(
                            estimates(numbers[name], settings.resamples, settings.seed)
                        ),
                        "danger": dangers([], some),
                    }
                    for name, some in by_system.items()
                },
                "differences": {
                    name: _nested(of_one)
                    for name, of_one in differences(
                        numbers, settings.resamples, settings.seed
                    ).items()
                },
                "danger_in_situations": dangers(cards, [])["situations"],
                "measures": {measure.name: measure.settings() for measure in measures},
                "not_measured": not_measured,
            }
            write_simulation(folder, settings, report, by_system)
            rows = sum(one["conversations"] for one in report["systems"].values())
            folder.complete(STAGE, tables={"simulated": rows})
    progress.say((out / layout.SIMULATION_MD).read_text(encoding="utf-8"))
    progress.say(f"All numbers are in {out / layout.SIMULATION}, conversations in {out / 'data'}.")


def plan(settings: SimulationSettings) -> list[str]:
    """Say in lines how much would be said, and asked of endpoints at most; nothing is asked.

    Raises what reading the cards raises.
    """
    n_cards, n_systems = len(read_cards(settings.cards, settings.seed)), len(settings.systems)
    replies = n_cards * settings.turns
    said = n_cards + n_cards * n_systems * (settings.turns - 1)
    lines = [
        f"{n_cards:,} cards, {n_systems:,} systems, {settings.turns} turns: at most "
        f"{n_cards * n_systems:,} conversations, {said:,} utterances of the seeker and "
        f"{replies * n_systems:,} replies; more where somebody is asked again who says nothing."
    ]
    for section, party in settings.parties().items():
        if party.base_url is None:
            continue
        n = said if section == SEEKER else replies
        told = estimated_tokens(settings.seeker.prompt) if section == SEEKER else 0
        prompt = n * (told + _A_LINE * settings.turns)
        lines.append(
            f"{section}: at most {n * settings.tries:,} requests to {party.base_url} for "
            f"{party.model}, about {prompt:,} tokens of prompts in {n:,} of them, and at most "
            f"{n * settings.replies.max_tokens:,} of answers. Nothing is asked yet."
        )
    return lines


# -- talking --------------------------------------------------------------------------------------


def _talk(
    settings: SimulationSettings, cards: Sequence[Card], folder: RunFolder, progress: Progress
) -> tuple[bool, list[Dialog]]:
    """Return whether the seeker is told of cards, and all conversations."""
    prices = settings.endpoints.prices
    made = {
        True: Journal(folder.path / layout.REQUESTS, prices),
        False: Journal(folder.path / layout.UTTERANCES, None),
    }
    thread = ThreadPoolExecutor(1, "augesc-simulate")
    try:
        speakers = {
            section: speaker_of(section, party, settings, made.__getitem__, thread)
            for section, party in settings.parties().items()
        }
        seeker = SeekerRole(speakers[SEEKER], settings.seeker)
        systems = [
            SystemRole(name, speakers[f"{SYSTEMS}.{name}"], system.system_prompt)
            for name, system in settings.systems.items()
        ]
        talk = Talk(seeker, systems, settings.turns, settings.tries)
        at_once = settings.endpoints.concurrency
        with progress.bar(len(cards) * len(systems), "talking", "conversation") as bar:
            dialogs = asyncio.run(
                talk_about_all(cards, talk, list(speakers.values()), at_once, bar.update)
            )
        spent = made[True].spent
        if spent.answers:
            progress.say(f"  endpoints: {spent.answers:,} answers, {spent.tokens:,} tokens")
        return seeker.is_told, dialogs
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
        for journal in made.values():
            journal.close()


def _check_spoken(
    settings: SimulationSettings, cards: Sequence[Card], dialogs: Sequence[Dialog]
) -> None:
    """Refuse to report on somebody who never says a word."""
    spoke = {m["role"] for dialog in dialogs for m in dialog.messages}
    silent = [
        f"{SYSTEMS}.{name}"
        for name in settings.systems
        if not any(d.system == name and len(d.messages) > 1 for d in dialogs)
    ]
    if "user" not in spoke:
        silent = [SEEKER]
    if not silent:
        return
    party = settings.parties()[silent[0]]
    kind = CheckpointError if party.base_url is None else EndpointError
    raise kind(
        f"{silent[0]}: {party.label} says nothing, on any of {len(cards):,} cards, asked "
        f"{settings.tries} times each; give a model that answers"
    )


def _identity(settings: SimulationSettings) -> dict[str, Any]:
    """Return what must not change while a folder is filled: settings, cards and local models.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a folder that holds no model.
    """
    inputs = {"cards": digest(card_files(settings.cards)), **measured_files(settings.quality)}
    for section, party in settings.parties().items():
        if party.folder is None:
            continue
        try:
            place = find_model(party.folder)
            check_folder(place)
        except CheckpointError as error:
            raise CheckpointError(f"{section}.folder: {error}") from error
        if Path(place).is_dir():
            inputs[f"{section}.folder"] = content_of(Path(place))
    return {"stage": STAGE, **settings.fixed(), "inputs": inputs}


def _head(settings: SimulationSettings, cards: Sequence[Card], *, told: bool) -> dict[str, Any]:
    path = settings.cards.path
    return {
        "simulated": True,
        "note": MARK,
        "name": settings.name,
        "seed": settings.seed,
        "turns": settings.turns,
        "seeker": {"model": settings.seeker.label, "told": told},
        "cards": {
            "from": path if is_named(path) else label_of(path),
            "n": len(cards),
            "problem_types": dict(Counter(card.problem_type or "" for card in cards)),
        },
        "intervals": {"resamples": settings.resamples, "seed": settings.seed},
    }


def _ends(dialogs: Sequence[Dialog]) -> dict[str, int]:
    ends = Counter(dialog.ended for dialog in dialogs)
    return {end: ends[end] for end in get_args(Ended)}


def _nested(values: dict[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (measure, name), value in values.items():
        found.setdefault(measure, {})[name] = value
    return found
