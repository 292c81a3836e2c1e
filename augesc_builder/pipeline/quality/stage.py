"""Stage ``quality``: what measures of quality say of sessions, as a table and as numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from augesc_builder.config.quality import MODEL_SECTIONS, WITHOUT_A_MODEL, Quality
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.errors import DownloadError, InputError
from augesc_builder.pipeline.inputs import distractors_here, sessions_by
from augesc_builder.readers.chunks import count_rows
from augesc_builder.readers.parquet import read_table
from augesc_builder.readers.records import USUAL, BadLines, Limits, merged
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import content_of, digest, is_new, load_json, pin_quality
from augesc_builder.run.workers import cores, ordered_map
from augesc_builder.sources.base import limits_of
from augesc_builder.sources.generations import shards_of
from augesc_builder.sources.sessions import session_chunks
from augesc_builder.tables import QUALITY

if TYPE_CHECKING:
    from augesc_builder.pipeline.quality.measure import Measured, Measuring, Part
    from augesc_builder.pipeline.statistics.sets import Sets

_CHUNK = 500
"""Sessions that a process is given at a time, by rules alone."""

_SHARD, _SHARD_OF_MODELS = 5_000, 128
"""Sessions of a shard: what a kill costs is minutes, whether rules are at work or models."""


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Measure the sessions of a build."""
    sets = {layout.CORPUS: folder.use(sessions_by(recipe), f"{layout.CORPUS}/{layout.DATA}")}
    _measure(folder, recipe.quality, sets, layout.CORPUS, progress, recipe.seed, strict=True)


def standalone(
    given: Sequence[str],
    out: Path,
    progress: Progress,
    *,
    recipe: str = "paper",
    overrides: Sequence[str] = (),
    num_proc: int | None = None,
) -> None:
    """Measure each of the sets ``given`` (``PATH`` or ``NAME=PATH``), and print the numbers.

    ``recipe`` with ``overrides`` says what is measured: where it names no measures, those that need
    no model.

    Raises :class:`~augesc_builder.errors.InputError` for a file that holds no sessions,
    :class:`~augesc_builder.errors.RecipeError` for a wrong override, and
    :class:`~augesc_builder.errors.DownloadError` where no measure can be taken without what the Hub
    has.
    """
    from augesc_builder.pipeline.statistics.sets import given_sets

    chosen = load_recipe(recipe, overrides)
    quality = chosen.quality
    if not quality.measures:
        quality = quality.only(WITHOUT_A_MODEL)
    sets = given_sets(given)
    settings: dict[str, Any] = {
        "stage": "quality",
        "sessions": {name: digest(files) for name, files in sets.items()},
        "seed": chosen.seed,
        "quality": quality.model_dump(mode="json"),
        "inputs": measured_files(quality),
        **chosen.reading.unusual(),
    }
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "quality", progress):
            limits = limits_of(chosen.reading)
            _measure(
                folder, quality, sets, ".", progress, chosen.seed, limits=limits, num_proc=num_proc
            )
    found = load_json(out / layout.QUALITY_REPORT)
    progress.say((out / layout.QUALITY_MD).read_text(encoding="utf-8"))
    if found["not_conversations"]:
        progress.say(f"{found['not_conversations']:,} texts are no conversations and are left out.")
    progress.say(f"All numbers are in {out / layout.QUALITY_REPORT}, a row a session in {out}.")


def measured_files(quality: Quality) -> dict[str, str]:
    """Return a digest of everything local that measures read, by the key that names it."""
    models = {MODEL_SECTIONS[name]: Path(model) for name, (model, _) in quality.models().items()}
    found = {key: content_of(folder) for key, folder in models.items() if folder.is_dir()}
    return found | {key: digest(files) for key, files in distractors_here(quality).items()}


def _measure(
    folder: RunFolder,
    quality: Quality,
    sets: Sets,
    place: str,
    progress: Progress,
    seed: int,
    *,
    strict: bool = False,
    limits: Limits = USUAL,
    num_proc: int | None = None,
) -> None:
    """Measure sets of sessions in shards, and sum up."""
    from augesc_builder.pipeline.quality.measure import Measuring
    from augesc_builder.pipeline.quality.measures import own_judges
    from augesc_builder.pipeline.quality.report import quality_markdown, quality_report

    quality, not_measured = pinned(folder, quality, progress)
    measuring = Measuring(quality, strict)
    table = f"{place}/{layout.QUALITY}/{layout.SPLIT}"
    facts = score(
        folder, measuring, sets, "quality", table, progress, limits=limits, num_proc=num_proc
    )
    bad = merged(BadLines(**fact["bad_lines"]) for fact in facts)
    bad.say(progress.say)
    folder.bring("quality")
    tables = (
        read_table(folder.path / layout.shard_path(table, i, len(facts)), [*QUALITY])
        for i in range(len(facts))
    )
    measures = {measure.name: measure.settings() for measure in measuring.measures()}
    if judges := own_judges(quality, sets):
        measures["topic_drift"]["own_judge"] = True
    report = {
        **quality_report(tables, list(sets), seed),
        "measures": measures,
        "not_measured": not_measured,
        "own_judge": judges,
        "not_conversations": sum(fact["unread"] for fact in facts),
        "bad_lines": bad.report(),
    }
    folder.write_json(f"{place}/{layout.QUALITY_REPORT}", report)
    folder.write_text(f"{place}/{layout.QUALITY_MD}", quality_markdown(report) + "\n")
    folder.complete("quality", tables={"quality": report["sessions"]})


