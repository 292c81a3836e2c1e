"""What a finished build says at its end: both tables beside the paper's, and what to try next."""

from __future__ import annotations

from pathlib import Path

from augesc_builder.config.recipe import load_recipe
from augesc_builder.pipeline.filter.report import filter_table
from augesc_builder.pipeline.statistics.report import statistics_table
from augesc_builder.run import layout
from augesc_builder.run.layout import load_report


def summary(folder: str | Path) -> str:
    """Sum up a finished build."""
    folder = Path(folder)
    corpus = folder / layout.CORPUS
    report = load_report(corpus, "filter")
    statistics = load_report(corpus, "statistics")
    recipe = load_recipe(folder / layout.RECIPE)
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
  less {corpus / layout.CARD}
  augesc filter --reuse {folder} --set {longer}
  augesc stats {corpus} --out {folder}-stats --paper
  open {corpus / layout.FIGURES}"""
