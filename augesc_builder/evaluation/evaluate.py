"""Evaluation without people: one model, or two on the same histories; by problem type."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.config.training import Data
from augesc_builder.dialog.examples import Pair, read_pairs
from augesc_builder.dialog.model import Decoding, DialogModel
from augesc_builder.errors import CheckpointError
from augesc_builder.evaluation.report import check_empty, evaluation_tables
from augesc_builder.evaluation.scores import (
    LIKELIHOOD_METRICS,
    TEXT_METRICS,
    likelihood_numbers,
    session_sums,
    text_numbers,
)
from augesc_builder.evaluation.significance import (
    distinct_test,
    paired_randomization_test,
    tested,
)
from augesc_builder.metrics.intervals import (
    Estimate,
    Grams,
    Metric,
    Numbers,
    bootstrap,
    distinct,
    number_grams,
)
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.progress import Progress
from augesc_builder.run.versions import versions
from augesc_builder.text.words import tokenize

DISTINCT = (1, 2, 3)


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how."""

    sessions: str
    data: Data
    decoding: Decoding = field(default_factory=Decoding)
    limit: int | None = None
    """Sessions at most, drawn by the seed."""
    generate: bool = True
    resamples: int = 1000
    seed: int = 13


@dataclass
class Outcome:
    """What one model says, response by response, and its numbers (N, columns)."""

    model: DialogModel
    numbers: Numbers
    responses: list[str] | None


@dataclass(frozen=True)
class Group:
    """Some of the examples: all, one problem type, the seen ones, the unseen ones."""

    name: str
    rows: np.typing.NDArray[np.bool_]


def evaluate(
    names: Sequence[str], setup: Setup, progress: Progress, out: Path | None = None
) -> dict[str, Any]:
    """Evaluate models on the same examples, each against the first; write and return all numbers.

    Examples are made as the first model was trained: length of the history, merging, greetings.

    Raises :class:`~augesc_builder.errors.RunFolderError` where ``out`` is not empty,
    :class:`~augesc_builder.errors.CheckpointError` where a model cannot be loaded or is out of
    memory, or learned another role than the others, :class:`~augesc_builder.errors.InputError`
    where the sessions cannot be read, and
    :class:`~augesc_builder.errors.MissingExtraError` without sacrebleu and rouge-score.
    """
    check_empty(out)
    with progress.working("evaluation"):
        models = [DialogModel(name) for name in names]
        _check_roles(models)
        pairs = chosen_pairs(models[0], setup)
        outcomes = [_outcome(model, pairs, setup, progress) for model in models]
        left_out = models[0].left_out
        metrics = dict(LIKELIHOOD_METRICS) | (TEXT_METRICS if setup.generate else {})
        groups = _groups(pairs, left_out)
        report: dict[str, Any] = {
            "models": list(names),
            "configs": [model.config_name for model in models],
            "sessions": setup.sessions,
            "examples": len(pairs),
            "decoding": asdict(setup.decoding) if setup.generate else None,
            "resamples": setup.resamples,
            "seed": setup.seed,
            "left_out": left_out,
            "versions": versions(),
            "groups": {
                group.name: _group(group, pairs, outcomes, metrics, setup) for group in groups
            },
        }
    if out is not None:
        with disk_errors(out):
            _write(out, report, pairs, outcomes)
    return report


def _check_roles(models: Sequence[DialogModel]) -> None:
    """Refuse to compare what a seeker says with what a supporter says."""
    roles = {model.name: model.examples.role for model in models}
    if len(set(roles.values())) > 1:
        said = ", ".join(f"{name} a {role}" for name, role in roles.items())
        raise CheckpointError(
            f"the models learned different roles ({said}); compare those of one examples.role"
        )


def chosen_pairs(model: DialogModel, setup: Setup) -> list[Pair]:
    """Return the examples, of no more sessions than the limit."""
    pairs = read_pairs(setup.sessions, setup.data, model.examples)
    if setup.limit is None:
        return pairs
    names = list(dict.fromkeys(pair.session.session_id for pair in pairs))
    kept = set(random.Random(setup.seed).sample(names, min(setup.limit, len(names))))
    return [pair for pair in pairs if pair.session.session_id in kept]


