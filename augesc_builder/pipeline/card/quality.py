"""What a card says of measures of quality, where they were taken."""

from __future__ import annotations

from pathlib import Path

from augesc_builder.config.quality import MeasureName
from augesc_builder.pipeline.card.public import PublicRun
from augesc_builder.pipeline.quality.report import quality_tables
from augesc_builder.run import layout
from augesc_builder.run.escape import for_markdown, markdown_code
from augesc_builder.run.layout import load_report
from augesc_builder.run.markdown import markdown_table


def quality_text(corpus: Path, told: PublicRun) -> str | None:
    """Return the numbers with how far they can be believed; ``None`` where nothing was measured."""
    measures = describe_measures(corpus, told)
    if measures is None:
        return None
    report = told.report(load_report(corpus, "quality"))
    parts = [f"Measured: {measures}."]
    for table in quality_tables(report):
        parts += [f"**{for_markdown(table.title)}**", markdown_table(table.header, table.rows)]
        parts += [table.note(for_markdown)] if table.note is not None else []
    return "\n\n".join(parts)


def describe_measures(corpus: Path, told: PublicRun) -> str | None:
    """Return which measures were taken, and by what; ``None`` where nothing was measured."""
    if not (corpus / layout.QUALITY_REPORT).is_file():
        return None
    return ", ".join(_measured(name, told) for name in load_report(corpus, "quality")["measures"])


def _measured(name: MeasureName, told: PublicRun) -> str:
    """Return a measure with its model, as it is published."""
    found = told.recipe.quality.models().get(name)
    if found is None:
        return f"{markdown_code(name)} (by rules)"
    commit = told.commits.get(found[0])
    return f"{markdown_code(name)} (by {markdown_code(found[0])}" + (
        f" at commit `{commit}`)" if commit else ")"
    )
