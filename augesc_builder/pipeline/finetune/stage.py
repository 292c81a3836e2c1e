"""Stage ``finetune``: the backbone, fine-tuned on a few sessions, as a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.inputs import check_inputs, input_digests
from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import is_new, pin_backbone
from augesc_builder.run.workers import launch_rank


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Fine-tune the backbone of a build; the checkpoint appears whole or not at all."""
    from augesc_builder.pipeline.finetune.examples import problem_types
    from augesc_builder.pipeline.finetune.train import finetune
    from augesc_builder.sources.sessions import read_training_sessions

    recipe = pin_backbone(folder, recipe)
    known = folder.manifest.get("revisions", {})
    sessions, commit = read_training_sessions(
        recipe.finetune.sessions, known.get("sessions", recipe.finetune.revision)
    )
    if commit is not None:
        folder.add(revisions={"sessions": commit})
    facts = finetune(
        recipe,
        sessions,
        out=lambda fill: folder.write_folder(layout.CHECKPOINT, fill),
        states=folder.work("finetune"),
        progress=progress,
    )
    progress.say(
        f"  {facts['steps']} steps on {len(facts['sessions'])} sessions; loss a token "
        f"{facts['first_loss']} at first, {facts['last_epoch_loss']} in the last epoch"
    )
    if held := facts.get("held_out"):
        progress.say(
            f"  on {len(held['sessions'])} held-out sessions: loss a token {held['loss_before']} "
            f"before, {held['losses'][-1]} after"
        )
    types = problem_types(sessions, set(facts["sessions"]))
    folder.complete("finetune", **facts, problem_types=types)
    shutil.rmtree(folder.work("finetune"))  # gigabytes, that a build would carry to its end


def standalone(recipe: Recipe, out: Path, progress: Progress) -> None:
    """Fine-tune the recipe's backbone into ``out/checkpoint``, alone or under a launch.

    Raises :class:`~augesc_builder.errors.TrainingError` where it cannot continue, and
    :class:`~augesc_builder.errors.CheckpointError` for a backbone that cannot be loaded.
    """
    if launch_rank():
        join(recipe, out)
        return
    check_inputs(recipe)
    settings = recipe.settings()
    kept = {key: settings[key] for key in ("seed", "prompt", "backbone", "finetune")}
    digests = {k: v for k, v in input_digests(recipe).items() if k.startswith("finetune")}
    with RunFolder(out, {"stage": "finetune", **kept, **digests}, progress) as folder:
        if is_new(folder, "finetune", progress):
            run(folder, recipe, progress)
            progress.say(f"The checkpoint is in {out / layout.CHECKPOINT}")


def join(recipe: Recipe, path: Path) -> None:
    """Take part in the fine-tuning of a launch's first process, if any; write nothing."""
    from augesc_builder.pipeline.finetune.train import finetune

    marks = place_of(path).marks()
    done = marks.pending() == "finetune" or (
        "finetune" in marks
        and (marks.has_any("generate") or not marks.damage(marks.files(["finetune"])))
    )
    if not done:
        finetune(recipe, [], lambda _: None, path, Progress(quiet=True))


def finetuned_on(manifest: Mapping[str, Any], recipe: Recipe) -> tuple[str, ...] | None:
    """Return the utterances that a run's model has seen, as this stage drew them.

    ``None``: it has seen none.
    """
    from augesc_builder.metrics.novelty.counts import utterances_of
    from augesc_builder.pipeline.finetune.examples import sample_sessions
    from augesc_builder.sources.sessions import read_training_sessions

    if not (n_sessions := backend_of(recipe).n_sessions(recipe)):
        return None
    known = manifest.get("revisions", {}).get("sessions", recipe.finetune.revision)
    sessions, _ = read_training_sessions(recipe.finetune.sessions, known)
    chosen = sample_sessions(sessions, n_sessions, recipe.seed)
    return utterances_of(session.messages for session in chosen)
