"""The quality table as numbers: means with intervals, findings and strategies by progress."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from augesc_builder.metrics.intervals import Estimate, Metric, Numbers, bootstrap
from augesc_builder.metrics.progress import PARTS
from augesc_builder.metrics.tokenized import ROLES
from augesc_builder.run.document import Table, markdown_document
from augesc_builder.run.markdown import NOTHING

RESAMPLES = 1_000
"""Draws of the sessions behind the intervals."""

BELIEVE = (
    "What each number means, and how far it agrees with people beside what the number of words "
    "alone does, is in docs/quality.md: none of them is quality as such."
)

_SAMPLES = 3
"""Findings of each kind that a report shows."""

_LONGEST = 160
"""Characters of a reason that a table shows."""

Of = tuple[str, str]
"""A measure, and a number, kind or label of its own."""


@dataclass
class Found:
    """How often something was found: in all, in how many sessions, by role, by progress."""

    findings: int = 0
    sessions: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    progress: list[int] = field(default_factory=lambda: [0] * PARTS)

    def report(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        roles = {name: self.roles[role] for role, name in ROLES.items()}
        counts = {"findings": self.findings, "sessions": self.sessions}
        return {**counts, **roles, "progress": self.progress}


class QualityCounts:
    """What a report says of sessions of one corpus and source; made of rows of the quality table.

    Tables may come in any pieces; intervals are those of the sessions in the order they came in.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self._numbers: dict[Of, array[float]] = {}
        self._found: defaultdict[Of, Found] = defaultdict(Found)
        self._labels: defaultdict[Of, list[int]] = defaultdict(lambda: [0] * PARTS)
        self._samples: defaultdict[Of, list[dict[str, Any]]] = defaultdict(list)

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row."""
        for number in row["numbers"]:
            values = self._numbers.setdefault((number["measure"], number["name"]), array("d"))
            self._fill(values, self.sessions)
            values.append(np.nan if number["value"] is None else number["value"])
        self.sessions += 1
        n = max(1, row["n_utterances"])
        for finding in row["findings"]:
            of = finding["measure"], finding["kind"]
            found = self._found[of]
            found.findings += 1
            found.roles[finding["role"]] += 1
            found.progress[finding["utterance"] * PARTS // n] += 1
            if len(self._samples[of]) < _SAMPLES:
                told = {key: finding[key] for key in ("utterance", "other", "reason")}
                self._samples[of].append({"session_id": row["session_id"], **told})
        for of in {(finding["measure"], finding["kind"]) for finding in row["findings"]}:
            self._found[of].sessions += 1
        for of_measure in row["utterances"]:
            for i, label in enumerate(of_measure["labels"] or ()):
                if label is not None:
                    self._labels[of_measure["measure"], label][i * PARTS // n] += 1

    def report(self, seed: int) -> dict[str, Any]:
        """Return the numbers as JSON values; ``seed`` is that of the intervals."""
        return {
            "sessions": self.sessions,
            "numbers": _nested(dict(self._estimates(seed))),
            "findings": _nested({of: found.report() for of, found in self._found.items()}),
            "labels": _nested(dict(self._shares())),
            "samples": _nested(self._samples),
        }

    def _estimates(self, seed: int) -> Iterator[tuple[Of, dict[str, Any]]]:
        """Yield the mean of each number over the sessions of which something is said."""
        if not self._numbers:
            return
        columns: list[Numbers] = []
        metrics: dict[Of, Metric] = {}
        for of, values in self._numbers.items():
            self._fill(values, self.sessions)
            column = np.array(values)
            metrics[of] = _mean(len(columns))
            columns += [np.nan_to_num(column), np.isfinite(column).astype(np.float64)]
        table = np.stack(columns, axis=1)
        for i, (of, estimate) in enumerate(bootstrap(table, metrics, RESAMPLES, seed).items()):
            yield of, {**_told(estimate), "sessions": int(columns[2 * i + 1].sum())}

    def _shares(self) -> Iterator[tuple[Of, dict[str, Any]]]:
        """Yield the share of each label, over all that its measure labelled and by progress."""
        whole: defaultdict[str, list[int]] = defaultdict(lambda: [0] * PARTS)
        for (measure, _), parts in self._labels.items():
            whole[measure] = [a + b for a, b in zip(whole[measure], parts, strict=True)]
        for of, parts in sorted(self._labels.items()):
            of_all = whole[of[0]]
            yield (
                of,
                {
                    "utterances": sum(parts),
                    "share": sum(parts) / sum(of_all),
                    "progress": [a / b if b else None for a, b in zip(parts, of_all, strict=True)],
                },
            )

    @staticmethod
    def _fill(values: array[float], n: int) -> None:
        """Note for earlier sessions that nothing is said of them."""
        values.extend([np.nan] * (n - len(values)))


def _mean(at: int) -> Metric:
    """Return the mean of a column of values by the one behind it, of those that are known."""

    def metric(sums: Numbers) -> Numbers:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Numbers = sums[:, at] / sums[:, at + 1]
        return found

    return metric


def _told(estimate: Estimate) -> dict[str, Any]:
    told = asdict(estimate)
    return {"mean": told.pop("value"), **told}


def _nested(values: Mapping[Of, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for (measure, name), value in values.items():
        found.setdefault(measure, {})[name] = value
    return found


def quality_report(tables: Iterable[pa.Table], corpora: Sequence[str], seed: int) -> dict[str, Any]:
    """Return what ``quality.json`` says of the rows of quality tables, by corpus and source."""
    counts: dict[Of, QualityCounts] = {}
    for table in tables:
        for row in table.to_pylist():
            counts.setdefault((row["corpus"], row["source"]), QualityCounts()).add(row)
    by_source = {}
    for name in corpora:
        sources = sorted(source for of, source in counts if of == name)
        for source in sources:
            alone = name if len(sources) == 1 else f"{name}: {source}"
            column = source if len(corpora) == 1 else alone
            by_source[column] = counts[name, source].report(seed)
    return {
        "sessions": sum(of.sessions for of in counts.values()),
        "by_source": by_source,
        "intervals": {"resamples": RESAMPLES, "seed": seed},
    }


# -- as tables for people -------------------------------------------------------------------------


def quality_markdown(report: Mapping[str, Any]) -> str:
    """Write a report in Markdown that is legible on a terminal too."""
    return markdown_document([*quality_tables(report), *_samples(report)])


def quality_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of a report: numbers, findings, and labels by progress."""
    columns = report["by_source"]
    numbers = _keys(columns, "numbers")
    yield Table(
        "Quality",
        ["mean of sessions", *columns],
        [
            ["sessions", *(f"{part['sessions']:,}" for part in columns.values())],
            *(
                [_label(of), *(_estimate(_at(part["numbers"], of)) for part in columns.values())]
                for of in numbers
            ),
        ],
        lambda escape: _how(report, escape),
    )
    kinds = _keys(columns, "findings")
    if kinds:
        yield Table(
            "Findings",
            ["", *columns],
            [
                [_label(of), *(_count(_at(part["findings"], of)) for part in columns.values())]
                for of in kinds
            ],
            lambda _: "In brackets: the sessions that have any.",
        )
    for name, part in columns.items():
        for measure, labels in part["labels"].items():
            yield Table(
                f"{_words(measure).capitalize()} by progress",
                [name, "all", *(f"{100 * i // PARTS} %" for i in range(PARTS))],
                [
                    [label, *(_per_cent(x) for x in (of["share"], *of["progress"]))]
                    for label, of in labels.items()
                ],
                lambda _: "Share of the supporter's turns, in each fifth of the conversations.",
            )


