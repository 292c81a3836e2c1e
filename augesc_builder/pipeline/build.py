"""The whole project in one place: ``build(recipe, folder)`` runs the stages in order.

::

    queries ──┐
              ├─► generate ──► filter ──► select ──► quality ──► statistics ──► card
    finetune ─┘

Each stage reads the tables of those before it and writes its own; nothing flows back. A stage with
a completion mark is not run again. Only a backend that needs a checkpoint has one fine-tuned, and
only a recipe that names measures has quality measured, and sessions chosen by it where it says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from augesc_builder.config.recipe import Recipe, dump_recipe
from augesc_builder.errors import CheckpointError, DamagedError, RecipeError, RunFolderError
from augesc_builder.executors import executor_of
from augesc_builder.pipeline.card import stage as card
from augesc_builder.pipeline.filter import stage as filter_
from augesc_builder.pipeline.finetune import stage as finetune
from augesc_builder.pipeline.generate import stage as generate
from augesc_builder.pipeline.inputs import check_inputs, run_settings, stages_of
from augesc_builder.pipeline.quality import stage as quality
from augesc_builder.pipeline.queries import stage as queries
from augesc_builder.pipeline.select import stage as select
from augesc_builder.pipeline.statistics import stage as statistics
from augesc_builder.run import layout
from augesc_builder.run.copies import folder_of
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.versions import fingerprint, versions
from augesc_builder.run.workers import launch_rank

Stage = Callable[[RunFolder, Recipe, Progress], None]

STAGES: Mapping[str, Stage] = {
    "queries": queries.run,
    "finetune": finetune.run,
    "generate": generate.run,
    "filter": filter_.run,
    "select": select.run,
    "quality": quality.run,
    "statistics": statistics.run,
    "card": card.run,
}
"""The stages of a build, in order."""


def build(
    recipe: Recipe,
    folder: str | Path,
    progress: Progress | None = None,
    *,
    until: str | None = None,
) -> bool:
    """Run every stage that is not done yet; give ``False`` when there was nothing to do.

    ``until`` names the last stage to run, for those who spread a run over several days.

    A run that was killed is resumed. Under ``accelerate launch`` the first process does
    everything, and the others join it for fine-tuning. An element of a Slurm array helps with the
    shards of a build that another process began.
    """
    progress = progress or Progress()
    every = stages_of(recipe)
    wanted = _stages_until(until, every)
    folder, rank = folder_of(folder), launch_rank()
    if rank:
        if "finetune" in wanted:
            finetune.join(recipe, folder)
        return True
    check_inputs(recipe)
    if executor_of(recipe.executor).joins:
        generate.help_out(folder, recipe, run_settings(recipe), progress)
        return True
    with RunFolder(folder, run_settings(recipe), progress) as run:
        for attempt in count(1):
            try:
                return _run(run, recipe, progress, wanted, every)
            except DamagedError as error:  # since it was looked at: the disk, or somebody
                if attempt == _ATTEMPTS:
                    raise
                progress.say(f"  {error}")
    return True


_ATTEMPTS = 3
"""Times that a build goes back to make what was damaged while it ran."""


def _run(
    run: RunFolder, recipe: Recipe, progress: Progress, wanted: list[str], every: list[str]
) -> bool:
    """Run what is not done, in order; give ``False`` where all is."""
    intact = _intact(run, recipe, wanted)
    if "card" in intact and not card.is_as_asked(run, recipe):
        run.start_again("card")
        intact.discard("card")
    if intact == set(wanted) and all(map(run.is_current, wanted)):
        return False
    if "generate" in set(wanted) - intact:
        executor_of(recipe.executor).check()
    run.keep(layout.RECIPE, dump_recipe(recipe))
    run.record(
        recipe=recipe.name,
        seed=recipe.seed,
        versions=versions(),
        made_with=fingerprint(),
        plan=every,
    )
    for number, name in enumerate(wanted, 1):
        is_current = run.is_current(name)
        if name in intact and is_current:
            progress.say(f"[{number}/{len(wanted)}] {name}: done before")
            continue
        progress.say(f"[{number}/{len(wanted)}] {name}")
        run.begin(name)
        if not is_current:
            _start_again(run, name, progress)
        STAGES[name](run, recipe, progress)
    return True


def _intact(run: RunFolder, recipe: Recipe, wanted: Sequence[str]) -> set[str]:
    """Return the stages that are complete, with every file as it was written.

    A checkpoint that has changed cannot be made again for conversations that are half generated,
    and nothing asks for it when they are complete.
    """
    generated = run.is_intact("generate")
    if generated and not generate.is_enough(run, recipe):
        run.forget("generate")
        generated = False
    begun = run.marks.has_any("generate")
    if begun and not generated and "finetune" in run.marks:
        for file, what in run.marks.damage(run.marks.files(["finetune"])).items():
            raise CheckpointError(
                f"{run.path / file} {what}, and conversations were generated with it; put it back, "
                f"or build into another --out"
            )
    found = {
        "generate": generated,
        "finetune": "finetune" in run.marks and (begun or run.is_intact("finetune")),
    }
    for name in wanted:
        if name not in found:
            found[name] = run.is_intact(name)
    return {name for name in wanted if found[name]}


def _start_again(run: RunFolder, name: str, progress: Progress) -> None:
    """Forget what a stage made from tables that are others now."""
    if name == "generate":
        raise RunFolderError(
            f"{run.path}: its conversations were generated from other queries, or with another "
            f"checkpoint, than are there now; build into another --out, or put those back"
        )
    progress.say("  what it is made from has changed since: made again")
    run.start_again(name)


def _stages_until(until: str | None, names: list[str]) -> list[str]:
    if until is None:
        return names
    if until not in names:
        near = difflib.get_close_matches(until, names, n=1)
        raise RecipeError(
            f"unknown stage {until!r}; expected one of {', '.join(names)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return names[: names.index(until) + 1]
