"""What was drawn beside the texts that stand: backgrounds, and turns that were drawn again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from augesc_builder.config.recipe import Recipe
from augesc_builder.readers.parquet import read_table

Draws = Mapping[str, Any]
"""Counts, of which one is a mapping of why draws were not kept to how many."""

BACKGROUNDS, RESAMPLED = "backgrounds", "resampled"
"""What a recipe may draw beside its texts, as a run's manifest calls it."""

BESIDE = ("n_background_tokens", "n_resampled_tokens")
"""The columns of generations that hold the tokens of such draws."""


def drawn(generations: pa.Table, recipe: Recipe) -> dict[str, Draws]:
    """Count what a generations table tells of the draws that a recipe asks for, by their names."""
    found: dict[str, Draws] = {}
    if recipe.prompt.background:
        found[BACKGROUNDS] = {
            "conversations": generations.num_rows,
            "kept": generations.num_rows - generations["background"].null_count,
            "tokens": _sum(generations["n_background_tokens"]),
            "faults": _reasons(generations["background_faults"]),
        }
    if recipe.generate.resample is not None:
        found[RESAMPLED] = {
            "conversations": generations.num_rows,
            "changed": sum(map(bool, generations["resampled"].to_pylist())),
            "tokens": _sum(generations["n_resampled_tokens"]),
            "faults": _reasons(generations["resampled"]),
        }
    return found


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Draws]:
    """Add up what shards count; other facts of theirs are left out."""
    return {
        name: _added([part[name] for part in parts if name in part])
        for name in (BACKGROUNDS, RESAMPLED)
        if any(name in part for part in parts)
    }


def told(name: str, draws: Draws) -> str:
    """Say counts in a line."""
    why = ", ".join(f"{fault} {n:,}" for fault, n in draws["faults"].items())
    n_again = sum(draws["faults"].values())
    tokens, of = f"{draws['tokens']:,} tokens more", f"of {draws['conversations']:,}"
    said = (
        f"{draws['kept']:,} {of} have a background ({tokens}); drafts that were not kept: "
        if name == BACKGROUNDS
        else f"{draws['changed']:,} {of} were cut before a bad turn and drawn on from there "
        f"({tokens}); draws: "
    )
    return f"{said}{n_again:,}" + (f" ({why})" if why else "")


def tokens_beside(file: Path, of: Sequence[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the columns ``of`` of the rows of a generations table, each with such tokens.

    Rows without any are left out, and so are tables of before there were such draws.
    """
    for row in read_table(file, [*of], optional=BESIDE).to_pylist():
        if n := sum(row.pop(name, None) or 0 for name in BESIDE):
            yield row, n


def _sum(column: pa.ChunkedArray) -> int:
    return sum(n or 0 for n in column.to_pylist())


def _reasons(column: pa.ChunkedArray) -> dict[str, int]:
    found = Counter(reason for reasons in column.to_pylist() for reason in reasons or ())
    return dict(sorted(found.items()))


def _added(parts: Sequence[Draws]) -> Draws:
    faults: Counter[str] = Counter()
    for part in parts:
        faults.update(part["faults"])
    sums = {name: sum(part[name] for part in parts) for name in parts[0] if name != "faults"}
    return {**sums, "faults": dict(sorted(faults.items()))}
