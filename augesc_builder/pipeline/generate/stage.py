"""Stage ``generate``: queries become raw conversations, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import CheckpointError
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.marks import named, table_files
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import content_of, digest, is_new


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Generate the conversations of a build."""
    from augesc_builder.pipeline.generate.backends import backend_of

    queries = named(folder.use("queries", layout.QUERIES), layout.QUERIES)
    if backend_of(recipe).needs_checkpoint:
        folder.use("finetune")
    checkpoint = folder.path / layout.CHECKPOINT
    _generate(folder, recipe, queries, checkpoint, layout.GENERATIONS, progress)


def standalone(
    recipe: Recipe, queries_at: Path, checkpoint: Path | None, out: Path, progress: Progress
) -> None:
    """Generate conversations for a queries table into ``out``.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a checkpoint that cannot be used, and
    where there is one and the backend has no use for it, or the other way round.
    """
    from augesc_builder.pipeline.generate.backends import backend_of

    backend = backend_of(recipe)
    if backend.needs_checkpoint != (checkpoint is not None):
        raise CheckpointError(
            f"the backend {recipe.generate.backend.type} "
            + (
                "needs a checkpoint; give --checkpoint DIR"
                if backend.needs_checkpoint
                else "has no use for a checkpoint; leave --checkpoint out"
            )
        )
    files = table_files(queries_at, layout.QUERIES)
    settings = recipe.fixed_settings()
    names = ["seed", "prompt", "generate"]
    if recipe.generate.keep is not None:  # what is kept, and so how much is generated
        names += ["requirements", "select"]
    if recipe.generate.resample is not None:
        names += ["quality"]
    kept = {key: settings[key] for key in names}
    inputs = {"queries": digest(files)}
    if recipe.generate.resample is not None:
        from augesc_builder.pipeline.quality.stage import measured_files

        inputs |= measured_files(recipe.quality)
    if checkpoint is not None:
        from augesc_builder.models.causal_lm import check_folder

        check_folder(checkpoint.absolute())  # no name on the Hub
        inputs["checkpoint"] = content_of(checkpoint)
    else:  # with a checkpoint it is no matter which model a recipe would begin with
        backend.check(recipe)
    inputs |= personas_digest(recipe)
    inputs |= {key: content_of(model) for key, model in backend.models(recipe).items()}
    with RunFolder(out, {"stage": "generate", **kept, **inputs}, progress) as folder:
        if folder.is_complete("generate") and not is_enough(folder, recipe):
            folder.forget("generate")
        if is_new(folder, "generate", progress):
            at = checkpoint or folder.path / layout.CHECKPOINT
            _generate(folder, recipe, files, at, ".", progress)


def personas_digest(recipe: Recipe) -> dict[str, str]:
    """Return a digest of the bank of personas, where it is on this disk, by the key that names it.

    Raises :class:`~augesc_builder.errors.InputError` for a bank that cannot be read.
    """
    from augesc_builder.readers.hub import is_on_the_hub
    from augesc_builder.sources.personas import read_personas

    where = recipe.prompt.personas
    if where is None or is_on_the_hub(where):  # at a commit
        return {}
    read_personas(where)
    return {"prompt.personas": digest([Path(where)])}


def plan(recipe: Recipe, queries_at: Path) -> list[str]:
    """Say in lines what generating for a queries table would take; nothing is written or asked."""
    from augesc_builder.pipeline.generate.backends import backend_of
    from augesc_builder.pipeline.generate.lanes import lanes_of
    from augesc_builder.pipeline.generate.tasks import read_queries

    backend = backend_of(recipe)
    backend.check(recipe)
    queries = read_queries(table_files(queries_at, layout.QUERIES))
    n_tasks = sum(len(lane.tasks) for lane in lanes_of(queries, recipe))
    return [
        f"{recipe.generate.most(n_tasks)} of {len(queries):,} queries, by {backend.about}.",
        *backend.plan(recipe, n_tasks),
    ]


def is_enough(folder: RunFolder, recipe: Recipe) -> bool:
    """Whether the conversations of a finished stage are those that the recipe asks for now."""
    keep = recipe.generate.keep
    return keep is None or folder.facts("generate").get("keep") == keep


def _generate(
    folder: RunFolder,
    recipe: Recipe,
    queries_at: Sequence[Path],
    checkpoint: Path,
    place: str,
    progress: Progress,
) -> None:
    """Generate what is missing; finished shards are never made again."""
    from augesc_builder.pipeline.generate.draws import merged, told
    from augesc_builder.pipeline.generate.lanes import lanes_of
    from augesc_builder.pipeline.generate.making import Making
    from augesc_builder.pipeline.generate.tasks import read_queries, with_personas
    from augesc_builder.sources.personas import read_personas

    if recipe.generate.resample is not None:
        from augesc_builder.pipeline.quality.stage import pinned_for

        wanted = recipe.generate.resample.measures
        found, _ = pinned_for("generate.resample", wanted, folder, recipe.quality, progress)
        quality = found.only(recipe.quality.measures)
        recipe = recipe.model_copy(update={"quality": quality})
    making = Making(folder, recipe, checkpoint, f"{place}/{layout.GENERATIONS}", progress)
    lanes = lanes_of(read_queries(queries_at), recipe)
    if recipe.prompt.personas is not None:
        bank = read_personas(recipe.prompt.personas)
        for lane in lanes:
            lane.tasks = with_personas(lane.tasks, bank, recipe.seed)
    for lane in lanes:
        making.make(lane)
    shards = [shard for lane in lanes for shard in lane.written]
    for beyond in set(folder.written_shards("generate")) - set(shards):
        folder.forget_shard("generate", beyond)
    facts = [folder.shard_fact("generate", shard) for shard in shards]
    reasons: Counter[str] = Counter()
    for fact in facts:
        reasons.update(fact["finish_reasons"])
    n_rows = sum(reasons.values())
    total = sum(fact["tokens"] for fact in facts)
    ends = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    counted = f", {total:,} tokens" if total else ""
    progress.say(f"  {n_rows:,} conversations{counted}; ended by: {ends}")
    kept = {}
    if recipe.generate.keep is not None:
        kept = {"keep": recipe.generate.keep}
        progress.say(f"  {sum(lane.n_kept for lane in lanes):,} sessions are kept of them")
    beside = merged(facts)
    for name, draws in beside.items():
        progress.say(f"  {told(name, draws)}")
    folder.complete(
        "generate",
        tables={"generations": n_rows},
        tokens=total,
        finish_reasons=dict(reasons),
        **beside,
        **kept,
        **making.facts,
    )
