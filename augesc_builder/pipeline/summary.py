"""What a finished build says at its end: both tables beside the paper's, and what to try next."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.card.examples import kept_example
from augesc_builder.pipeline.filter.report import filter_table
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.statistics.report import (
    figure_4_text,
    overlap_tables,
    statistics_table,
)
from augesc_builder.run import layout
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.layout import load_report
from augesc_builder.text.prompts import SPEAKER

_SHOWN, _WIDTH = 6, 100
"""Utterances of the session that is shown, and columns of a line."""


def summary(folder: str | Path) -> str:
    """Sum up a finished build."""
    folder = Path(folder)
    corpus = folder / layout.CORPUS
    report = load_report(corpus, "filter")
    statistics = load_report(corpus, "statistics")
    recipe = load_recipe(folder / layout.RECIPE)
    backend = backend_of(recipe)
    demo = (
        "\nThe model of this recipe is tiny and began from random weights: the run shows that\n"
        "every stage works. Its conversations do not make sense; train nothing on them.\n"
        if recipe.backbone.from_scratch and backend.needs_checkpoint
        else ""
    )
    chosen = (
        f" {load_report(corpus, 'select')['chosen']:,} of them were chosen."
        if recipe.select is not None
        else ""
    )
    n_failed = read_manifest(folder).get("tables", {}).get("failed", 0)
    failed = f" {n_failed:,} more could not be made (table {layout.FAILED})." if n_failed else ""
    nothing = (
        "\nNothing was kept, so there are no sessions to load; look at the rejected texts.\n"
        if not report["retained"]
        else ""
    )
    longer = "requirements.total_utterances.min=14"
    return f"""
Kept {report["retained"]:,} of {report["total"]:,} conversations.{chosen}{failed}

{filter_table(report, backend.label(recipe))}

{statistics_table(statistics, with_paper=True)}
{_beside_the_paper(statistics)}{nothing}{_example(corpus)}{demo}
Next:
  python -c "from datasets import load_dataset; print(load_dataset('{corpus}'))"
  less {corpus / layout.CARD}
  augesc filter --reuse {folder} --set {longer}
  augesc stats {corpus} --out {folder}-stats --paper
  open {corpus / layout.FIGURES}"""


def _beside_the_paper(statistics: Mapping[str, Any]) -> str:
    """Say what of Figure 4 is the paper's, and what is shared with test sessions, if anything."""
    as_printed = figure_4_text(statistics)
    parts = [f"Of the paper's figure 4, {as_printed}."] if as_printed else []
    parts += overlap_tables(statistics)
    return "".join(f"\n{part}\n" for part in parts)


def _example(corpus: Path) -> str:
    """Show how a kept session begins; empty where all that were looked at carry safety flags."""
    row, _ = kept_example(corpus)
    if row is None:
        return ""
    said = [
        textwrap.fill(
            f"{SPEAKER[message['role']]}: {message['content']}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
        )
        for message in row["messages"][:_SHOWN]
    ]
    left = len(row["messages"]) - _SHOWN
    more = [f"  ... and {left} more utterance{'s' * (left > 1)}"] if left > 0 else []
    return "\n".join([f"\nHow {row['session_id']} begins:", *said, *more, ""])
