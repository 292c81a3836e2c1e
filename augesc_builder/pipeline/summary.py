"""What a finished build says at its end: both tables beside the paper's, and what to try next."""

from __future__ import annotations

import json
from pathlib import Path

from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.filter.report import filter_table
from augesc_builder.pipeline.statistics.report import statistics_table


def summary(folder: str | Path) -> str:
    """Sum up a finished build."""
    folder = Path(folder)
    corpus = folder / "corpus"
    report = json.loads((corpus / "filter_report.json").read_text(encoding="utf-8"))
    statistics = json.loads((corpus / "statistics.json").read_text(encoding="utf-8"))
    recipe = load_recipe(folder / "recipe.yaml")
    demo = (
        "\nThe model of this recipe is tiny and began from random weights: the run shows that\n"
        "every stage works. Its conversations do not make sense; train nothing on them.\n"
        if recipe.backbone.from_scratch
        else ""
    )
    nothing = (
        "\nNothing was kept, so there are no sessions to load; look at the rejected texts.\n"
        if not report["retained"]
        else ""
    )
    longer = "requirements.total_utterances.min=14"
    return f"""
Kept {report["retained"]:,} of {report["total"]:,} conversations.

{filter_table(report, recipe.backbone.label)}

{statistics_table(statistics, with_paper=True)}
{nothing}{demo}
Next:
  python -c "from datasets import load_dataset; print(load_dataset('{corpus}'))"
  less {corpus / "README.md"}
  augesc filter --reuse {folder} --set {longer}
  augesc stats {corpus} --out {folder}-stats --paper
  open {corpus / "figures"}"""
