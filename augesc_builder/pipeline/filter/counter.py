"""Which tokenizer counts the tokens of texts: the recipe's, or none beside what wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.config.requirements import BACKBONE
from augesc_builder.models.backbone import place_of
from augesc_builder.readers.chunks import PARQUET
from augesc_builder.readers.parquet import open_table
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.provenance import pin_backbone, pin_tokenizer

if TYPE_CHECKING:
    from augesc_builder.models.token_counter import TokenCounter


def counter_of(folder: RunFolder, recipe: Recipe) -> TokenCounter | None:
    """Load what counts the tokens of all texts, where the recipe names it."""
    from augesc_builder.models.token_counter import load_counter

    chosen = recipe.requirements.tokenizer
    if chosen is None:
        return None
    if chosen.name == BACKBONE:
        origin = pin_backbone(folder, recipe).backbone
        return load_counter(place_of(origin), origin.revision)
    pinned = pin_tokenizer(folder, chosen)
    return load_counter(pinned.name, pinned.revision)


def about_counter(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what counts depend on beside ``requirements.tokenizer``, of a recipe or a folder."""
    if "instruction" in settings:  # of a folder of `augesc filter`
        return {key: settings[key] for key in ("instruction", "backbone") if key in settings}
    of_backbone = settings["requirements"]["tokenizer"]["name"] == BACKBONE
    return {
        "instruction": settings["prompt"]["instruction"],
        **({"backbone": settings["backbone"]} if of_backbone else {}),
    }


def lacks_counts(files: Sequence[Path]) -> bool:
    """Whether the files have no columns of token counts."""
    if files[0].suffix != PARQUET:
        return True
    with open_table(files[0]) as file:
        found = set(file.schema_arrow.names)
        return "n_tokens" not in found or not {"n_prompt_tokens", "messages"} & found
