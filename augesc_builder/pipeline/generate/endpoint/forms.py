"""What is asked of an endpoint for a conversation, and what its answers say.

A prompt is the paper's template (figure 2): of a completion as it is, of a chat with the
instruction as system message. Rows hold what follows the query and the supporter's cue, whichever
way it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from augesc_builder.config.openai_api import OpenAISettings, Turns
from augesc_builder.config.recipe import Recipe
from augesc_builder.pipeline.generate.endpoint.client import EMPTY, EOS, LENGTH, Answer
from augesc_builder.pipeline.generate.tasks import Task
from augesc_builder.text.farewell import says_goodbye
from augesc_builder.text.prompts import (
    ROLE,
    ROLE_WORD,
    SEEKER,
    SUPPORTER,
    Message,
    PromptTemplate,
    collapse,
    render,
)

WRONG_FORMAT = "wrong_format"

_EXAMPLE = "An example of such a conversation:"


class Forms:
    """Requests for the tasks of a recipe; ``sessions`` are shown to the model as examples."""

    def __init__(self, recipe: Recipe, sessions: Sequence[Sequence[Message]] = ()) -> None:
        settings = cast(OpenAISettings, recipe.generate.backend)
        self._settings, self._recipe = settings, recipe
        shown = [f"{_EXAMPLE}\n\n{render(messages)}" for messages in sessions]
        self._system = "\n\n".join([recipe.prompt.instruction, *shown])
        self._template = PromptTemplate(recipe.prompt.instruction)

    @property
    def shown(self) -> str:
        """Return what every request says, whichever the query."""
        if self._settings.mode == "completions":
            return self._template.prefix
        turns = self._settings.turns
        return f"{self._system}\n{self._settings.request if turns is None else turns.request}"

    def whole(self, task: Task) -> dict[str, Any]:
        """Return the request for a whole conversation."""
        query = task.query["text"]
        if self._settings.mode == "completions":
            return self._body(task, 0, prompt=self._template.for_query(query))
        line = render([{"role": "user", "content": query}])
        return self._body(task, 0, messages=self._chat(f"{self._settings.request}\n\n{line}"))

    def line(self, task: Task, turns: Turns, messages: Sequence[Message]) -> dict[str, Any]:
        """Return the request for the next line of a conversation."""
        cue = ROLE_WORD[_next_role(messages)]
        text = f"{turns.request}\n\n{render(messages)}\n{cue}:"
        return self._body(task, len(messages) - 1, messages=self._chat(text), stop=["\n"])

    def text(self, task: Task, answer: Answer) -> tuple[str, str]:
        """Return the text of a row and how it ended, of the answer to :meth:`whole`.

        What stands behind a stop is cut, should the endpoint have written on. A chat model repeats
        the seeker's line or not; its answer must begin with either's cue.
        """
        said, is_cut = _cut(answer.text, self._settings.stop)
        reason = EOS if is_cut else answer.finish_reason
        if self._settings.mode == "completions" or not said.strip():
            return said, EMPTY if reason == EOS and not said.strip() else reason
        said = said.strip()
        query = render([{"role": "user", "content": task.query["text"]}])
        said = said.removeprefix(query).lstrip("\n") or said
        if said.startswith(f"{SUPPORTER}:"):
            return said.removeprefix(f"{SUPPORTER}:"), reason
        if said.startswith(f"{SEEKER}:"):
            return f"\n{said}", reason
        return f"\n{said}", WRONG_FORMAT if reason == EOS else reason

    def _body(self, task: Task, turn: int, **asked: Any) -> dict[str, Any]:
        generate, settings = self._recipe.generate, self._settings
        body = {
            "model": settings.model,
            **asked,
            "max_tokens": settings.max_new_tokens,
            "temperature": 0 if generate.greedy else generate.temperature,
            "top_p": 1 if generate.greedy else generate.top_p,
        }
        if settings.stop and "stop" not in body:
            body["stop"] = settings.stop
        if settings.send_seed:
            from augesc_builder.engine.sampling import stream_key

            key = stream_key(self._recipe.seed, f"{task.query['query_id']}/{turn}", task.sample)
            body["seed"] = key % (1 << 31)
        return body

    def _chat(self, text: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": self._system}, {"role": "user", "content": text}]


def begun(task: Task) -> list[Message]:
    """Return a conversation of which only the query is said."""
    return [{"role": "user", "content": task.query["text"]}]


def add_line(messages: list[Message], answer: Answer, turns: Turns) -> str | None:
    """Add what was answered to a conversation; return how that ends it, or ``None``.

    Of an answer of several lines the first counts, should the endpoint not have stopped there. A
    cue in front of it is taken off.
    """
    role = _next_role(messages)
    lines = [line.strip() for line in answer.text.split("\n")]
    said = collapse(next(filter(None, lines), ""))
    word, colon, rest = said.partition(":")
    if colon and ROLE.get(word) == role:
        said = rest.strip()
    if not said:
        return EMPTY if answer.finish_reason == EOS else answer.finish_reason
    messages.append({"role": role, "content": said})
    if answer.finish_reason not in {EOS, EMPTY} and len([*filter(None, lines)]) < 2:  # noqa: PLR2004
        return answer.finish_reason
    if says_goodbye(said, turns.last_words):
        return EOS
    return LENGTH if len(messages) >= turns.max else None


def continuation(messages: Sequence[Message]) -> str:
    """Return what follows the query and the supporter's cue, as rows have it."""
    if len(messages) == 1:
        return ""
    return (
        "\n" + render(messages[1:])
        if messages[1]["role"] == "user"
        else (render(messages[1:]).removeprefix(f"{SUPPORTER}:"))
    )


def _next_role(messages: Sequence[Message]) -> str:
    return "user" if messages[-1]["role"] == "assistant" else "assistant"


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Cut a text before the first of its stops."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
