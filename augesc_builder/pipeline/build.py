"""The whole project in one place: ``build(recipe, folder)`` runs the stages in order.

::

    queries ──┐
              ├─► generate ──► filter ──► statistics ──► card
    finetune ─┘

Each stage reads the tables of those before it and writes its own; nothing flows back. A stage with
a completion mark is not run again.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from augesc_builder.config.recipe import Recipe, dump_recipe
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.card import stage as card
from augesc_builder.pipeline.filter import stage as filter_
from augesc_builder.pipeline.finetune import stage as finetune
from augesc_builder.pipeline.generate import stage as generate
from augesc_builder.pipeline.inputs import check_inputs, run_settings
from augesc_builder.pipeline.queries import stage as queries
from augesc_builder.pipeline.statistics import stage as statistics
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import versions

Stage = Callable[[RunFolder, Recipe, Progress], None]

STAGES: Mapping[str, Stage] = {
    "queries": queries.run,
    "finetune": finetune.run,
    "generate": generate.run,
    "filter": filter_.run,
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
    everything, and the others join it for fine-tuning.
    """
    progress = progress or Progress()
    wanted = _stages_until(until)
    rank = int(os.environ.get("RANK", "0"))
    if rank:
        finetune.join(recipe, Path(folder))
        return True
    check_inputs(recipe)
    with RunFolder(folder, run_settings(recipe)) as run:
        todo = [name for name in wanted if not run.is_complete(name)]
        if not todo:
            return False
        if "versions" not in run.manifest:
            run.write_text(layout.RECIPE, dump_recipe(recipe))
            run.record(recipe=recipe.name, seed=recipe.seed, versions=versions())
        for number, name in enumerate(wanted, 1):
            if name not in todo:
                progress.say(f"[{number}/{len(wanted)}] {name}: done before")
                continue
            progress.say(f"[{number}/{len(wanted)}] {name}")
            STAGES[name](run, recipe, progress)
    return True


def _stages_until(until: str | None) -> list[str]:
    names = list(STAGES)
    if until is None:
        return names
    if until not in names:
        near = difflib.get_close_matches(until, names, n=1)
        raise RecipeError(
            f"unknown stage {until!r}; expected one of {', '.join(names)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return names[: names.index(until) + 1]
