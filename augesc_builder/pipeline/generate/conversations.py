"""A conversation of several steps: its background, its text, and the turns that are drawn again.

Each step draws from a random stream of its own: the text from the row's, as without any other step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine import OnStep, Prompt
from augesc_builder.engine.sampling import stream_key
from augesc_builder.pipeline.generate.backgrounds import Backgrounds, contradicts
from augesc_builder.pipeline.generate.resampling import BadTurns, Resampler
from augesc_builder.pipeline.generate.steps import ResumingEngine, Steps, stepwise
from augesc_builder.pipeline.generate.tasks import Row, Task, generation_row
from augesc_builder.text.prompt_form import PromptForm


def conversation_rows(
    engine: ResumingEngine,
    form: PromptForm,
    recipe: Recipe,
    tasks: Iterable[Task],
    on_step: OnStep,
    contradicts: Callable[[str, str], bool] = contradicts,
    bad_turns: BadTurns | None = None,
) -> Iterator[tuple[Task, Row]]:
    """Yield each task with its row as an engine ends it, in no order; tasks are read as needed.

    ``contradicts`` says whether a background contradicts a query, and ``bad_turns`` which turns are
    drawn again, where the recipe has such a step.
    """
    settings = recipe.generate
    backgrounds = Backgrounds(form, settings.background, contradicts)
    resampler = None
    if settings.resample is not None and bad_turns is not None:
        resampler = Resampler(form, settings.resample.attempts, bad_turns)

    def begin(task: Task) -> Steps:
        query = task.query["text"]
        stream = partial(stream_key, recipe.seed, task.query["query_id"], task.sample)
        background, grounds = None, dict[str, Any]()
        if recipe.prompt.background:
            drawn = yield from backgrounds.draw(query, task.persona, partial(stream, "background"))
            background = drawn.background
            grounds = {
                "background": background,
                "background_faults": [*drawn.faults],
                "n_background_tokens": drawn.n_tokens,
                "persona": task.persona,
            }
        prompt = Prompt(form.for_query(query, background), stream())
        result = yield prompt
        if resampler is not None:
            again = yield from resampler.again(query, prompt, result, partial(stream, "resample"))
            result = again.result
            grounds |= {"resampled": [*again.reasons], "n_resampled_tokens": again.n_tokens}
        text, strategies = form.said(result.token_ids)
        return generation_row(
            task,
            text,
            recipe.seed,
            finish_reason=result.finish_reason,
            n_prompt_tokens=len(prompt.token_ids),
            n_tokens=len(result.token_ids),
            strategies=strategies,
            **grounds,
        )

    return stepwise(engine, begin, tasks, on_step)
