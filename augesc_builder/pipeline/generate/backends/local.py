"""Queries to generations: prompts in, raw continuations out.

Conversations of all shards go through the engine in one stream, so that its slots never wait for
the last row of a shard; a row says which shard it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine import Engine, OnStep, Prompt, Sampling
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.engine.static import StaticBatchingEngine
from augesc_builder.errors import CheckpointError
from augesc_builder.models import causal_lm
from augesc_builder.pipeline.generate.tasks import Place, Row, Task
from augesc_builder.text.prompts import render_query, with_instruction


class Generator:
    """A loaded checkpoint that turns tasks into rows of the generations table.

    ``slots`` is how many conversations are decoded together.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe, slots: int) -> None:
        settings = recipe.generate
        self.recipe, self.slots = recipe, slots
        model, self.tokenizer = causal_lm.load(
            checkpoint,
            revision=None,
            dtype=settings.dtype,
            device_map=settings.device_map,
            tensor_parallel=settings.tensor_parallel,
        )
        limit = causal_lm.max_positions(model.config)
        if limit and settings.max_tokens > limit:
            raise CheckpointError(
                f"generate.max_tokens is {settings.max_tokens}, but the model has positions for "
                f"{limit}; lower it"
            )
        placed = settings.device_map is not None or settings.tensor_parallel > 1
        if torch.cuda.is_available() and not placed:
            model = model.to("cuda")
        self.engine = self._engine(model)

    @property
    def utilisation(self) -> float | None:
        """Give the share of the slots' steps that made a token; static batches do not count it."""
        return (
            self.engine.utilisation if isinstance(self.engine, ContinuousBatchingEngine) else None
        )

    def stream(
        self, shards: Iterable[tuple[int, Sequence[Task]]], on_step: OnStep
    ) -> Iterator[tuple[Place, Row]]:
        """Generate the tasks of numbered shards; give rows as they end, in no order."""
        at_work: dict[int, tuple[Place, Task, Prompt]] = {}

        def prompts() -> Iterator[Prompt]:
            places = (
                (Place(shard, row), task) for shard, some in shards for row, task in enumerate(some)
            )
            for number, (place, task) in enumerate(places):
                prompt = Prompt(self._encode(task.query["text"]), self._stream(task))
                at_work[number] = place, task, prompt
                yield prompt

        for number, result in self.engine.stream(prompts(), on_step):
            place, task, prompt = at_work.pop(number)
            yield (
                place,
                {
                    "query_id": task.query["query_id"],
                    "sample": task.sample,
                    "source": task.query["source"],
                    "query": task.query["text"],
                    "text": self._decode(result.token_ids),
                    "n_prompt_tokens": len(prompt.token_ids),
                    "n_tokens": len(result.token_ids),
                    "finish_reason": result.finish_reason,
                    "seed": self.recipe.seed,
                },
            )

    def _engine(self, model: Any) -> Engine:
        settings = self.recipe.generate
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            top_p=settings.top_p,
            temperature=settings.temperature,
            repetition_penalty=settings.repetition_penalty,
            top_k=settings.top_k,
            min_p=settings.min_p,
            greedy=settings.greedy,
        )
        eos = self.tokenizer.eos_token_id
        if settings.engine == "simple":
            return StaticBatchingEngine(model, eos, sampling, settings.batch_size)
        return ContinuousBatchingEngine(
            model, eos, sampling, self.slots, bfloat16_head=settings.bfloat16_head
        )

    def _encode(self, query: str) -> tuple[int, ...]:
        text = with_instruction(self.recipe.prompt.instruction, render_query(query))
        return tuple(self.tokenizer(text)["input_ids"])

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)
        return text

    def _stream(self, task: Task) -> int:
        return stream_key(self.recipe.seed, task.query["query_id"], task.sample)
