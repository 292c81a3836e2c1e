"""Stages by themselves, from files to a folder of their own; they go on after a kill too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augesc_builder import pipeline, stages
from augesc_builder.errors import InputError, RecipeError, RunFolderError
from augesc_builder.progress import Progress
from augesc_builder.report import statistics_table
from augesc_builder.run_folder import RunFolder, read_manifest
from augesc_builder.settings import QuerySource, Recipe


def queries(
    recipe: Recipe,
    sources: Sequence[str],
    out: Path,
    progress: Progress,
    num_proc: int | None = None,
) -> None:
    """Collect queries from ``NAME=PATH`` sources, or from the recipe's, into ``out``."""
    settings = recipe.queries
    if sources:
        settings = settings.model_copy(update={"sources": [_source(text) for text in sources]})
    recipe = recipe.model_copy(update={"queries": settings})
    digests = {k: v for k, v in pipeline.input_digests(recipe).items() if k.startswith("queries")}
    run_settings = {"stage": "queries", "queries": settings.model_dump(mode="json"), **digests}
    with RunFolder(out, run_settings) as run:
        if is_new(run, "queries", progress):
            num_proc = num_proc or pipeline.worker_processes(settings)
            stages.queries(run, settings, ".", progress, num_proc)


def finetune(recipe: Recipe, out: Path, progress: Progress) -> None:
    """Fine-tune the recipe's backbone into ``out/checkpoint``."""
    pipeline.check_inputs(recipe)
    settings = recipe.settings()
    kept = {key: settings[key] for key in ("seed", "prompt", "backbone", "finetune")}
    digests = {k: v for k, v in pipeline.input_digests(recipe).items() if k.startswith("finetune")}
    with RunFolder(out, {"stage": "finetune", **kept, **digests}) as run:
        if is_new(run, "finetune", progress):
            stages.finetune(run, recipe, "checkpoint", progress)
            progress.say(f"The checkpoint is in {out / 'checkpoint'}")


def generate(
    recipe: Recipe, queries_at: Path, checkpoint: Path, out: Path, progress: Progress
) -> None:
    """Generate conversations for a queries table into ``out``."""
    from augesc_builder.backbone import check_folder

    check_folder(checkpoint)
    files = stages.table_files(queries_at, "queries")
    settings = recipe.settings()
    kept = {key: settings[key] for key in ("seed", "prompt", "generate")}
    inputs = {"queries": pipeline.digest(files), "checkpoint": str(checkpoint)}
    with RunFolder(out, {"stage": "generate", **kept, **inputs}) as run:
        if is_new(run, "generate", progress):
            stages.generate(run, recipe, files, checkpoint, ".", progress)


def statistics(
    given: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    with_paper: bool,
    finetuned_on: Path | None = None,
    near_duplicates: bool = False,
    basic: bool = False,
    num_proc: int | None = None,
) -> None:
    """Measure each of the sets ``given`` (``PATH`` or ``NAME=PATH``), and print Table 2."""
    from augesc_builder.measuring import Measuring
    from augesc_builder.metrics.duplication.counts import DEFAULT
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.sources.esconv import read_esconv

    sets = _sets(given)
    near = DEFAULT if near_duplicates else None
    trained_on = None
    settings: dict[str, Any] = {
        "stage": "statistics",
        "sessions": {name: pipeline.digest(files) for name, files in sets.items()},
        "basic": basic,
        "near_duplicates": near and near.model_dump(mode="json"),
    }
    if finetuned_on is not None:
        trained_on = utterances_of(s.messages for s in read_esconv(finetuned_on))
        settings["finetuned_on"] = pipeline.digest([finetuned_on])
    what = Measuring(basic, trained_on, near)
    with RunFolder(out, settings) as run:
        if is_new(run, "statistics", progress):
            stages.statistics(run, sets, what, ".", progress, num_proc=num_proc)
    progress.say(statistics_table(load_json(out / "statistics.json"), with_paper=with_paper))
    if not basic:
        progress.say(
            f"\nAll numbers are in {out / 'statistics.json'}, figures in {out / 'figures'}."
        )


def _sets(given: Sequence[str]) -> dict[str, list[Path]]:
    """Name the sets: as the user does, or by their file or folder."""
    from augesc_builder.sources.sessions import sessions_files

    sets: dict[str, list[Path]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if not equals or Path(text).exists():
            path = Path(text)
            name = path.stem if path.is_file() else path.resolve().name
        else:
            path = Path(rest)
        if name in sets:
            raise InputError(f"a second set called {name}; name it, as in other={path}", path)
        sets[name] = sessions_files(path)
    return sets


def card(folder: Path, progress: Progress) -> None:
    """Write the card of a build again."""
    manifest = read_manifest(folder)
    with RunFolder(folder, manifest["settings"]) as run:
        if not run.is_complete("statistics"):
            raise RunFolderError(
                f"{folder}: no finished build there; run `augesc build --out {folder}` first"
            )
        stages.card(run, "corpus")
    progress.say(f"Wrote {folder / 'corpus' / 'README.md'}")


def _source(text: str) -> QuerySource:
    name, equals, path = text.partition("=")
    if not name or (equals and not path):
        raise RecipeError(f"--source {text}: expected NAME or NAME=PATH")
    return QuerySource(source=name, path=path or None)


def is_new(run: RunFolder, stage: str, progress: Progress) -> bool:
    """Say whether a stage is still to be run, and tell the user where it is not."""
    if run.is_complete(stage):
        progress.say(f"{run.path} is complete: nothing to do")
        return False
    if "versions" not in run.manifest:
        run.record(versions=pipeline.versions())
    return True


def load_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
