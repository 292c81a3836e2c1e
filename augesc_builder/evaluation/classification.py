"""Classifiers judged by labels that they have not seen: one against the majority class, or two.

Numbers are made of the confusion matrices of units that depend on nothing else: sessions, or groups
of rows. All metrics are in percent.

=====================  =========================================================================
accuracy               examples whose likeliest label is the right one
macro_f1               mean F1 of the labels that occur, told or right
f1 LABEL               F1 of one label
=====================  =========================================================================
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from augesc_builder.config.training import Data, load_config
from augesc_builder.dialog.folder import find_model, read_facts
from augesc_builder.dialog.labelled import Labelled, check_labels, read_labelled
from augesc_builder.errors import CheckpointError
from augesc_builder.evaluation.report import check_empty, classification_tables
from augesc_builder.evaluation.scores import session_sums
from augesc_builder.evaluation.significance import paired_randomization_test, tested
from augesc_builder.metrics.intervals import Metric, Numbers, bootstrap
from augesc_builder.models.sequence_classifier import SequenceClassifier
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.progress import Progress
from augesc_builder.run.versions import versions

MAJORITY = "majority class"


def evaluate_classifiers(
    names: Sequence[str],
    path: str,
    data: Data,
    progress: Progress,
    out: Path | None = None,
    *,
    limit: int | None = None,
    batch_size: int = 32,
    resamples: int = 1000,
    seed: int = 13,
) -> dict[str, Any]:
    """Evaluate classifiers on the same examples; write and return all numbers.

    One is tested against the majority class of the examples, several against the first; the test
    swaps what they say unit by unit. ``limit`` is of units, drawn by the seed.

    Raises :class:`~augesc_builder.errors.CheckpointError` where a model cannot be loaded or they
    have other labels, and :class:`~augesc_builder.errors.InputError` where examples cannot be read
    or have a label that the models do not, and :class:`~augesc_builder.errors.RunFolderError` where
    ``out`` is not empty.
    """
    check_empty(out)
    models = [SequenceClassifier(find_model(name)) for name in names]
    labels = sorted(models[0].labels)
    for name, model in zip(names, models, strict=True):
        if sorted(model.labels) != labels:
            raise CheckpointError(
                f"{name} has the labels {', '.join(model.labels)}, and {names[0]} "
                f"{', '.join(labels)}; compare classifiers of the same labels"
            )
    examples = _chosen(models[0], path, data, limit, seed)
    check_labels(examples, labels, path)
    number = {label: i for i, label in enumerate(labels)}
    right = np.array([number[example.label] for example in examples])
    told = [_told(model, examples, number, batch_size, progress) for model in models]
    majority = int(np.bincount(right, minlength=len(labels)).argmax())
    constant = np.full(len(right), majority)
    columns = [constant, *told] if len(told) == 1 else told
    facts = read_facts(find_model(names[0]))
    left_out = facts["config"]["data"]["leave_out"] if facts else []
    metrics = metrics_of(labels)
    groups = {
        name: _group(rows, [e.unit for e in examples], right, columns, metrics, resamples, seed)
        for name, rows in _groups(examples, left_out).items()
    }
    of_majority = _numbers(right, constant, len(labels)).sum(0, keepdims=True)
    report: dict[str, Any] = {
        "models": [MAJORITY, *names] if len(names) == 1 else list(names),
        "sessions": path,
        "examples": len(examples),
        "unit": "session" if all(e.of_session for e in examples) else "group of rows",
        "labels": dict(sorted(Counter(example.label for example in examples).items())),
        "majority": {
            "label": labels[majority],
            "accuracy": float(metrics["accuracy"](of_majority)[0]),
            "macro_f1": float(metrics["macro_f1"](of_majority)[0]),
        },
        "resamples": resamples,
        "seed": seed,
        "versions": versions(),
        "groups": groups,
    }
    if out is not None:
        with disk_errors(out):
            _write(out, report, examples, [[labels[i] for i in each] for each in told])
    return report


def metrics_of(labels: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of confusion matrices, (R, labels * labels): right labels by told ones."""
    n = len(labels)

    def f1(sums: Numbers) -> Numbers:  # (R, labels); NaN of a label that does not occur
        matrices = sums.reshape(-1, n, n)
        hits = np.einsum("rii->ri", matrices)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Numbers = 200 * hits / (matrices.sum(1) + matrices.sum(2))
        return found

    def accuracy(sums: Numbers) -> Numbers:
        hits = np.einsum("rii->r", sums.reshape(-1, n, n))
        found: Numbers = 100 * hits / sums.sum(1)
        return found

    def macro(sums: Numbers) -> Numbers:
        found = f1(sums)
        mean: Numbers = np.nansum(found, 1) / (~np.isnan(found)).sum(1)
        return mean

    def of(i: int) -> Metric:
        return lambda sums: f1(sums)[:, i]

    return {
        "accuracy": accuracy,
        "macro_f1": macro,
        **{f"f1 {label}": of(i) for i, label in enumerate(labels)},
    }


