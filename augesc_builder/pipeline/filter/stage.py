"""Stage ``filter``: raw conversations become sessions and rejected rows (section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.models.backbone import place_of
from augesc_builder.pipeline.filter.judging import filter_files
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.inputs import input_digests, sessions_by
from augesc_builder.run import layout
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
    checkpoint = folder.path / layout.CHECKPOINT
    counter, recount = build_counter(folder, recipe, checkpoint, generations)
    judge = Filter(
        recipe.requirements,
        template=PromptTemplate(recipe.prompt.instruction, background=True),
        counter=counter,
        recount=recount,
        classifier=classifier,
        strict=True,
    )
    label = backend_of(recipe).label(recipe)
    filter_files(
        folder,
        judge,
        generations,
        layout.CORPUS,
        progress,
        sessions=layout.CANDIDATES if sessions_by(recipe) == "select" else None,
        model=label,
        seed=recipe.seed,
    )


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
    from augesc_builder.pipeline.filter.report import say
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
            filter_files(
                folder,
                judge,
                files,
                ".",
                progress,
                num_proc=num_proc,
                limits=limits,
                seed=recipe.seed,
            )
    say(load_json(out / layout.FILTER_REPORT), progress, stripped=counts_stripped(recipe))
