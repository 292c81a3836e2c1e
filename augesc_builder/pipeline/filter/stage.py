"""Stage ``filter``: raw conversations become sessions and rejected rows (section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.executors import executor_of
from augesc_builder.models.backbone import place_of
from augesc_builder.pipeline.filter.judging import Asked, filter_files, filter_share
from augesc_builder.pipeline.filter.overlap import with_tests_at_hand
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.inputs import input_digests, sessions_by
from augesc_builder.run import layout
from augesc_builder.run.draft import Noted, join_or_begin, noted
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new, load_json, pin_safety_classifier
from augesc_builder.sources.base import limits_of
from augesc_builder.sources.generations import generations_files
from augesc_builder.text.prompts import PromptTemplate


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Apply the requirements to the generations of a build."""
    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.pipeline.filter.tokens import build_counter

    generations = folder.use("generate", layout.GENERATIONS)
    classifier = pin_safety_classifier(folder, recipe.safety.classifier)
    folder.bring("finetune")
    checkpoint = folder.path / layout.CHECKPOINT
    counter, recount = build_counter(folder, recipe, checkpoint, generations)
    judge = Filter(
        with_tests_at_hand(folder, recipe),
        template=PromptTemplate(recipe.prompt.instruction, background=True),
        counter=counter,
        recount=recount,
        classifier=classifier,
        strict=True,
    )
    sessions = layout.CANDIDATES if sessions_by(recipe) == "select" else None
    asked = Asked(judge, generations, layout.CORPUS, sessions)
    executor = executor_of(recipe.executor, by_array=False)
    label = backend_of(recipe).label(recipe)
    filter_files(folder, asked, executor, progress, model=label, seed=recipe.seed)


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
    One of several workers judges its shards and prints nothing of the whole; the first begins.
    """
    from augesc_builder.models.token_counter import load_counter
    from augesc_builder.pipeline.filter.filter import Filter
    from augesc_builder.pipeline.filter.report import say
    from augesc_builder.pipeline.filter.tokens import (
        counts_stripped,
        lacks_counts,
        requirements_counter,
    )

    executor = executor_of(recipe.executor)
    files = generations_files(generations)
    settings: dict[str, Any] = {
        "stage": "filter",
        "requirements": recipe.requirements.settings(),
        "inputs": digest(files),
        "includes_query": includes_query,
        "scan": scan,
        **_local_inputs(recipe, scan=scan),
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

    def begin(run: Noted) -> Asked:
        """Look up what the run was begun with, or note what it begins with."""
        classifier = pin_safety_classifier(run, recipe.safety.classifier if scan else None)
        ours = requirements_counter(run, recipe)
        judge = Filter(
            with_tests_at_hand(run, recipe),
            includes_query,
            template,
            ours or counter,
            classifier,
            scan,
            recount=ours is not None,
        )
        run.record(files=[str(file.resolve()) for file in files])
        return Asked(judge, files, ".", limits=limits, num_proc=num_proc)

    if executor.joins:
        shards = join_or_begin(out, settings, progress.say, begin)
        filter_share(shards, begin(noted(out)), executor, progress)
        return
    with RunFolder(out, settings, progress) as folder:
        if is_new(folder, "filter", progress):
            executor.check()
            filter_files(folder, begin(folder), executor, progress, seed=recipe.seed)
    say(load_json(out / layout.FILTER_REPORT), progress, stripped=counts_stripped(recipe))


def _local_inputs(recipe: Recipe, *, scan: bool) -> dict[str, str]:
    """Return the digests of what the filter reads beside the texts."""
    sections = ("requirements.test_overlap", *(("safety",) if scan else ()))
    return {key: d for key, d in input_digests(recipe).items() if key.startswith(sections)}
