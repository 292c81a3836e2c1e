"""The requirements by themselves: on anybody's generations, and again with other thresholds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augesc_builder import pipeline, stages
from augesc_builder.alone import is_new, load_json
from augesc_builder.errors import InputError, RecipeError, RunFolderError
from augesc_builder.filtering import Filter, count, filter_report
from augesc_builder.progress import Progress
from augesc_builder.recipe import load_recipe
from augesc_builder.report import filter_table
from augesc_builder.requirements import decide
from augesc_builder.run_folder import RunFolder, read_manifest
from augesc_builder.settings import Recipe
from augesc_builder.sources.generations import generations_files
from augesc_builder.sources.pieces import PARQUET, count_rows
from augesc_builder.sources.tables import open_table, read_table
from augesc_builder.tables import MEASURED
from augesc_builder.tokens import load_counter


def filter_(
    recipe: Recipe,
    generations: Path,
    out: Path,
    progress: Progress,
    *,
    includes_query: bool = False,
    tokenizer: str | None = None,
    from_recipe: bool = False,
    scan: bool = True,
    num_proc: int | None = None,
) -> None:
    """Apply the requirements to generations; print Table 1.

    Where rows have no token counts, ``tokenizer`` counts them, or (``from_recipe``) that of the
    recipe's model; without one ``session_length`` is not measured. ``scan`` is for the safety pass.
    """
    files = generations_files(generations)
    settings: dict[str, Any] = {
        "stage": "filter",
        "requirements": recipe.requirements.model_dump(mode="json"),
        "inputs": pipeline.digest(files),
        "includes_query": includes_query,
        "scan": scan,
    }
    counter = None
    if tokenizer or (from_recipe and recipe.backbone.name and _lacks_counts(files)):
        name, revision = tokenizer or str(recipe.backbone.name), None
        if not tokenizer:
            revision = recipe.backbone.revision
        counter = load_counter(name, revision)
        settings |= {"tokenizer": name, "instruction": recipe.prompt.instruction}
    instruction, classifier = recipe.prompt.instruction, recipe.safety.classifier
    judge = Filter(recipe.requirements, includes_query, instruction, counter, classifier, scan)
    with RunFolder(out, settings) as run:
        if is_new(run, "filter", progress):
            run.record(files=[str(file.resolve()) for file in files])
            stages.filter_(run, judge, files, ".", progress, num_proc=num_proc)
    _say(load_json(out / "filter_report.json"), progress)


def again(
    done: Path,
    overrides: Sequence[str],
    recipe: str | None,
    out: Path | None,
    progress: Progress,
    num_proc: int | None = None,
) -> None:
    """Judge what was measured in ``done`` (a folder of ``augesc filter`` or of a build) again.

    The thresholds are those of ``done`` with ``overrides``, or the recipe's. Without ``out``,
    Table 1 is printed and nothing is written.
    """
    manifest = read_manifest(done)
    before = manifest["settings"]
    if not (done / ".complete" / "filter.json").exists():
        raise RunFolderError(f"{done}: its filtering is not finished; finish it first")
    kept = [f"requirements={json.dumps(before['requirements'])}"] if recipe is None else []
    limits = load_recipe(recipe or "paper", [*kept, *overrides]).requirements
    if limits.role_words.model_dump(mode="json") != before["requirements"]["role_words"]:
        raise RecipeError(
            "requirements.role_words changes what is measured, and not only what is decided; "
            "filter again without --reuse"
        )
    measured = sorted((done / stages.MEASURED).glob("*.parquet"))
    if out is None:
        counts = []
        total = sum(map(count_rows, measured))
        with progress.bar(total, "judging", "text") as bar:
            for file in measured:
                table = read_table(file, list(MEASURED))
                names = decide(table.to_pydict(), limits.model_dump())["violations"]
                counts.append(count(table, names))
                bar.update(len(table))
        _say(filter_report(counts), progress)
        progress.say("\nNothing was written; give --out DIR to keep these sessions.")
        return
    files = _generations_of(done, manifest)
    settings = {
        "stage": "filter",
        "requirements": limits.model_dump(mode="json"),
        "inputs": pipeline.digest(files),
        "includes_query": before.get("includes_query", False),
        "scan": before.get("scan", True),
        **{key: before[key] for key in ("tokenizer", "instruction") if key in before},
    }
    if before.get("stage") == "filter" and settings["inputs"] != before["inputs"]:
        raise InputError("changed since it was measured; filter it again without --reuse", files[0])
    judge = Filter(limits, settings["includes_query"], scan=settings["scan"])
    with RunFolder(out, settings) as run:
        if is_new(run, "filter", progress):
            run.record(files=[str(file.resolve()) for file in files])
            stages.filter_(
                run,
                judge,
                files,
                ".",
                progress,
                num_proc=num_proc,
                measured=done / stages.MEASURED,
            )
    _say(load_json(out / "filter_report.json"), progress)


def _generations_of(done: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Find the generations that were measured: a build's own, or the files that were given."""
    if "files" not in manifest:
        return stages.table_files(done / "generations", "generations")
    files = [Path(file) for file in manifest["files"]]
    for file in files:
        if not file.exists():
            raise InputError("gone since it was measured; put it back, or filter anew", file)
    return files


def _lacks_counts(files: Sequence[Path]) -> bool:
    """Say whether the files have no columns of token counts."""
    if files[0].suffix != PARQUET:
        return True
    with open_table(files[0]) as file:
        found = set(file.schema_arrow.names)
        return "n_tokens" not in found or not {"n_prompt_tokens", "messages"} & found


def _say(report: Mapping[str, Any], progress: Progress) -> None:
    progress.say(filter_table(report))
    progress.say(f"\nKept {report['retained']:,} of {report['total']:,} texts.")
    if missing := report["violations"]["session_length"].get("not_measured"):
        progress.say(
            f"session_length was not measured for {missing:,} of them, which have no token counts: "
            f"give --tokenizer NAME or DIR, or --recipe for that of its model."
        )
