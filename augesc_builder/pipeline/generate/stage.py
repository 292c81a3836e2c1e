"""Stage ``generate``: queries become raw conversations, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import CheckpointError
from augesc_builder.readers.parquet import table_files
from augesc_builder.run import layout
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest, is_new


def run(folder: RunFolder, recipe: Recipe, progress: Progress) -> None:
    """Generate the conversations of a build."""
    queries = table_files(folder.path / layout.QUERIES, layout.QUERIES)
    checkpoint = folder.path / layout.CHECKPOINT
    _generate(folder, recipe, queries, checkpoint, layout.GENERATIONS, progress)


def standalone(
    recipe: Recipe, queries_at: Path, checkpoint: Path, out: Path, progress: Progress
) -> None:
    """Generate conversations for a queries table into ``out``.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a checkpoint that cannot be used.
    """
    from augesc_builder.models.causal_lm import check_folder

    check_folder(checkpoint)
    files = table_files(queries_at, layout.QUERIES)
    settings = recipe.settings()
    kept = {key: settings[key] for key in ("seed", "prompt", "generate")}
    inputs = {"queries": digest(files), "checkpoint": str(checkpoint)}
    with RunFolder(out, {"stage": "generate", **kept, **inputs}) as folder:
        if is_new(folder, "generate", progress):
            _generate(folder, recipe, files, checkpoint, ".", progress)


def _generate(
    folder: RunFolder,
    recipe: Recipe,
    queries_at: Sequence[Path],
    checkpoint: Path,
    place: str,
    progress: Progress,
) -> None:
    """Generate what is missing; finished shards are never made again."""
    from augesc_builder.pipeline.generate import capacity, workers
    from augesc_builder.pipeline.generate.progress import LiveLine
    from augesc_builder.pipeline.generate.tasks import (
        Place,
        Row,
        n_shards,
        read_queries,
        shard_of,
        tasks,
    )
    from augesc_builder.tables import GENERATIONS, to_table

    size = recipe.generate.shard_size
    todo = tasks(read_queries(queries_at), recipe.generate)
    shards = n_shards(todo, size)
    missing = [
        (number, shard_of(todo, number, size)) for number in folder.shards("generate", shards)
    ]
    n_missing = sum(len(some) for _, some in missing)
    with LiveLine(progress, recipe.requirements, len(todo), len(todo) - n_missing) as line:
        rows: Iterator[tuple[Place, Row]] = iter(())
        if missing:
            n = capacity.n_workers(recipe, checkpoint, n_missing, len(missing))
            # Another number of slots may round otherwise: a run keeps the one it began with.
            known = folder.manifest.get("generate", {}).get("slots")
            slots = known or capacity.n_slots(recipe, checkpoint, n)
            folder.add(generate={"slots": slots})
            rows = workers.generate(checkpoint, recipe, slots, missing, line.step, n)
        unfinished = {number: dict.fromkeys(range(len(some))) for number, some in missing}
        for at, row in rows:
            line.row(row)
            if row["finish_reason"] == "not_finite":
                progress.say(
                    f"  query {row['query_id']}, sample {row['sample']}: the model's logits are no "
                    f"numbers; its row is empty"
                )
            shard: dict[int, Any] = unfinished[at.shard]
            shard[at.row] = row
            if None in shard.values():
                continue
            table = to_table(shard.values(), GENERATIONS)
            ended = Counter(table["finish_reason"].to_pylist())
            if set(ended) == {"not_finite"}:
                raise CheckpointError(
                    "the model's logits are no numbers, whatever the query; try "
                    "--set generate.dtype=float32, or train again"
                )
            folder.write_shard(
                "generate",
                at.shard,
                shards,
                {f"{place}/{layout.GENERATIONS}": table},
                tokens=sum(table["n_tokens"].to_pylist()),
                finish_reasons=dict(sorted(ended.items())),
            )
            del unfinished[at.shard]
    facts = folder.shard_facts("generate", shards)
    reasons: Counter[str] = Counter()
    for fact in facts:
        reasons.update(fact["finish_reasons"])
    total = sum(fact["tokens"] for fact in facts)
    ends = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
    progress.say(f"  {len(todo):,} conversations, {total:,} tokens; ended by: {ends}")
    folder.complete(
        "generate",
        tables={"generations": len(todo)},
        tokens=total,
        finish_reasons=dict(reasons),
    )
