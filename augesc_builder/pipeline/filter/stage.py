"""Stage ``filter``: raw conversations become sessions and rejected rows (section 4.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import InputError, RecipeError, RunFolderError
from augesc_builder.models.backbone import place_of
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.inputs import SAFETY_LISTS, input_digests
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.parquet import read_table
from augesc_builder.readers.records import USUAL, BadLines, Limits, merged
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.marks import Marks, parquet_files, table_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json, pin_safety_classifier
from augesc_builder.run.workers import WORTH_PROCESSES, cores, ordered_map
from augesc_builder.sources.base import limits_of
from augesc_builder.sources.generations import generations_files, read_generations, shards_of
from augesc_builder.tables import MEASURED
from augesc_builder.text.prompts import PromptTemplate

if TYPE_CHECKING:
    import pyarrow as pa

    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.readers.chunks import Chunk


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Apply the requirements to the generations of a build."""
    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.pipeline.filter.tokens import build_counter

    generations = folder.use("generate", layout.GENERATIONS)
    classifier = pin_safety_classifier(folder, recipe.safety.classifier)
    counter, recount = build_counter(folder, recipe, generations)
    judge = Filter(
        recipe.requirements,
        template=PromptTemplate(recipe.prompt.instruction, background=True),
        counter=counter,
        recount=recount,
        classifier=classifier,
        strict=True,
    )
    label = backend_of(recipe).label(recipe)
    _filter(folder, judge, generations, layout.CORPUS, progress, model=label)


