"""Queries to generations: prompts in, raw continuations out, shard by shard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from augesc_builder import backbone
from augesc_builder.engine import Prompt, Sampling
from augesc_builder.engine.sampling import stream_key
from augesc_builder.engine.simple import SimpleEngine
from augesc_builder.errors import CheckpointError
from augesc_builder.prompts import render_query, with_instruction
from augesc_builder.settings import Generate, Recipe
from augesc_builder.tables import GENERATIONS, to_table


@dataclass(frozen=True)
class Task:
    """One conversation to be generated."""

    query: dict[str, Any]
    sample: int


def tasks(queries: Sequence[dict[str, Any]], settings: Generate) -> list[Task]:
    """List the conversations to generate: every sample of every query, in the queries' order."""
    return [
        Task(query, sample)
        for query in queries
        for sample in range(settings.samples_for(query["source"]))
    ]


def shard_of(all_tasks: Sequence[Task], number: int, size: int) -> Sequence[Task]:
    """Give the tasks of a shard."""
    return all_tasks[number * size : (number + 1) * size]


def n_shards(all_tasks: Sequence[Task], size: int) -> int:
    """Say how many shards of ``size`` the tasks fill."""
    return math.ceil(len(all_tasks) / size)


class Generator:
    """A loaded checkpoint that turns tasks into rows of the generations table."""

    def __init__(self, checkpoint: Path, recipe: Recipe) -> None:
        settings = recipe.generate
        self.recipe = recipe
        model, self.tokenizer = backbone.load(checkpoint, revision=None, dtype=settings.dtype)
        limit = backbone.max_positions(model.config)
        if limit and settings.max_tokens > limit:
            raise CheckpointError(
                f"generate.max_tokens is {settings.max_tokens}, but the model has positions for "
                f"{limit}; lower it"
            )
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            top_p=settings.top_p,
            temperature=settings.temperature,
            repetition_penalty=settings.repetition_penalty,
        )
        if torch.cuda.is_available():
            model = model.to("cuda")
        self.engine = SimpleEngine(
            model, self.tokenizer.eos_token_id, sampling, settings.batch_size
        )

    def generate(self, shard: Sequence[Task], on_step: Callable[[int, int], None]) -> pa.Table:
        """Generate a shard; ``on_step(conversations finished, tokens made)`` as it goes."""
        seed = self.recipe.seed
        prompts = [
            Prompt(self._encode(task.query["text"]), self._stream(task, seed)) for task in shard
        ]
        results = self.engine.generate(prompts, on_step)
        return to_table(
            (
                {
                    "query_id": task.query["query_id"],
                    "sample": task.sample,
                    "source": task.query["source"],
                    "query": task.query["text"],
                    "text": self._decode(result.token_ids),
                    "n_prompt_tokens": len(prompt.token_ids),
                    "n_tokens": len(result.token_ids),
                    "finish_reason": result.finish_reason,
                    "seed": seed,
                }
                for task, prompt, result in zip(shard, prompts, results, strict=True)
            ),
            GENERATIONS,
        )

    def _encode(self, query: str) -> tuple[int, ...]:
        text = with_instruction(self.recipe.prompt.instruction, render_query(query))
        return tuple(self.tokenizer(text)["input_ids"])

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)
        return text

    @staticmethod
    def _stream(task: Task, seed: int) -> int:
        return stream_key(seed, task.query["query_id"], task.sample)
