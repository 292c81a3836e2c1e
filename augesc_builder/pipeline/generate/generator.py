"""A loaded checkpoint at work: tasks in, rows of the generations table out.

Conversations of all shards go through the engine in one stream, so that its slots never wait for
the last row of a shard; a task says which shard it belongs to.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.generate import LocalSettings
from augesc_builder.config.recipe import Recipe
from augesc_builder.engine import Engine, OnStep, Prompt, Sampling
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.engine.static import StaticBatchingEngine
from augesc_builder.errors import CheckpointError
from augesc_builder.models import causal_lm
from augesc_builder.pipeline.generate.capacity import settings_of
from augesc_builder.pipeline.generate.conversations import conversation_rows
from augesc_builder.pipeline.generate.resampling import BadTurns, bad_turns
from augesc_builder.pipeline.generate.tasks import Row, Task, generation_row
from augesc_builder.text.prompt_form import PromptForm, prompt_form

_SHORT = 5
"""Tokens of the texts that the rate is measured with, and the fewest steps for it."""


class Generator:
    """A loaded checkpoint that turns tasks into rows of the generations table.

    ``slots`` is how many conversations are decoded together.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe, slots: int) -> None:
        self.settings: LocalSettings = settings_of(recipe)
        self.recipe, self.slots = recipe, slots
        model, tokenizer = causal_lm.load(
            checkpoint,
            revision=None,
            dtype=self.settings.dtype,
            device_map=self.settings.device_map,
            tensor_parallel=self.settings.tensor_parallel,
        )
        self.form = prompt_form(recipe.prompt, tokenizer, checkpoint)
        check_positions(model.config, recipe.generate.max_tokens)
        placed = self.settings.device_map is not None or self.settings.tensor_parallel > 1
        if torch.cuda.is_available() and not placed:
            model = model.to("cuda")
        self.engine = self._engine(model)
        self._bad_turns: BadTurns | None = None
        if recipe.generate.resample is not None:
            self._bad_turns = bad_turns(recipe.generate.resample, recipe.quality)

    @property
    def utilisation(self) -> float | None:
        """Return the share of slot steps that made a token; static batching does not count it."""
        return (
            self.engine.utilisation if isinstance(self.engine, ContinuousBatchingEngine) else None
        )

    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield each task with its row as it ends, in no order; tasks are read as needed."""
        if not self.recipe.prompt.background and self._bad_turns is None:
            return generation_rows(self.engine, self.form, self.recipe.seed, tasks, on_step)
        given = self.engine, self.form, self.recipe, tasks, on_step
        return conversation_rows(*given, bad_turns=self._bad_turns)

    def rate(self, seconds: float) -> float:
        """Return tokens a second of steps with every slot at work, measured for about ``seconds``.

        Short texts of no meaning are decoded and dropped. Infinite where ``max_tokens`` leaves no
        room for any.
        """
        if self.recipe.generate.max_tokens <= 1:
            return math.inf
        steps: list[tuple[float, int]] = []
        prompts = (Prompt((0,), number, limit=_SHORT) for number in count())
        for _ in self.engine.stream(
            prompts, lambda _, made: steps.append((time.perf_counter(), made))
        ):
            if len(steps) >= _SHORT and steps[-1][0] - steps[0][0] >= seconds:
                break
        if isinstance(self.engine, ContinuousBatchingEngine):
            self.engine.n_tokens = self.engine.n_slot_steps = 0
        # What the first step takes is not in there: memory is taken in it.
        return statistics.median(
            made / (end - begun) for (begun, _), (end, made) in pairwise(steps)
        )

    def _engine(self, model: Any) -> ContinuousBatchingEngine | StaticBatchingEngine:
        sampling = sampling_of(self.recipe)
        if self.settings.engine == "static":
            return StaticBatchingEngine(model, self.form.end, sampling, self.settings.batch_size)
        return ContinuousBatchingEngine(
            *(model, self.form.end, sampling, self.slots),
            bfloat16_head=self.settings.bfloat16_head,
            weights=torch.int8 if self.settings.weights == "int8" else None,
            owns_model=True,
        )


def generation_rows(
    engine: Engine, form: PromptForm, seed: int, tasks: Iterable[Task], on_step: OnStep
) -> Iterator[tuple[Task, Row]]:
    """Yield each task with its row as an engine ends it, in no order; tasks are read as needed."""
    at_work: dict[int, tuple[Task, Prompt]] = {}

    def prompts() -> Iterator[Prompt]:
        for number, task in enumerate(tasks):
            stream = stream_key(seed, task.query["query_id"], task.sample)
            prompt = Prompt(form.for_query(task.query["text"]), stream)
            at_work[number] = task, prompt
            yield prompt

    for number, result in engine.stream(prompts(), on_step):
        task, prompt = at_work.pop(number)
        text, strategies = form.said(result.token_ids)
        row = generation_row(
            task,
            text,
            seed,
            finish_reason=result.finish_reason,
            n_prompt_tokens=len(prompt.token_ids),
            n_tokens=len(result.token_ids),
            strategies=strategies,
        )
        yield task, row


def sampling_of(recipe: Recipe) -> Sampling:
    """Return how a recipe samples the next token."""
    settings = recipe.generate
    return Sampling(
        max_tokens=settings.max_tokens,
        top_p=settings.top_p,
        temperature=settings.temperature,
        repetition_penalty=settings.repetition_penalty,
        top_k=settings.top_k,
        min_p=settings.min_p,
        greedy=settings.greedy,
    )


def check_positions(config: Any, max_tokens: int) -> None:
    """Refuse more tokens than a model has positions for.

    Raises :class:`~augesc_builder.errors.CheckpointError`.
    """
    limit = causal_lm.max_positions(config)
    if limit and max_tokens > limit:
        raise CheckpointError(
            f"generate.max_tokens is {max_tokens}, but the model has positions for {limit}; lower "
            f"it"
        )