def standalone(
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
    from augesc_builder.models.token_counter import load_counter
    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.pipeline.filter.tokens import (
        counts_stripped,
        lacks_counts,
        requirements_counter,
    )

    files = generations_files(generations)
    settings: dict[str, Any] = {
        "stage": "filter",
        "requirements": recipe.requirements.settings(),
        "inputs": digest(files),
        "includes_query": includes_query,
        "scan": scan,
        **{key: d for key, d in input_digests(recipe).items() if scan and key.startswith("safety")},
        **recipe.reading.unusual(),
    }
    limits = limits_of(recipe.reading)
    counter = None
    if tokenizer or (from_recipe and recipe.backbone.name and lacks_counts(files)):
        name, revision = tokenizer or str(recipe.backbone.name), None
        place: str | Path = name
        if not tokenizer:
            place, revision = place_of(recipe.backbone), recipe.backbone.revision
        counter = load_counter(place, revision)
        settings |= {"tokenizer": name, "instruction": recipe.prompt.instruction}
    template = PromptTemplate(recipe.prompt.instruction, background=True)
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "filter", progress):
            classifier = pin_safety_classifier(folder, recipe.safety.classifier if scan else None)
            asked = requirements_counter(folder, recipe)
            judge = Filter(
                recipe.requirements,
                includes_query,
                template,
                asked or counter,
                classifier,
                scan,
                recount=asked is not None,
            )
            folder.record(files=[str(file.resolve()) for file in files])
            _filter(folder, judge, files, ".", progress, num_proc=num_proc, limits=limits)
    _say(load_json(out / layout.FILTER_REPORT), progress, stripped=counts_stripped(recipe))


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
    from augesc_builder.pipeline.filter.report import count, filter_report
    from augesc_builder.pipeline.filter.requirements import active, decide

    manifest = read_manifest(done)
    before = manifest["settings"]
    if "filter" not in Marks(done):
        raise RunFolderError(f"{done}: its filtering is not finished; finish it first")
    kept = [f"requirements={json.dumps(before['requirements'])}"] if recipe is None else []
    limits = load_recipe(recipe or "paper", [*kept, *overrides]).requirements
    then = {"counted": "generated", **before["requirements"]}
    for key in ("role_words", "tokenizer", "counted"):
        if limits.settings().get(key) != then.get(key):
            raise RecipeError(
                f"requirements.{key} changes what is measured, and not only what is decided; "
                f"filter again without --reuse"
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
        _say(filter_report(counts, [r.name for r in active(limits)]), progress)
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
            _filter(
                folder,
                judge,
                files,
                ".",
                progress,
                num_proc=num_proc,
                measured=done / layout.MEASURED,
                counted=_counted(done),
                limits=Limits(**settings.get("reading", {})),
            )
    _say(load_json(out / layout.FILTER_REPORT), progress)


def _filter(
    folder: RunFolder,
    judge: Filter,
    files: Sequence[Path],
    place: str,
    progress: Progress,
    *,
    num_proc: int | None = None,
    measured: Path | None = None,
    limits: Limits = USUAL,
    model: str = "ours",
    counted: str | None = None,
) -> None:
    """Split generations into sessions and rejected rows, in shards of some 20,000.

    What is measured goes to ``measured/``, row for row. ``measured`` is a folder of such tables,
    where the same generations were measured before, and ``counted`` says which text their tokens
    are of. ``model`` names the rows of the report.
    """
    import pyarrow as pa

    from augesc_builder.pipeline.filter.report import filter_report, filter_table, merge
    from augesc_builder.pipeline.filter.requirements import active
    from augesc_builder.text.safety import merge_counts

    shards = shards_of([count_rows(file, limits) for file in files])
    if not shards:
        raise InputError("no generations to filter", files[0])
    missing = set(folder.shards("filter", len(shards)))
    total = sum(rows for _, rows in shards)
    numbers = (number for number, (chunks, _) in enumerate(shards) for _ in range(chunks))
    chunks = (
        p for n, p in zip(numbers, read_generations(files, limits), strict=True) if n in missing
    )
    work: Iterator[Any] = (
        chunks if measured is None else _beside(chunks, measured, shards, missing, judge)
    )
    results = ordered_map(
        judge.chunk if measured is None else judge.refilter,
        work,
        1 if judge.classifier else num_proc or (cores() if total > WORTH_PROCESSES else 1),
        preload="augesc_builder.pipeline.filter.filter",
    )
    done = sum(rows for number, (_, rows) in enumerate(shards) if number not in missing)
    n_kept = n_judged = 0
    with progress.bar(total, "judging", "text", done=done) as bar:
        for number in sorted(missing):
            parts = []
            for part in islice(results, shards[number][0]):
                parts.append(part)
                n_kept += len(part.sessions)
                n_judged += len(part)
                bar.update(len(part), kept=n_kept, judged=n_judged)
            bad = merged(part.bad for part in parts)
            if not number and not any(len(part.measured) for part in parts):
                raise InputError(
                    f"none of the first {bad.count:,} rows can be read; {bad.examples[0]}", files[0]
                )
            tables = {
                f"{place}/{layout.DATA}/{layout.SPLIT}": [part.sessions for part in parts],
                f"{place}/{layout.REJECTED}/{layout.SPLIT}": [part.rejected for part in parts],
                f"{layout.MEASURED}/{layout.SPLIT}": [part.measured for part in parts],
            }
            folder.write_shard(
                "filter",
                number,
                len(shards),
                {name: pa.concat_tables(found) for name, found in tables.items()},
                counts=merge(part.counts for part in parts),
                safety=merge_counts(part.flags for part in parts),
                bad_lines=bad.report(),
            )
    facts = folder.shard_facts("filter", len(shards))
    names = [requirement.name for requirement in active(judge.limits)]
    report = filter_report((fact["counts"] for fact in facts), names)
    bad = merged(BadLines(**fact["bad_lines"]) for fact in facts if "bad_lines" in fact)
    report["bad_lines"] = bad.report()
    report["counted"] = counted or judge.counted
    folder.write_json(f"{place}/{layout.FILTER_REPORT}", report)
    folder.write_text(f"{place}/{layout.FILTER_TABLE}", filter_table(report, model) + "\n")
    flags = merge_counts(fact["safety"] for fact in facts)
    folder.write_json(f"{place}/{layout.SAFETY_REPORT}", flags)
    bad.say(progress.say)
    if flags["flagged"]:
        progress.say(
            f"  safety: {flags['flagged']:,} of {flags['sessions']:,} sessions are flagged; "
            f"`augesc safety` shows them"
        )
    rejected = report["total"] - report["retained"]
    folder.complete("filter", tables={"sessions": report["retained"], "rejected": rejected})


def _beside(
    chunks: Iterator[Chunk],
    measured: Path,
    shards: Sequence[tuple[int, int]],
    wanted: set[int],
    judge: Filter,
) -> Iterator[tuple[Chunk, pa.Table]]:
    """Put the rows that were measured of each chunk beside it."""
    from augesc_builder.pipeline.filter.filter import measured_schema

    columns = measured_schema(judge.limits).names
    for number in sorted(wanted):
        name = layout.shard_path(layout.SPLIT, number, len(shards))
        table, start = read_table(measured / name, columns), 0
        whole = table.num_rows == shards[number][1]
        for chunk in islice(chunks, shards[number][0]):
            n_rows = len(chunk.rows) if whole else judge.n_good(chunk)
            yield chunk, table.slice(start, n_rows).combine_chunks()
            start += n_rows


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


def _say(report: Mapping[str, Any], progress: Progress, *, stripped: bool = False) -> None:
    from augesc_builder.pipeline.filter.report import filter_table

    progress.say(filter_table(report))
    progress.say(f"\nKept {report['retained']:,} of {report['total']:,} texts.")
    if missing := report["violations"]["session_length"].get("not_measured"):
        progress.say(
            f"session_length was not measured for {missing:,} of them, which have no token counts: "
            f"give --tokenizer NAME or DIR, or --recipe for that of its model."
        )
    elif stripped and report["counted"] == "generated":
        progress.say(
            "session_length is of the tokens as generated. The paper counts them without what is "
            "taken away at lines' beginnings: give --tokenizer NAME or DIR for that."
        )
