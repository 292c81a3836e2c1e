"""Stage ``generate``: queries become raw conversations, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

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
    kept = {key: settings[key] for key in ("seed", "prompt", "generate")}
    inputs = {"queries": digest(files)}
    if checkpoint is not None:
        from augesc_builder.models.causal_lm import check_folder

        check_folder(checkpoint.absolute())  # no name on the Hub
        inputs["checkpoint"] = content_of(checkpoint)
    else:  # with a checkpoint it is no matter which model a recipe would begin with
        backend.check(recipe)
    inputs |= {key: content_of(model) for key, model in backend.models(recipe).items()}
    with RunFolder(out, {"stage": "generate", **kept, **inputs}, progress) as folder:
        if is_new(folder, "generate", progress):
            at = checkpoint or folder.path / layout.CHECKPOINT
            _generate(folder, recipe, files, at, ".", progress)


def plan(recipe: Recipe, queries_at: Path) -> list[str]:
    """Say in lines what generating for a queries table would take; nothing is written or asked."""
    from augesc_builder.pipeline.generate.backends import backend_of
    from augesc_builder.pipeline.generate.tasks import read_queries, tasks

    backend = backend_of(recipe)
    backend.check(recipe)
    queries = read_queries(table_files(queries_at, layout.QUERIES))
    n_tasks = len(tasks(queries, recipe.generate))
    return [
        f"{n_tasks:,} conversations of {len(queries):,} queries, by {backend.about}.",
        *backend.plan(recipe, n_tasks),
    ]


def _generate(
    folder: RunFolder,
    recipe: Recipe,
    queries_at: Sequence[Path],
    checkpoint: Path,
    place: str,
    progress: Progress,
) -> None:
    """Generate what is missing; finished shards are never made again."""
    from augesc_builder.pipeline.generate.backends import backend_of
    from augesc_builder.pipeline.generate.draws import drawn, merged, told
    from augesc_builder.pipeline.generate.progress import LiveLine
    from augesc_builder.pipeline.generate.tasks import n_shards, read_queries, tasks
    from augesc_builder.tables import GENERATIONS, to_table

    todo = tasks(read_queries(queries_at), recipe.generate)
    shards = n_shards(todo, recipe.generate.shard_size)
    unfinished: dict[int, dict[int, Any]] = {n: {} for n in folder.shards("generate", shards)}
    missing = [task for task in todo if task.shard in unfinished]
    for task in missing:
        unfinished[task.shard][task.row] = None
    with (
        LiveLine(progress, recipe.requirements, len(todo), len(todo) - len(missing)) as line,
        closing(backend_of(recipe)(recipe, checkpoint, folder.path)) as backend,
    ):
        if missing:
            known = folder.manifest.get("generate", {})
            begun = backend.prepare(known, len(missing), len(unfinished))
            folder.add(generate=begun)
            if "choice" in begun:
                progress.say(f"  {begun['choice']}")
        for task, row in backend.stream(missing, line.step) if missing else ():
            line.row(row)
            if row["finish_reason"] == "not_finite":
                progress.say(
                    f"  query {row['query_id']}, sample {row['sample']}: non-finite logits; its "
                    f"row is empty"
                )
            shard = unfinished[task.shard]
            shard[task.row] = row
            if None in shard.values():
                continue
            table = to_table(shard.values(), GENERATIONS)
            ended = Counter(table["finish_reason"].to_pylist())
            if set(ended) == {"not_finite"}:
                raise CheckpointError(
                    "non-finite logits, whatever the query; try "
                    "--set generate.backend.dtype=float32, or train again"
                )
            folder.write_shard(
                "generate",
                task.shard,
                shards,
                {f"{place}/{layout.GENERATIONS}": table},
                tokens=sum(n or 0 for n in table["n_tokens"].to_pylist()),
                finish_reasons=dict(sorted(ended.items())),
                **({"backgrounds": drawn(table)} if recipe.prompt.background else {}),
            )
            del unfinished[task.shard]
    facts = folder.shard_facts("generate", shards)
    reasons: Counter[str] = Counter()
    for fact in facts:
        reasons.update(fact["finish_reasons"])
    total = sum(fact["tokens"] for fact in facts)
    ends = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    counted = f", {total:,} tokens" if total else ""
    progress.say(f"  {len(todo):,} conversations{counted}; ended by: {ends}")
    backgrounds = {}
    if recipe.prompt.background:
        backgrounds = {"backgrounds": merged([fact["backgrounds"] for fact in facts])}
        progress.say(f"  {told(backgrounds['backgrounds'])}")
    folder.complete(
        "generate",
        tables={"generations": len(todo)},
        tokens=total,
        finish_reasons=dict(reasons),
        **backgrounds,
        **backend.facts(),
    )
