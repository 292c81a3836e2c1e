"""What is compared: numbers as ratios of sums, their intervals, and the differences of runs.

What is drawn again are queries, each with all its texts in every run: a query that several runs
continued is drawn for all of them together, so runs on the same queries are compared in pairs, and
runs on others apart, by the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augesc_builder.metrics.distinct import Hashes
from augesc_builder.metrics.intervals import (
    Estimate,
    Grams,
    Metric,
    Numbers,
    bootstrap,
    distinct_moves,
    jackknife,
)
from augesc_builder.metrics.vendi.score import vendi_moves
from augesc_builder.pipeline.compare.measure import Measured, Sums
from augesc_builder.pipeline.filter.report import heading

TEXTS, SESSIONS, TWICE = "of all texts", "of kept sessions", "said twice"
MEMORIZED, SAFETY, MEASURES = "memorized", "safety flags", "other measures"
QUALITY = "beyond form"
DIVERSITY, COST = "diversity", "for each kept session"


@dataclass(frozen=True)
class Ratio:
    """A number that is compared: the sum of ``part`` by that of ``whole``.

    ``group`` is what it is said of, ``label`` what it is called; a share is shown in per cent, and
    all with so many ``digits`` behind the point.
    """

    group: str
    label: str
    part: str
    whole: str
    is_share: bool = False
    digits: int = 1


_FIXED = {
    "retention": Ratio(TEXTS, "retained", "met", "texts", is_share=True),
    "session_tokens": Ratio(SESSIONS, "tokens a session", "tokens of sessions", "kept"),
    "session_words": Ratio(SESSIONS, "words a session", "words", "kept"),
    "session_utterances": Ratio(SESSIONS, "utterances a session", "utterances", "kept"),
    **{
        f"{role}_{name}": Ratio(SESSIONS, f"{role}: {name} {each}", f"{role} {name}", whole)
        for role in ("seeker", "supporter")
        for name, each, whole in (
            ("utterances", "a session", "kept"),
            ("words", "an utterance", f"{role} utterances"),
        )
    },
    "duplicate_share": Ratio(TWICE, "duplicate sessions", "duplicates", "kept", is_share=True),
    "repetition_share": Ratio(
        TWICE, "sessions with a repeated utterance", "with a repetition", "kept", is_share=True
    ),
    "repeated_share": Ratio(
        TWICE, "repeated utterances", "repeated utterances", "utterances", is_share=True
    ),
    "memorized_share": Ratio(MEMORIZED, "memorized 4-grams", "memorized", "n-grams", is_share=True),
    "flagged_share": Ratio(SAFETY, "flagged sessions", "flagged", "scanned", is_share=True),
}
"""Those of every comparison; shares are called as in ``statistics.json``."""

_TOKENS = {
    "tokens_for_each": Ratio(COST, "tokens for each kept session", "tokens of texts", "kept")
}


_ALL_OR_NONE = (0.0, 1.0)


def ratios(requirements: Sequence[str], all_sums: Sequence[Sums]) -> dict[str, Ratio]:
    """Return what is compared, in the order of the report.

    ``requirements`` are those that judged; flags and other measures are those that any run has.
    """
    flags = sorted({name for sums in all_sums for name in sums.names("flag ")})
    measures = sorted({name for sums in all_sums for name in sums.names("sum of ")})
    quality = sorted({name for sums in all_sums for name in sums.names("quality of ")})
    return {
        **{
            f"violations.{name}": Ratio(
                TEXTS,
                heading(name),
                f"violates {name}",
                "counted" if name == "session_length" else "texts",
                is_share=True,
            )
            for name in requirements
        },
        **_FIXED,
        **{
            f"flags.{name}": Ratio(
                SAFETY, f"flag: {name.replace('_', ' ')}", f"flag {name}", "scanned", is_share=True
            )
            for name in flags
        },
        **{
            f"measures.{name}": Ratio(
                MEASURES, name.replace("_", " "), f"sum of {name}", f"measured {name}"
            )
            for name in measures
        },
        **{
            f"quality.{name}": Ratio(
                QUALITY, name.replace("_", " "), f"quality of {name}", f"known {name}", digits=2
            )
            for name in quality
        },
        **_TOKENS,
    }


def estimate(
    all_sums: Sequence[Sums], compared: Mapping[str, Ratio], resamples: int, seed: int
) -> tuple[list[dict[str, Estimate]], list[dict[str, Estimate]]]:
    """Return the numbers of each run, and each run's less those of the first.

    Intervals are percentiles of ``resamples`` draws of the queries. A share of nothing or all has
    none, nor has its difference from others: what was never seen is never drawn.
    """
    columns = sorted({name for ratio in compared.values() for name in (ratio.part, ratio.whole)})
    at = {name: i for i, name in enumerate(columns)}
    table = np.stack([sums[name] for sums in all_sums for name in columns], axis=1)

    def of(run: int, ratio: Ratio) -> Metric:
        part, whole = (run * len(columns) + at[name] for name in (ratio.part, ratio.whole))

        def metric(sums: Numbers) -> Numbers:
            with np.errstate(divide="ignore", invalid="ignore"):
                found: Numbers = sums[:, part] / sums[:, whole]
            return found

        return metric

    def less(run: int, ratio: Ratio) -> Metric:
        ours, first = of(run, ratio), of(0, ratio)

        def metric(sums: Numbers) -> Numbers:
            with np.errstate(invalid="ignore"):
                found: Numbers = ours(sums) - first(sums)
            return found

        return metric

    runs = range(len(all_sums))
    metrics = {
        (kind, i, key): make(i, ratio)
        for kind, make in (("value", of), ("difference", less))
        for i in runs
        for key, ratio in compared.items()
    }
    found = bootstrap(table, metrics, resamples, seed)

    def varies(run: int, key: str) -> bool:
        return not (compared[key].is_share and found["value", run, key].value in _ALL_OR_NONE)

    def told(kind: str, run: int, key: str) -> Estimate:
        one = found[kind, run, key]
        is_known = varies(run, key) and (kind == "value" or varies(0, key))
        return one if is_known else Estimate(one.value)

    values, differences = (
        [{key: told(kind, i, key) for key in compared} for i in runs]
        for kind in ("value", "difference")
    )
    return values, differences


# -- diversity ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Moving:
    """A number, and how it moves without each of some queries, (queries,)."""

    value: float
    queries: NDArray[np.int64]
    moves: Numbers


def estimate_diversity(
    all_measured: Sequence[Measured],
) -> tuple[list[dict[str, Estimate]], list[dict[str, Estimate]]]:
    """Return what :func:`estimate` does for distinct n-grams and the Vendi score.

    The intervals are those of a jackknife.
    """
    found = [_diversity(measured) for measured in all_measured]
    nothing = Estimate(None)
    values = [
        {
            name: nothing if one is None else jackknife(one.value, one.moves)
            for name, one in run.items()
        }
        for run in found
    ]
    differences = [
        {
            name: nothing
            if one is None or (first := found[0][name]) is None
            else _difference(one, first)
            for name, one in run.items()
        }
        for run in found
    ]
    return values, differences


def _diversity(measured: Measured) -> dict[str, _Moving | None]:
    grams = measured.grams or [_NO_GRAMS] * 3
    found = {f"distinct_{n}": _distinct(some) for n, some in enumerate(grams, 1)}
    return {**found, "vendi": _vendi(measured.held)}


_NO_GRAMS = Grams(np.empty(0, np.int64), np.empty(0, np.int64))


def _distinct(grams: Grams) -> _Moving | None:
    queries, at = np.unique(grams.session, return_inverse=True)
    found = distinct_moves(Grams(grams.ids, at), len(queries))
    return None if found is None else _Moving(found[0], queries, found[1])


def _vendi(held: Sequence[tuple[int, Hashes]]) -> _Moving | None:
    found = vendi_moves([hashes for _, hashes in held])
    if found is None:
        return None
    queries, at = np.unique([query for query, _ in held], return_inverse=True)
    moves = np.bincount(at, found[1], len(queries)).astype(np.float64)
    return _Moving(found[0], queries, moves)


def _difference(ours: _Moving, first: _Moving) -> Estimate:
    """Return the difference of two runs; a query that both continued moves both."""
    queries = np.union1d(ours.queries, first.queries)
    moves = np.zeros(len(queries))
    moves[np.searchsorted(queries, ours.queries)] += ours.moves
    moves[np.searchsorted(queries, first.queries)] -= first.moves
    return jackknife(ours.value - first.value, moves)