def score(
    folder: RunFolder,
    measuring: Measuring,
    sets: Sets,
    stage: str,
    table: str,
    progress: Progress,
    *,
    limits: Limits = USUAL,
    num_proc: int | None = None,
) -> list[dict[str, Any]]:
    """Write what the measures say of sets of sessions, as shards of a stage; give their facts.

    Where rows must be right, there may be none.

    Raises :class:`~augesc_builder.errors.InputError` where no session can be read.
    """
    quality = measuring.settings
    needs_model = bool(quality.models())
    size = quality.batch_size if needs_model else _CHUNK
    rows = [count_rows(file, limits) for files in sets.values() for file in files]
    shards = shards_of(rows, size, _SHARD_OF_MODELS if needs_model else _SHARD)
    if not shards and measuring.strict:
        return []  # a build may keep nothing
    if not shards:
        raise InputError("no sessions to measure", next(iter(sets.values()))[0])
    missing = set(folder.shards(stage, len(shards)))
    total = sum(rows for _, rows in shards)
    numbers = (number for number, (n_parts, _) in enumerate(shards) for _ in range(n_parts))
    results = ordered_map(
        measuring.part,
        (p for n, p in zip(numbers, _parts(sets, size, limits), strict=True) if n in missing),
        1 if needs_model else num_proc or (cores() if total > _CHUNK else 1),
        preload="augesc_builder.pipeline.quality.measure",
    )
    done = sum(rows for number, (_, rows) in enumerate(shards) if number not in missing)
    with progress.bar(total, "measuring quality", "session", done=done) as bar:
        for number in sorted(missing):
            found: list[Measured] = []
            for one in islice(results, shards[number][0]):
                found.append(one)
                bar.update(len(one))
            bad = merged(one.bad for one in found)
            if not number and not any(one.table.num_rows for one in found):
                why = bad.examples[0] if bad.examples else "none is a conversation"
                raise InputError(
                    f"none of the first {shards[0][1]:,} rows holds a session; {why}",
                    next(iter(sets.values()))[0],
                )
            folder.add_shard(
                stage,
                number,
                len(shards),
                {table: pa.concat_tables(one.table for one in found)},
                unread=sum(one.unread for one in found),
                bad_lines=bad.report(),
            )
    return folder.shard_facts(stage, len(shards))


def pinned(
    folder: RunFolder, quality: Quality, progress: Progress
) -> tuple[Quality, Mapping[str, str]]:
    """Return what can be measured, its models at commits, and why the rest cannot be.

    A run that is resumed measures what it began with. Raises
    :class:`~augesc_builder.errors.DownloadError` where nothing can be measured.
    """
    if "not_measured" not in folder.manifest:
        from augesc_builder.pipeline.quality.measures import to_be_had

        folder.record(not_measured=to_be_had(quality))
    not_measured = folder.manifest["not_measured"]
    for name, why in not_measured.items():
        progress.say(f"  {name} is not measured: {why}")
    left = [name for name in quality.measures if name not in not_measured]
    if not left:
        raise DownloadError("; ".join(not_measured.values()))
    return pin_quality(folder, quality.only(left)), not_measured


def pinned_for(
    what: str, wanted: Collection[str], folder: RunFolder, quality: Quality, progress: Progress
) -> tuple[Quality, Mapping[str, str]]:
    """Return what :func:`pinned` does, for ``what`` goes by the measures ``wanted``.

    Raises :class:`~augesc_builder.errors.DownloadError` where one of these cannot be taken, too.
    """
    found, not_measured = pinned(folder, quality, progress)
    for name in sorted(wanted):
        if name in not_measured:
            raise DownloadError(f"{what} goes by {name}: {not_measured[name]}")
    return found, not_measured


def _parts(sets: Sets, size: int, limits: Limits) -> Iterator[Part]:
    from augesc_builder.pipeline.quality.measure import Part

    for name, files in sets.items():
        for chunk in session_chunks(files, size, limits):
            yield Part(name, chunk)
