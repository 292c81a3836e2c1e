"""Judging again, by other thresholds, what was measured before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import InputError, RecipeError, RunFolderError
from augesc_builder.executors.local import LocalExecutor
from augesc_builder.pipeline.filter.judging import Asked, filter_files
from augesc_builder.pipeline.inputs import SAFETY_LISTS
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.parquet import read_table
from augesc_builder.readers.records import Limits
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.marks import Marks, parquet_files, table_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json
from augesc_builder.tables import MEASURED


def refilter(
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

    Raises :class:`~augesc_builder.errors.RunFolderError` where filtering is not finished there,
    :class:`~augesc_builder.errors.RecipeError` for other role words or another tokenizer, and
    :class:`~augesc_builder.errors.InputError`
    where the texts have changed since.
    """
    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.pipeline.filter.measure import measured_columns
    from augesc_builder.pipeline.filter.report import count, filter_report, say
    from augesc_builder.pipeline.filter.requirements import active, decide

    manifest = read_manifest(done)
    before = manifest["settings"]
    if "filter" not in Marks(done):
        raise RunFolderError(f"{done}: its filtering is not finished; finish it first")
    kept = [f"requirements={json.dumps(before['requirements'])}"] if recipe is None else []
    chosen = load_recipe(recipe or "paper", [*kept, *overrides])
    limits = chosen.requirements
    then = {"counted": "generated", **before["requirements"]}
    for key in ("role_words", "tokenizer", "counted"):
        if limits.settings().get(key) != then.get(key):
            raise RecipeError(
                f"requirements.{key} changes what is measured, and not only what is decided; "
                f"filter again without --reuse"
            )
    if (asked := limits.test_overlap) is not None and asked.sessions != then.get(
        "test_overlap", {}
    ).get("sessions"):
        raise RecipeError(
            "requirements.test_overlap.sessions: nothing was measured against those; filter again "
            "without --reuse"
        )
    measured = parquet_files(done / layout.MEASURED)
    if out is None:
        counts = []
        columns = [*MEASURED, *measured_columns(limits)]
        total = sum(map(count_rows, measured))
        with progress.bar(total, "judging", "text") as bar:
            for file in measured:
                table = read_table(file, columns)
                names = decide(table.to_pydict(), limits.settings())["violations"]
                counts.append(count(table, names))
                bar.update(len(table))
        say(filter_report(counts, [r.name for r in active(limits)]), progress)
        progress.say("\nNothing was written; give --out DIR to keep these sessions.")
        return
    files = _generations_of(done, manifest)
    settings = {
        "stage": "filter",
        "requirements": limits.settings(),
        "inputs": digest(files),
        "includes_query": before.get("includes_query", False),
        "scan": before.get("scan", True),
        "safety.lexicon": digest(SAFETY_LISTS),
        **{key: before[key] for key in ("tokenizer", "instruction", "reading") if key in before},
    }
    if before.get("stage") == "filter" and settings["inputs"] != before["inputs"]:
        raise InputError("changed since it was measured; filter it again without --reuse", files[0])
    judge = Filter(limits, settings["includes_query"], scan=settings["scan"])
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "filter", progress):
            folder.record(files=[str(file.resolve()) for file in files])
            filter_files(
                folder,
                Asked(
                    judge,
                    files,
                    ".",
                    limits=Limits(**settings.get("reading", {})),
                    measured=done / layout.MEASURED,
                    num_proc=num_proc,
                ),
                LocalExecutor(),
                progress,
                counted=_counted(done),
                seed=before.get("seed", chosen.seed),
            )
    say(load_json(out / layout.FILTER_REPORT), progress)


def _generations_of(done: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Find the generations that were measured: a build's own, or the files that were given."""
    if "files" not in manifest:
        return table_files(done / layout.GENERATIONS, layout.GENERATIONS)
    files = [Path(file) for file in manifest["files"]]
    for file in files:
        if not file.exists():
            raise InputError("gone since it was measured; put it back, or filter anew", file)
    return files


def _counted(done: Path) -> str:
    """Return which text the tokens were counted of; runs of before counted what was generated."""
    corpus = done / layout.CORPUS
    report = load_json((corpus if corpus.is_dir() else done) / layout.FILTER_REPORT)
    return str(report.get("counted", "generated"))
