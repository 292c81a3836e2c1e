"""Stage ``card``: the dataset card, from the run's own files."""

from __future__ import annotations

from pathlib import Path

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import RunFolderError
from augesc_builder.pipeline.inputs import sessions_by
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress


def is_as_asked(folder: RunFolder, recipe: Recipe) -> bool:
    """Whether the card that is there has the form that a recipe asks for."""
    return bool(folder.facts("card").get("splits") == recipe.card.splits)


def run(folder: RunFolder, recipe: Recipe | None, _: Progress) -> None:
    """Write the dataset card of a build, and its splits.

    Raises :class:`~augesc_builder.errors.RecipeError` where a split would be empty.
    """
    from augesc_builder.pipeline.card.render import render_card
    from augesc_builder.pipeline.card.splits import write_splits

    again = folder.is_complete("card")
    for stage in layout.STAGES[:-1]:
        if folder.is_complete(stage):  # not every backend needs fine-tuning
            folder.use(stage)
    recipe = recipe or load_recipe(folder.path / layout.RECIPE)
    folder.use("filter", f"{layout.CORPUS}/{layout.REJECTED}")
    sessions = folder.use(sessions_by(recipe), f"{layout.CORPUS}/{layout.DATA}")
    splits = recipe.card.splits
    write_splits(folder, sessions, splits)
    card = render_card(folder.path, folder.path / layout.CORPUS, folder.manifest)
    folder.write_text(f"{layout.CORPUS}/{layout.CARD}", card)
    folder.complete("card", again=again, splits=splits)


def standalone(path: Path, progress: Progress) -> None:
    """Write the card of a build again.

    Raises :class:`~augesc_builder.errors.RunFolderError` where no build is finished.
    """
    manifest = read_manifest(path)
    with RunFolder(path, manifest["settings"], progress) as folder:
        if not folder.is_complete("statistics"):
            raise RunFolderError(
                f"{path}: no finished build there; run `augesc build --out {path}` first"
            )
        run(folder, None, progress)
    progress.say(f"Wrote {path / layout.CORPUS / layout.CARD}")
