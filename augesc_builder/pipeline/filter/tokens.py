"""Whose tokens a session's length is counted in (section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from augesc_builder.config.recipe import Recipe
from augesc_builder.models.backbone import place_of
from augesc_builder.models.token_counter import TokenCounter, load_counter
from augesc_builder.readers.chunks import PARQUET
from augesc_builder.readers.parquet import open_table
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.provenance import pin_tokenizer


def requirements_counter(folder: RunFolder, recipe: Recipe) -> TokenCounter | None:
    """Return the counter of all texts, whoever wrote them (``requirements.tokenizer``), if any."""
    asked = pin_tokenizer(folder, recipe.requirements.tokenizer)
    return None if asked is None else load_counter(asked.name, asked.revision)


def backbone_counter(recipe: Recipe, files: Sequence[Path]) -> TokenCounter | None:
    """Return the backbone's counter where rows come without counts, if the backbone has a name."""
    if recipe.backbone.name is None or not lacks_counts(files):
        return None
    return load_counter(place_of(recipe.backbone), recipe.backbone.revision)


def lacks_counts(files: Sequence[Path]) -> bool:
    """Whether rows have no token counts, as far as the first file tells."""
    if files[0].suffix != PARQUET:
        return True
    with open_table(files[0]) as file:
        found = set(file.schema_arrow.names)
        if "n_tokens" not in found or not {"n_prompt_tokens", "messages"} & found:
            return True
        return "n_prompt_tokens" in found and _has_nulls(file, "n_tokens")


def _has_nulls(file: pq.ParquetFile, name: str) -> bool:
    """Whether a column has nulls, by the statistics beside it: without those, it may have."""
    metadata, at = file.metadata, file.schema_arrow.names.index(name)
    for group in range(metadata.num_row_groups):
        known = metadata.row_group(group).column(at).statistics
        if known is None or not known.has_null_count or known.null_count:
            return True
    return False