def _outcome(
    model: DialogModel, pairs: Sequence[Pair], setup: Setup, progress: Progress
) -> Outcome:
    size = setup.decoding.batch_size
    with progress.bar(len(pairs), f"perplexity of {model.name}", "response") as bar:
        numbers = likelihood_numbers(model.likelihoods(pairs, size, bar.update))
    if not setup.generate:
        return Outcome(model, numbers, None)
    with progress.bar(len(pairs), f"responses of {model.name}", "response") as bar:
        responses = model.respond(pairs, setup.decoding, bar.update)
    return Outcome(model, numbers + text_numbers(pairs, responses), responses)


def _groups(pairs: Sequence[Pair], left_out: Sequence[str]) -> list[Group]:
    kinds = np.array([pair.problem_type or "" for pair in pairs])
    groups = [Group("all", np.ones(len(pairs), np.bool_))]
    if left_out:
        unseen = np.isin(kinds, list(left_out))
        groups += [Group("seen types", ~unseen), Group("unseen types", unseen)]
    groups += [Group(str(kind), kinds == kind) for kind in np.unique(kinds) if kind]
    return [group for group in groups if group.rows.any()]


def _group(
    group: Group,
    pairs: Sequence[Pair],
    outcomes: Sequence[Outcome],
    metrics: dict[str, Metric],
    setup: Setup,
) -> dict[str, Any]:
    sessions = [p.session.session_id for p, in_it in zip(pairs, group.rows, strict=True) if in_it]
    n_sessions = len(set(sessions))
    sums = [session_sums(outcome.numbers[group.rows], sessions) for outcome in outcomes]
    found = [bootstrap(some, metrics, setup.resamples, setup.seed) for some in sums]
    tests = [
        paired_randomization_test(sums[0], other, metrics, setup.resamples, setup.seed)
        for other in sums[1:]
    ]
    if setup.generate:
        for n in DISTINCT:
            known: dict[tuple[str, ...], int] = {}
            grams = [_grams(outcome, group, sessions, n, known) for outcome in outcomes]
            for estimates, one in zip(found, grams, strict=True):
                estimates[f"distinct_{n}"] = _percent(distinct(one, n_sessions))
            for of_one, other in zip(tests, grams[1:], strict=True):
                difference, p = distinct_test(
                    grams[0], other, n_sessions, setup.resamples, setup.seed
                )
                of_one[f"distinct_{n}"] = 100 * difference, p
    return {
        "sessions": n_sessions,
        "responses": len(sessions),
        "estimates": [
            {name: asdict(estimate) for name, estimate in estimates.items()} for estimates in found
        ],
        "tests": tested(tests),
    }


def _grams(
    outcome: Outcome,
    group: Group,
    sessions: Sequence[str],
    n: int,
    known: dict[tuple[str, ...], int],
) -> Grams:
    by_session: dict[str, list[list[str]]] = {}
    said = [text for text, in_it in zip(outcome.responses or (), group.rows, strict=True) if in_it]
    for name, text in zip(sessions, said, strict=True):
        by_session.setdefault(name, []).append(tokenize(text))
    return number_grams(list(by_session.values()), n, known)


def _percent(estimate: Estimate) -> Estimate:
    return Estimate(
        *(None if x is None else 100 * x for x in (estimate.value, estimate.low, estimate.high))
    )


def _write(
    out: Path, report: dict[str, Any], pairs: Sequence[Pair], outcomes: Sequence[Outcome]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (out / layout.EVALUATION).write_text(text, encoding="utf-8")
    (out / layout.EVALUATION_TABLE).write_text(evaluation_tables(report) + "\n", encoding="utf-8")
    if outcomes[0].responses is None:
        return
    with (out / layout.RESPONSES).open("w", encoding="utf-8") as file:
        for i, pair in enumerate(pairs):
            row = {
                "session_id": pair.session.session_id,
                "turn": pair.turn,
                "problem_type": pair.session.problem_type,
                "history": list(pair.history),
                "reference": pair.response,
                "responses": [outcome.responses[i] for outcome in outcomes if outcome.responses],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
