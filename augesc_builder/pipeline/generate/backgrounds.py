"""Background first: the model continues a query into a background, then both into a conversation.

The two steps of a task go through the engine as rows of their own, each with its own random stream,
beside those of other tasks. A background that is not fit to build on is drawn again, from the
stream of its attempt.
"""

from __future__ import annotations

import string
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from augesc_builder.config.recipe import Recipe
from augesc_builder.engine import Continuation, OnStep, Prompt
from augesc_builder.engine.sampling import stream_key
from augesc_builder.metrics.consistency.measure import Consistency
from augesc_builder.pipeline.generate.tasks import Row, Task, generation_row
from augesc_builder.text.prompt_form import PromptForm
from augesc_builder.text.prompts import BACKGROUND, ROLE, Message

EMPTY, UNFINISHED, COPY, ROLE_WORD, CONTRADICTION = (
    *("empty", "unfinished", "copy", "role_word"),
    "contradiction",
)
"""Why a background is drawn again: it has no words or none that a prompt can hold, its line had no
end, it has no word that is not in the query, it has the cue of an utterance in it, or it
contradicts the query."""


def contradicts(query: str, background: str) -> bool:
    """Whether a background says what clashes with the query, by the rules of ``consistency``."""
    said: list[Message] = [{"role": "user", "content": text} for text in (background, query)]
    (scored,) = Consistency().score([said])
    return bool(scored.session["contradictions"])


def _words(text: str) -> set[str]:
    return {word.strip(string.punctuation) for word in text.lower().split()}


class ResumingEngine(Protocol):
    """An engine that waits where a prompt depends on a row that has not ended."""

    def stream(
        self, prompts: Iterable[Prompt | None], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield rows as :meth:`Engine.stream <augesc_builder.engine.Engine.stream>` does.

        ``None`` in the place of a prompt says that there is none before more rows are yielded; it
        is counted too. The prompts are asked again when more rows have ended.
        """


@dataclass
class _Draft:
    """A task on its way: first its background is drawn, and ``settled`` when that is over."""

    task: Task
    background: str | None = None
    faults: list[str] = field(default_factory=list)
    n_tokens: int = 0
    settled: bool = False


def grounded_rows(
    engine: ResumingEngine,
    form: PromptForm,
    recipe: Recipe,
    tasks: Iterable[Task],
    on_step: OnStep,
    contradicts: Callable[[str, str], bool],
) -> Iterator[tuple[Task, Row]]:
    """Yield each task with its row as an engine ends it, in no order; tasks are read as needed.

    ``contradicts`` says whether a background contradicts a query. ``on_step`` counts conversations
    as rows, and the tokens of both steps.
    """
    drafts = _Drafts(form, recipe, tasks, contradicts)
    for number, result in engine.stream(drafts.prompts(), lambda _, made: on_step(0, made)):
        if (row := drafts.ended(number, result)) is not None:
            on_step(1, 0)
            yield row


class _Drafts:
    """The tasks that are at work, and the prompts that they are ready for."""

    def __init__(
        self,
        form: PromptForm,
        recipe: Recipe,
        tasks: Iterable[Task],
        contradicts: Callable[[str, str], bool],
    ) -> None:
        self._form, self._seed, self._settings = form, recipe.seed, recipe.generate.background
        self._tasks, self._contradicts = iter(tasks), contradicts
        self._ready: deque[_Draft] = deque()
        self._at_work: dict[int, tuple[_Draft, Prompt]] = {}

    def prompts(self) -> Iterator[Prompt | None]:
        """Yield the next prompt that there is, those of begun tasks first; ``None`` to wait."""
        number = 0
        while True:
            if self._ready:
                draft = self._ready.popleft()
            elif (task := next(self._tasks, None)) is not None:
                draft = _Draft(task)
            elif self._at_work:
                yield None
                number += 1
                continue
            else:
                return
            prompt = self._prompt(draft)
            self._at_work[number] = draft, prompt
            yield prompt
            number += 1

    def ended(self, number: int, result: Continuation) -> tuple[Task, Row] | None:
        """Take what a prompt became; return the row of a task that is done by it."""
        draft, prompt = self._at_work.pop(number)
        if draft.settled:
            return draft.task, self._row(draft, prompt, result)
        self._settle(draft, result)
        self._ready.append(draft)
        return None

    def _prompt(self, draft: _Draft) -> Prompt:
        query, whose = draft.task.query, (draft.task.query["query_id"], draft.task.sample)
        if draft.settled:
            ids = self._form.for_query(query["text"], draft.background)
            return Prompt(ids, stream_key(self._seed, *whose))
        ids = self._form.for_background(query["text"], draft.task.persona or "")
        stream = stream_key(self._seed, *whose, "background", len(draft.faults))
        limit = len(ids) + self._settings.max_tokens
        return Prompt(ids, stream, limit, self._form.line_ends)

    def _settle(self, draft: _Draft, result: Continuation) -> None:
        """Take a background, or draw again; without one where no draw can be fit, or was."""
        draft.n_tokens += len(result.token_ids)
        if result.finish_reason not in {"eos", "length"}:
            draft.settled = True  # the same will be said of the conversation
            return
        background = self._form.background(result.token_ids)
        if draft.task.persona and background:
            background = f"{draft.task.persona} {background}"
        fault = self._fault(draft.task.query["text"], background, result)
        if fault is None:
            draft.background, draft.settled = background, True
        else:
            draft.faults.append(fault)
            draft.settled = len(draft.faults) == self._settings.attempts

    def _fault(self, query: str, background: str, result: Continuation) -> str | None:
        try:
            self._form.template.opening(background)
        except ValueError:
            return EMPTY
        if result.finish_reason != "eos":
            return UNFINISHED
        if any(f"{word}:" in background for word in (*ROLE, BACKGROUND)):
            return ROLE_WORD
        if not _words(background) - _words(query):
            return COPY
        return CONTRADICTION if self._contradicts(query, background) else None

    def _row(self, draft: _Draft, prompt: Prompt, result: Continuation) -> Row:
        text, strategies = self._form.said(result.token_ids)
        return generation_row(
            draft.task,
            text,
            self._seed,
            finish_reason=result.finish_reason,
            n_prompt_tokens=len(prompt.token_ids),
            n_tokens=len(result.token_ids),
            background=draft.background,
            background_faults=draft.faults,
            n_background_tokens=draft.n_tokens,
            persona=draft.task.persona,
            strategies=strategies,
        )
