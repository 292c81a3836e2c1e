"""Stage ``card``: the dataset card, from the run's own files."""

from __future__ import annotations

from pathlib import Path

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress


def run(folder: RunFolder, _: Recipe | None, __: Progress) -> None:
    """Write the dataset card of a build."""
    from augesc_builder.pipeline.card.render import render_card

    for stage in layout.STAGES[:-1]:
        if folder.is_complete(stage):  # not every backend needs fine-tuning
            folder.use(stage)
    chosen = folder.is_complete("select")
    folder.use("select" if chosen else "filter", f"{layout.CORPUS}/{layout.DATA}")
    folder.use("filter", f"{layout.CORPUS}/{layout.REJECTED}")
    card = render_card(folder.path, folder.path / layout.CORPUS, folder.manifest)
    folder.write_text(f"{layout.CORPUS}/{layout.CARD}", card)
    folder.complete("card")


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
