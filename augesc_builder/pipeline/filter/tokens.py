"""Whose tokens a session's length is counted in (section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from augesc_builder.config.recipe import Recipe
from augesc_builder.models.backbone import place_of
from augesc_builder.models.token_counter import TokenCounter, load_counter
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.readers.chunks import PARQUET
from augesc_builder.readers.parquet import open_table
from augesc_builder.run.draft import Noted
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.provenance import pin_tokenizer


def requirements_counter(folder: Noted, recipe: Recipe) -> TokenCounter | None:
    """Return the counter of all texts, whoever wrote them (``requirements.tokenizer``), if any."""
    asked = pin_tokenizer(folder, recipe.requirements.tokenizer)
    return None if asked is None else load_counter(asked.name, asked.revision)


def build_counter(
    folder: RunFolder, recipe: Recipe, checkpoint: Path, files: Sequence[Path] = ()
) -> tuple[TokenCounter | None, bool]:
    """Return what counts the tokens of a build's texts, and whether it counts all of them anew.

    It is ``requirements.tokenizer``, or else the tokenizer that is in the checkpoint, or that of a
    backbone with a name where rows of ``files`` come without counts; ``None`` where all keep their
    own.
    """
    if (asked := requirements_counter(folder, recipe)) is not None:
        return asked, True
    if counts_stripped(recipe) and backend_of(recipe).needs_checkpoint:
        return load_counter(checkpoint), False
    if recipe.backbone.name is None or not files or not lacks_counts(files):
        return None, False
    return load_counter(place_of(recipe.backbone), recipe.backbone.revision), False


def counts_stripped(recipe: Recipe) -> bool:
    """Whether session length is that of what is read, where a tokenizer is at hand."""
    return recipe.requirements.counted == "stripped" and recipe.prompt.form == "paper"


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
