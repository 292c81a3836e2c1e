"""How language models, and a crowd, rate support beside experts.

The models' ratings come with the data, so that nothing is asked of anybody. They show what a judge
of ``augesc study judge`` may be expected to reach on such a form; a judge's own answers, as
conversations with scores, make one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from augesc_builder.errors import InputError
from augesc_builder.human_evaluation.agreement import weighted_kappa
from augesc_builder.metrics.intervals import Numbers
from benchmarks.quality_data import Judged, read_scored
from benchmarks.quality_numbers import Places, interval, span_text, spearman
from benchmarks.quality_plain import WORDS

EXPERTS, YOURS = "experts with experts", "yours"


def with_judge(judged: Sequence[Judged], path: Path) -> list[Judged]:
    """Add the scores of a file of conversations as a judge's, by their ``id``.

    Raises :class:`~augesc_builder.errors.InputError` where a conversation or a score is missing.
    """
    given = {one.dialog: one.ratings for one in read_scored(path)}
    found = []
    for one in judged:
        others = {}
        for asked, judges in one.others.items():
            score = given.get(one.dialog, {}).get(asked, (None,))[0]
            if score is None:
                raise InputError(f"no score for {asked!r} of the id {one.dialog!r}", path)
            others[asked] = {**judges, YOURS: score}
        found.append(replace(one, others=others))
    return found


def judge_table(
    judged: Sequence[Judged], statistic: Callable[[Numbers, Numbers], float], n: int
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of how each judge goes with each expert, on average."""
    asked = list(judged[0].ratings)
    experts = [np.array([one.ratings[name] for one in judged], float) for name in asked]
    dialogs = [one.dialog for one in judged]
    judges = sorted({judge for one in judged for judge in one.others[asked[0]]})

    def row(name: str, of: Callable[[int, Places], float]) -> list[str]:
        every = np.arange(len(judged))
        mean = interval(
            lambda at: float(np.mean([of(k, at) for k in range(len(asked))])), dialogs, n
        )
        return [name, *(f"{of(k, every):.2f}" for k in range(len(asked))), span_text(mean)]

    def each(values: Sequence[Numbers], k: int, at: Places) -> float:
        return float(np.mean([statistic(values[k][at], expert[at]) for expert in experts[k].T]))

    def among(k: int, at: Places) -> float:
        columns = experts[k][at].T
        pairs = [(a, b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
        return float(np.mean([statistic(a, b) for a, b in pairs]))

    rows = [row(EXPERTS, among)]
    for judge in judges:
        values = [np.array([one.others[name][judge] for one in judged]) for name in asked]
        rows.append(row(judge, partial(each, values)))
    if statistic is spearman:  # words are on no scale of ratings
        words = np.array([sum(len(m["content"].split()) for m in one.messages) for one in judged])
        rows.append(row(WORDS, partial(each, [words.astype(float)] * len(asked))))
    return ["judge", *(name.replace("_", " ") for name in asked), "mean"], rows


def quadratic_kappa(a: Numbers, b: Numbers) -> float:
    """Return the kappa of two raters in which a disagreement counts by its square."""
    return weighted_kappa(np.column_stack([a, b]).tolist())


TABLES: dict[str, Callable[[Numbers, Numbers], float]] = {
    "Rank correlation": spearman,
    "Weighted kappa": quadratic_kappa,
}
