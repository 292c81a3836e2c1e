"""What a recipe reads from this disk: checked before anything is written, and told by digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import InputError
from augesc_builder.run.provenance import digest, files_below


def run_settings(recipe: Recipe) -> dict[str, Any]:
    """Give what must not change while a folder is filled: the recipe and its local inputs."""
    return {**recipe.settings(), "inputs": input_digests(recipe)}


def input_digests(recipe: Recipe) -> dict[str, str]:
    """Give a digest of every local file that the recipe reads, by the key that names it."""
    from augesc_builder.sources import sample
    from augesc_builder.sources.reddit import ON_THE_HUB

    files: dict[str, list[Path]] = {}
    if recipe.finetune.sessions == "sample":
        files["finetune.sessions"] = [sample.SESSIONS]
    elif recipe.finetune.sessions != "esconv":
        files["finetune.sessions"] = [Path(recipe.finetune.sessions)]
    for i, origin in enumerate(recipe.queries.sources):
        key = f"queries.sources.{i}"
        if origin.source == "sample":
            files[key] = [sample.QUERIES]
        elif origin.path is not None and not origin.path.startswith(ON_THE_HUB):
            files[key] = files_below(Path(origin.path))
    return {key: digest(paths) for key, paths in files.items()}


def check_inputs(recipe: Recipe) -> None:
    """Find mistakes in local inputs before anything is written or trained."""
    from augesc_builder.sources.sessions import BUNDLED, ON_THE_HUB, read_training_sessions

    if recipe.finetune.sessions not in {BUNDLED, ON_THE_HUB}:
        sessions, _ = read_training_sessions(recipe.finetune.sessions, None)
        if len(sessions) < recipe.finetune.n_sessions:
            raise InputError(
                f"holds {len(sessions)} sessions, and finetune.n_sessions is "
                f"{recipe.finetune.n_sessions}; lower it with --set finetune.n_sessions=N",
                recipe.finetune.sessions,
            )
    if recipe.backbone.name is not None:
        from augesc_builder.models.causal_lm import check_folder

        check_folder(recipe.backbone.name)
    if recipe.generate.tensor_parallel > 1:
        from augesc_builder.models.causal_lm import check_tensor_parallel, config_of

        origin = recipe.backbone
        config = config_of(origin.from_scratch, origin.name, origin.revision)
        check_tensor_parallel(config, origin.label, recipe.generate.tensor_parallel)
