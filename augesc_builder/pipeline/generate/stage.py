"""Stage ``generate``: queries become raw conversations, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import CheckpointError, ExecutorError
from augesc_builder.executors import executor_of
from augesc_builder.readers.chunks import count_rows
from augesc_builder.run import layout
from augesc_builder.run.draft import join_or_begin
from augesc_builder.run.folder import RunFolder, join
from augesc_builder.run.kinds import kinds_of
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

    One of several workers makes its shards and no more; the first of them begins the run.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a checkpoint that cannot be used, and
    where there is one and the backend has no use for it, or the other way round.
    """
    from augesc_builder.pipeline.generate.backends import backend_of

    executor = executor_of(recipe.executor)
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
    begun_with = {"stage": "generate", **kept, **inputs}
    if executor.joins:
        from augesc_builder.pipeline.generate.driving import make_share

        shards = join_or_begin(out, begun_with, progress.say)
        at = checkpoint or shards.path / layout.CHECKPOINT
        make_share(shards, recipe, files, at, f"./{layout.GENERATIONS}", progress)
        return
    with RunFolder(out, begun_with, progress) as folder:
        if folder.is_complete("generate") and not is_enough(folder, recipe):
            folder.forget("generate")
        if is_new(folder, "generate", progress):
            executor.check()
            at = checkpoint or folder.path / layout.CHECKPOINT
            _generate(folder, recipe, files, at, ".", progress)


def help_out(at: Path, recipe: Recipe, settings: Mapping[str, Any], progress: Progress) -> None:
    """Make conversations of a build that another process began, beside others who do the same.

    Raises :class:`~augesc_builder.errors.ExecutorError` where it is not as far as that.
    """
    from augesc_builder.pipeline.generate.backends import backend_of
    from augesc_builder.pipeline.generate.driving import make_share

    shards = join(at, settings, progress.say)
    before = ["queries", *(["finetune"] if backend_of(recipe).needs_checkpoint else [])]
    for stage in before:
        if stage not in shards.marks:
            raise ExecutorError(
                f"{at}: {stage} is not finished there; run `augesc build --until {before[-1]}` in "
                f"one process first, as the file of `augesc slurm` does"
            )
        shards.use(stage)
    queries = named(shards.use("queries", layout.QUERIES), layout.QUERIES)
    table = f"{layout.GENERATIONS}/{layout.GENERATIONS}"
    make_share(shards, recipe, queries, at / layout.CHECKPOINT, table, progress)


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
    from augesc_builder.pipeline.generate.order import Order
    from augesc_builder.pipeline.generate.tasks import read_queries

    backend = backend_of(recipe)
    backend.check(recipe)
    files = table_files(queries_at, layout.QUERIES)
    if recipe.generate.keep is None:
        n_queries = sum(map(count_rows, files))
        n_tasks = Order(files, recipe.generate, checked=True).n_tasks
    else:
        queries = read_queries(files)
        n_queries, n_tasks = len(queries), sum(len(q.tasks) for q in lanes_of(queries, recipe))
    return [
        f"{recipe.generate.most(n_tasks)} of {n_queries:,} queries, by {backend.about}.",
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
    from augesc_builder.pipeline.generate.driving import make_all, make_enough

    if recipe.generate.resample is not None:
        from augesc_builder.pipeline.quality.stage import pinned_for

        wanted = recipe.generate.resample.measures
        found, _ = pinned_for("generate.resample", wanted, folder, recipe.quality, progress)
        quality = found.only(recipe.quality.measures)
        recipe = recipe.model_copy(update={"quality": quality})
    table = f"{place}/{layout.GENERATIONS}"
    make = make_all if recipe.generate.keep is None else make_enough
    made = make(folder, recipe, queries_at, checkpoint, table, progress)
    folder.settle()
    for number in folder.written_shards("generate"):
        if number not in made.shards:
            folder.forget_shard("generate", number)
    reasons: Counter[str] = Counter()
    total = n_failed = 0
    made_by: Counter[str] = Counter()
    beside: Mapping[str, Any] = {}
    for shard in sorted(made.shards) if recipe.generate.keep else made.shards:
        fact = folder.shard_fact("generate", shard)
        reasons.update(fact["finish_reasons"])
        total += fact["tokens"]
        made_by[fact.get("kind", "")] += 1
        n_failed += fact.get("failed", 0)
        beside = merged([beside, fact])
    n_rows = sum(reasons.values())
    ends = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    counted = f", {total:,} tokens" if total else ""
    progress.say(f"  {n_rows:,} conversations{counted}; ended by: {ends}")
    if n_failed:
        progress.say(f"  {n_failed:,} more could not be made; the table {layout.FAILED} says why")
    kept: dict[str, Any] = {}
    failed: dict[str, Any] = {"failed": n_failed} if n_failed else {}
    if recipe.generate.keep is not None:
        kept = {"keep": recipe.generate.keep}
        progress.say(f"  {made.n_kept:,} sessions are kept of them")
    for name, draws in beside.items():
        progress.say(f"  {told(name, draws)}")
    folder.complete(
        "generate",
        tables={"generations": n_rows, **failed},
        tokens=total,
        finish_reasons=dict(reasons),
        **beside,
        **kept,
        **failed,
        kinds=[
            {"facts": facts, "shards": made_by[digest]}
            for digest, facts in kinds_of(folder, "generate").items()
            if made_by[digest]
        ],
        **made.facts,
    )
