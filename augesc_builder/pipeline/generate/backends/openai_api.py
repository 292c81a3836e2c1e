"""Backend ``openai_api``: a prompted model behind an address (section 4.3, the GPT-3 row)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from augesc_builder.config.base import MODEL
from augesc_builder.config.openai_api import OpenAISettings
from augesc_builder.config.published import is_local
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import RecipeError
from augesc_builder.pipeline.generate.backends.base import Backend, OnStep
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.escape import markdown_code

if TYPE_CHECKING:
    from augesc_builder.pipeline.generate.endpoint.asking import Asking
    from augesc_builder.pipeline.generate.endpoint.forms import Forms
    from augesc_builder.pipeline.generate.endpoint.journal import Journal
    from augesc_builder.text.prompts import Message

_QUERY_TOKENS, _LINE_TOKENS = 30, 30
"""Tokens of a query and of an utterance, about (table 2: some 20 words each), for estimates."""


class OpenAIBackend(Backend):
    """Asks any endpoint that speaks OpenAI's protocol; what it answers is on disk at once."""

    Settings = OpenAISettings
    about = "a prompted model behind an address, by OpenAI's protocol"
    needs_checkpoint = False
    reproducible = False

    # -- what is said of it ----------------------------------------------------------------------

    @classmethod
    def label(cls, recipe: Recipe) -> str:
        """Name the model; of a folder its name is not said."""
        name = settings_of(recipe).model
        return "local model" if is_local(name, MODEL) else name.rstrip("/").rpartition("/")[2]

    @classmethod
    def model(cls, recipe: Recipe) -> str:
        """Say which model, and where."""
        settings = settings_of(recipe)
        host = urlsplit(settings.base_url).hostname or ""
        return f"{markdown_code(cls.label(recipe))}, prompted at {markdown_code(host)}"

    @classmethod
    def n_sessions(cls, recipe: Recipe) -> int:
        """Return how many sessions are shown as examples."""
        return settings_of(recipe).examples

    @classmethod
    def sampling(cls, recipe: Recipe) -> str:
        """Say how texts are asked for."""
        settings, generate = settings_of(recipe), recipe.generate
        how = f"top-p {generate.top_p}, temperature {generate.temperature}"
        if generate.greedy:
            how = "the most likely token each time"
        if settings.extra_body:
            how += f", {markdown_code(str(settings.extra_body))}"
        what = "a conversation" if settings.turns is None else "an utterance"
        shown = f"{settings.examples} example sessions" if settings.examples else "no examples"
        return (
            f"{how}, {what} a request ({settings.mode}, {shown}), at most "
            f"{settings.max_new_tokens:,} new tokens each"
        )

    @classmethod
    def plan(cls, recipe: Recipe, n_tasks: int) -> list[str]:
        """Estimate tokens and money."""
        settings = settings_of(recipe)
        n_requests, n_prompt, n_new = _estimate(recipe, n_tasks)
        said = (
            f"openai_api: at most {n_requests:,} requests to {settings.base_url} for "
            f"{settings.model}: about {n_prompt:,} tokens of prompts, and at most {n_new:,} tokens "
            f"of answers"
        )
        prices, budget = settings.prices, settings.budget
        money = None
        if prices is not None:
            money = (n_prompt * prices.prompt + n_new * prices.completion) / 1e6
            said += f"; {money:,.2f} at the recipe's prices"
        lines = [f"{said}. Nothing is asked yet."]
        for name, most, needed in (
            ("tokens", budget.tokens, n_prompt + n_new),
            ("money", budget.money, money),
        ):
            if most is not None and needed is not None:
                lines.append(
                    f"The budget is {most:,} ({name}): "
                    + ("enough." if most >= needed else "less than that; the run stops there.")
                )
        return lines

    # -- at work ---------------------------------------------------------------------------------

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse sampling that the protocol has no words for."""
        generate, given = recipe.generate, []
        if generate.repetition_penalty != 1:
            given.append(f"generate.repetition_penalty={generate.repetition_penalty:g}")
        given += [f"generate.top_k={generate.top_k}"] if generate.top_k else []
        given += [f"generate.min_p={generate.min_p:g}"] if generate.min_p else []
        if given:
            raise RecipeError(
                f"{', '.join(given)}: OpenAI's protocol has no such parameter; set "
                f"generate.repetition_penalty=1, generate.top_k=null and generate.min_p=0, and put "
                f"what this endpoint takes beyond the protocol into generate.backend.extra_body"
            )

    @property
    def _is_one_of_several(self) -> bool:
        return self.recipe.executor.type != "local"

    _commit: str | None = None
    _n_tasks = 1

    def prepare(self, known: Mapping[str, Any], n_tasks: int, n_shards: int) -> Mapping[str, Any]:
        """Find the commit of the sessions that are shown: a resumed run shows the same."""
        from augesc_builder.sources.sessions import read_training_sessions

        self._n_tasks = n_tasks
        self._check_budget()
        if not settings_of(self.recipe).examples:
            return known
        asked = self.recipe.finetune
        _, self._commit = read_training_sessions(
            asked.sessions, known.get("sessions_commit", asked.revision)
        )
        return {"sessions_commit": self._commit}

    def kind(self) -> Mapping[str, Any]:
        """Return which model answers, and where."""
        host = urlsplit(settings_of(self.recipe).base_url).hostname or ""
        return {"name": f"{self.label(self.recipe)} at {host}"}

    @cached_property
    def journal(self) -> Journal:
        """Return the requests of the run so far; each of several workers writes its own."""
        from augesc_builder.pipeline.generate.endpoint.journal import Journal, journal_of_one

        place_of(self.folder).bring_journals()
        prices, beside = settings_of(self.recipe).prices, self.folder / layout.REQUESTS_OF
        of_one = self.folder / layout.REQUESTS
        return Journal(
            journal_of_one(beside) if self._is_one_of_several else of_one,
            prices,
            others=lambda: [of_one, *beside.glob("*.jsonl")],
            is_done=self.is_done,
            is_one_of_several=self._is_one_of_several,
        )

    def close(self) -> None:
        """Put the journal of one of several workers where others find it."""
        journal = self.__dict__.get("journal")
        if self._is_one_of_several and journal is not None and journal.path.exists():
            place_of(self.folder).put(f"{layout.REQUESTS_OF}/{journal.path.name}")

    def facts(self) -> Mapping[str, Any]:
        """Return what the texts took: requests, tokens, seconds of the endpoint, money."""
        spent = self.journal.spent
        return {
            "requests": {
                "answers": spent.answers,
                "prompt_tokens": spent.prompt_tokens,
                "completion_tokens": spent.completion_tokens,
                "seconds": round(spent.seconds, 3),
                "of_unknown_end": spent.unknown,
                "money": spent.money(settings_of(self.recipe).prices),
            }
        }

    def stream(self, tasks: Iterable[Task], on_step: OnStep) -> Iterator[tuple[Task, Row]]:
        """Yield rows as they are answered; those in the journal first of all.

        Raises :class:`~augesc_builder.errors.EndpointError` where nothing answers, or not for this
        key or model, and :class:`~augesc_builder.errors.BudgetError` where the budget is spent.
        """
        loop = asyncio.new_event_loop()
        rows: asyncio.Queue[tuple[Task, Row] | None] = asyncio.Queue()
        try:
            work = loop.create_task(self._answer_all(tasks, on_step, rows.put_nowait))
            work.add_done_callback(lambda _: rows.put_nowait(None))
            while (found := loop.run_until_complete(rows.get())) is not None:
                yield found
            work.result()
        finally:
            loop.run_until_complete(_end_all())
            loop.close()
            self.journal.close()

    def _check_budget(self) -> None:
        """Refuse a budget of several workers that cannot see what the others spend."""
        budget, address = settings_of(self.recipe).budget, place_of(self.folder).address
        if self._is_one_of_several and address and budget.model_dump(exclude_none=True):
            raise RecipeError(
                f"generate.backend.budget: workers of a run at an address ({address}) do not see "
                f"what the others spend; set its keys to null, or give --out a folder on a disk "
                f"that all of them see"
            )

    # -- inside ----------------------------------------------------------------------------------

    async def _answer_all(
        self, tasks: Iterable[Task], on_step: OnStep, put: Callable[[tuple[Task, Row]], None]
    ) -> None:
        """Answer every task, as many at a time as the settings let and the endpoint bears."""
        from augesc_builder.pipeline.generate.endpoint.asking import Asking, Stopped
        from augesc_builder.pipeline.generate.endpoint.client import Endpoint
        from augesc_builder.pipeline.generate.endpoint.forms import Forms

        settings, spent = settings_of(self.recipe), self.journal.own
        endpoint = Endpoint(settings)
        asking = Asking(settings, endpoint, self.journal)
        forms = Forms(self.recipe, _examples(self.recipe, self._commit))
        todo, told = iter(tasks), spent.completion_tokens

        async def work() -> None:
            nonlocal told
            for task in todo:
                try:
                    row = await self._row(asking, forms, task)
                except Stopped:
                    return
                except BaseException:
                    asking.stop()
                    raise
                made, told = spent.completion_tokens - told, spent.completion_tokens
                on_step(1, made, asking.throttle.under_way / settings.concurrency)
                put((task, row))

        try:
            workers = (work() for _ in range(min(settings.concurrency, self._n_tasks)))
            ended = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            await endpoint.close()
        for error in ended:
            if error is not None:
                raise error

    async def _row(self, asking: Asking, forms: Forms, task: Task) -> Row:
        from augesc_builder.pipeline.generate.endpoint.forms import add_line, begun, continuation
        from augesc_builder.pipeline.generate.endpoint.lines import Place

        turns = settings_of(self.recipe).turns
        place = Place(task.query["query_id"], task.sample, shard=task.shard)
        if turns is None:
            answer = await asking.ask(place, forms.whole(task))
            text, reason = forms.text(task, answer)
            return self.row(task, text, finish_reason=reason)
        messages = begun(task)
        ended: str | None = None
        while ended is None:
            place = replace(place, turn=len(messages) - 1)
            answer = await asking.ask(place, forms.line(task, turns, messages))
            ended = add_line(messages, answer, turns)
        return self.row(task, continuation(messages), finish_reason=ended)


def settings_of(recipe: Recipe) -> OpenAISettings:
    """Return the section of this backend."""
    return cast(OpenAISettings, recipe.generate.backend)


def _examples(recipe: Recipe, commit: str | None) -> list[list[Message]]:
    """Return the sessions that are shown, drawn as those of a fine-tuning are."""
    from augesc_builder.pipeline.finetune.examples import sample_sessions
    from augesc_builder.sources.sessions import read_training_sessions

    n = settings_of(recipe).examples
    if not n:
        return []
    sessions, _ = read_training_sessions(recipe.finetune.sessions, commit)
    return [list(session.messages) for session in sample_sessions(sessions, n, recipe.seed)]


async def _end_all() -> None:
    """End whatever a loop is still at, should the run be interrupted."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def _estimate(recipe: Recipe, n_tasks: int) -> tuple[int, int, int]:
    """Return requests, tokens of their prompts, and of their answers, at most."""
    from augesc_builder.pipeline.generate.endpoint.forms import Forms
    from augesc_builder.pipeline.generate.endpoint.lines import estimated_tokens

    settings = settings_of(recipe)
    shown = Forms(recipe, _examples(recipe, recipe.finetune.revision)).shown
    each = estimated_tokens(shown) + _QUERY_TOKENS
    if settings.turns is None:
        return n_tasks, n_tasks * each, n_tasks * settings.max_new_tokens
    n = settings.turns.max - 1
    said = _LINE_TOKENS * n * (n - 1) // 2
    return (
        n_tasks * n,
        n_tasks * (n * each + said),
        n_tasks * n * min(settings.max_new_tokens, _LINE_TOKENS),
    )
