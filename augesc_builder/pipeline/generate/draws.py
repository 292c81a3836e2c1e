"""How many backgrounds were drawn, how many are kept, and why others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

Draws = Mapping[str, Any]
"""``conversations``, ``kept`` backgrounds, ``tokens`` of all draws, and ``faults``, draws that were
not kept by why."""


def drawn(generations: pa.Table) -> Draws:
    """Count the backgrounds of a generations table."""
    faults = Counter(
        fault for found in generations["background_faults"].to_pylist() for fault in found or ()
    )
    return {
        "conversations": generations.num_rows,
        "kept": generations.num_rows - generations["background"].null_count,
        "tokens": sum(n or 0 for n in generations["n_background_tokens"].to_pylist()),
        "faults": dict(sorted(faults.items())),
    }


def merged(parts: Sequence[Draws]) -> Draws:
    """Add counts up."""
    faults: Counter[str] = Counter()
    for part in parts:
        faults.update(part["faults"])
    sums = {name: sum(p[name] for p in parts) for name in ("conversations", "kept", "tokens")}
    return {**sums, "faults": dict(sorted(faults.items()))}


def told(draws: Draws) -> str:
    """Say the counts in a line."""
    why = ", ".join(f"{fault} {n:,}" for fault, n in draws["faults"].items())
    n_again = sum(draws["faults"].values())
    return (
        f"{draws['kept']:,} of {draws['conversations']:,} have a background ({draws['tokens']:,} "
        f"tokens more); drafts that were not kept: {n_again:,}" + (f" ({why})" if why else "")
    )
