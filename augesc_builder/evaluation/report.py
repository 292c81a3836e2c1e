"""An evaluation as tables for people, and the folder that it goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.errors import RunFolderError
from augesc_builder.run.markdown import markdown_table

_ORDER = (
    *("perplexity_token", "perplexity_word", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"),
    *("distinct_1", "distinct_2", "distinct_3", "words", "repetition", "repeated_responses"),
    *("flagged", "flag_harmful_agreement", "flag_medical_advice", "flag_personal_data"),
)
_IN_GROUPS = ("perplexity_word", "bleu_2", "rouge_l", "distinct_2")


def check_empty(out: Path | None) -> None:
    """Refuse a folder with something in it.

    Raises :class:`~augesc_builder.errors.RunFolderError`.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out} is not empty; give --out a new or empty folder")


def evaluation_tables(report: Mapping[str, Any]) -> str:
    """Return the table of all examples, and that of the problem types where there are any."""
    whole, groups = report["groups"]["all"], report["groups"]
    parts = [
        f"{whole['responses']:,} responses of {whole['sessions']:,} sessions "
        f"({report['sessions']}); 95% intervals in brackets.",
        _metrics_table(report["models"], whole, _ORDER, report["configs"]),
    ]
    if len(groups) > 1:
        parts.append(_groups_table(groups, "responses", _IN_GROUPS))
    return "\n\n".join(parts)


def classification_tables(report: Mapping[str, Any]) -> str:
    """Return the tables of classifiers: of all examples, and of problem types where there are."""
    whole, groups, majority = report["groups"]["all"], report["groups"], report["majority"]
    parts = [
        f"{whole['examples']:,} examples of {whole['units']:,} units, each a {report['unit']} "
        f"({report['sessions']}); percent, 95% intervals over units in brackets. Whoever always "
        f"says {majority['label']} has accuracy {majority['accuracy']:.2f} and macro_f1 "
        f"{majority['macro_f1']:.2f}.",
        _metrics_table(report["models"], whole, list(whole["estimates"][0])),
    ]
    if len(groups) > 1:
        parts.append(_groups_table(groups, "examples", ("accuracy", "macro_f1")))
    return "\n\n".join(parts)


def _metrics_table(
    models: list[str],
    group: Mapping[str, Any],
    names: Sequence[str],
    configs: Sequence[str | None] = (),
) -> str:
    """Return a row a metric; each model but the first has its tests against that one."""
    tests = group["tests"]
    n = len(tests)
    titles = [
        f"{title} ({i})" if n > 1 else title
        for i in range(2, n + 2)
        for title in ("difference", "p", "p (Holm)")
    ]
    shown = [f"{name} ({i})" if n > 1 else name for i, name in enumerate(models, 1)]
    rows = []
    if any(configs):
        rows.append(["config", *(name or "-" for name in configs), *("" for _ in titles)])
    for name in names:
        if name not in group["estimates"][0]:
            continue
        row = [name, *(_estimate(estimates[name]) for estimates in group["estimates"])]
        for of_one in tests:
            test = of_one[name]
            difference = test["difference"]
            row += [
                "-" if difference is None else f"{difference:+.2f}",
                f"{test['p']:.3f}",
                f"{test['p_holm']:.3f}",
            ]
        rows.append(row)
    return markdown_table(["", *shown, *titles], rows)


def _groups_table(groups: Mapping[str, Any], unit: str, wanted: Sequence[str]) -> str:
    names = [name for name in wanted if name in groups["all"]["estimates"][0]]
    models = range(len(groups["all"]["estimates"]))
    columns = [
        "",
        unit,
        *(_numbered(name, i, len(models)) for name in names for i in models),
    ]
    rows = [
        [
            label,
            f"{group[unit]:,}",
            *(_estimate(group["estimates"][i][name]) for name in names for i in models),
        ]
        for label, group in groups.items()
    ]
    return markdown_table(columns, rows)


def _numbered(name: str, i: int, n: int) -> str:
    return f"{name} ({i + 1})" if n > 1 else name


def _estimate(estimate: Mapping[str, float | None]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "-"
    if low is None or high is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