def _samples(report: Mapping[str, Any]) -> Iterator[Table]:
    rows = [
        [_label((measure, kind)), one["session_id"], str(one["utterance"]), _short(one["reason"])]
        for part in report["by_source"].values()
        for measure, kinds in part["samples"].items()
        for kind, found in kinds.items()
        for one in found
    ]
    if rows:
        header = ["the first findings", "session", "utterance, from 0", "why"]
        yield Table("Findings to look at", header, rows)


def _how(report: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    said = [
        "In brackets: 95% intervals, by drawing the sessions again "
        f"{report['intervals']['resamples']:,} times (seed {report['intervals']['seed']}).",
        *(
            f"{_words(name).capitalize()} was not measured: {escape(why)}."
            for name, why in report["not_measured"].items()
        ),
        *(
            f"{escape(name)} was written by the model that scores its drift: its own judge."
            for name in report["own_judge"]
        ),
        BELIEVE,
    ]
    return " ".join(said)


def _keys(columns: Mapping[str, Any], what: str) -> list[Of]:
    found = {
        (measure, name): None
        for part in columns.values()
        for measure, names in part[what].items()
        for name in names
    }
    return list(found)


def _at(values: Mapping[str, Mapping[str, Any]], of: Of) -> Any:
    return values.get(of[0], {}).get(of[1])


def _label(of: Of) -> str:
    return f"{_words(of[0])}: {_words(of[1])}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return NOTHING
    said = f"{found['mean']:,.3g}"
    return said if found["low"] is None else f"{said} [{found['low']:,.3g}, {found['high']:,.3g}]"


def _count(found: Mapping[str, Any] | None) -> str:
    return "0" if found is None else f"{found['findings']:,} ({found['sessions']:,})"


def _per_cent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