def _chosen(
    model: SequenceClassifier, path: str, data: Data, limit: int | None, seed: int
) -> list[Labelled]:
    """Return the examples, made as the model was trained; of no more units than the limit."""
    shipped = load_config("strategies").examples
    settings = shipped.model_copy(update={"history_turns": model.history_turns})
    examples = read_labelled(path, data, settings)
    if limit is None:
        return examples
    units = list(dict.fromkeys(example.unit for example in examples))
    kept = set(random.Random(seed).sample(units, min(limit, len(units))))
    return [example for example in examples if example.unit in kept]


def _told(
    model: SequenceClassifier,
    examples: Sequence[Labelled],
    number: dict[str, int],
    batch_size: int,
    progress: Progress,
) -> Any:
    """Return the number of each example's likeliest label."""
    texts = [(example.text, example.text_pair) for example in examples]
    with progress.bar(len(texts), f"labels of {model.name}", "example") as bar:
        found = model.probabilities(texts, batch_size, bar.update)
    places = np.array([number[label] for label in model.labels])
    return places[found.argmax(1)]


def _groups(examples: Sequence[Labelled], left_out: Sequence[str]) -> dict[str, Any]:
    """Return the rows of all examples, of (un)seen problem types, and of each type."""
    kinds = np.array([example.problem_type or "" for example in examples])
    groups = {"all": np.ones(len(kinds), np.bool_)}
    if left_out:
        unseen = np.isin(kinds, list(left_out))
        groups |= {"seen types": ~unseen, "unseen types": unseen}
    groups |= {str(kind): kinds == kind for kind in np.unique(kinds) if kind}
    return {name: rows for name, rows in groups.items() if rows.any()}


def _group(
    rows: Any,
    units: Sequence[str],
    right: Any,
    columns: Sequence[Any],
    metrics: dict[str, Metric],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    kept = [unit for unit, in_it in zip(units, rows, strict=True) if in_it]
    n = len(metrics) - 2
    sums = [session_sums(_numbers(right[rows], told[rows], n), kept) for told in columns]
    found = [bootstrap(some, metrics, resamples, seed) for some in sums]
    return {
        "units": len(set(kept)),
        "examples": len(kept),
        "estimates": [{name: asdict(e) for name, e in some.items()} for some in found],
        "tests": tested(
            [paired_randomization_test(sums[0], one, metrics, resamples, seed) for one in sums[1:]]
        ),
    }


def _numbers(right: Any, told: Any, n: int) -> Numbers:
    """Return the confusion matrix of each example, (N, labels * labels)."""
    numbers = np.zeros((len(right), n * n))
    numbers[np.arange(len(right)), right * n + told] = 1
    return numbers


def _write(
    out: Path,
    report: dict[str, Any],
    examples: Sequence[Labelled],
    told: Sequence[Sequence[str]],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (out / layout.EVALUATION).write_text(text, encoding="utf-8")
    tables = classification_tables(report) + "\n"
    (out / layout.EVALUATION_TABLE).write_text(tables, encoding="utf-8")
    with (out / layout.RESPONSES).open("w", encoding="utf-8") as file:
        for i, example in enumerate(examples):
            row = {**asdict(example), "told": [each[i] for each in told]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
