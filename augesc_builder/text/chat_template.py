"""Conversations in the form of a chat model's own template (``prompt.form: chat``).

A chat template is a program of whoever made the model. It is run on a few made-up conversations
when a model is loaded, with a bound on its work, and what it writes around and between what is said
is all that is taken from it: it never sees a session or a query. Templates that cannot be taken
apart in this way are refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any

from augesc_builder.errors import CheckpointError
from augesc_builder.models.token_codec import CONTROL, TokenCodec, readable
from augesc_builder.text.prompts import (
    BACKGROUND,
    ROLE_WORD,
    SUPPORTER,
    Message,
    background_cue,
    check,
    check_background,
    collapse,
)

_STEPS = 2_000_000
"""Lines of a template, compiled to Python, that may be run for one conversation."""

_TODAY = "26 Jul 2024"
"""What day it is for templates that ask for it as Llama's do; the value is their own default."""

WAY_OUT = (
    "set prompt.form=paper, or put another chat_template.jinja into the model's folder (see "
    "docs/recipes.md)"
)


@dataclass(frozen=True)
class ChatTemplate:
    """A chat model's form, with the interface of ``PromptTemplate``.

    ``prefix`` holds the system message; ``before`` and ``after`` are what stands around
    what each role says. Control tokens stand in them as :class:`TokenCodec` has them. Behind the
    last turn comes the token that ends a conversation, which is not part of the text. A background
    is the last line of the system message: ``place`` is where in ``prefix``, ``None`` for no
    background. The model writes it in the seeker's turn, behind the query, on a line of its own.

    ``parse(for_session(messages, background)) == messages`` for whatever utterances, since each
    turn is told from the next by a control token.
    """

    prefix: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    place: int | None = None

    @property
    def background(self) -> bool:
        """Whether conversations may have one."""
        return self.place is not None

    def opening(self, background: str | None = None) -> str:
        """Return the system message.

        Raises ``ValueError`` for a background that would not come back, as
        :meth:`PromptTemplate.opening <augesc_builder.text.prompts.PromptTemplate.opening>`.
        """
        if background is None:
            return self.prefix
        check_background(background, self.background)
        opening, closing = self.prefix[: self.place], self.prefix[self.place :]
        if closing and closing in f"{background}{closing}"[:-1]:
            raise ValueError(f"a background that holds {closing!r}, which ends a system message")
        return f"{opening}\n{BACKGROUND}: {background}{closing}"

    def for_session(self, messages: Sequence[Message], background: str | None = None) -> str:
        """Return a whole conversation; raises as :func:`~augesc_builder.text.prompts.render`."""
        check(messages)
        turns = (f"{self.before[m['role']]}{m['content']}{self.after[m['role']]}" for m in messages)
        return self.opening(background) + "".join(turns)

    def for_query(self, query: str, background: str | None = None) -> str:
        """Return a query and the beginning of the supporter's turn, which the model continues."""
        asked = self.for_session([{"role": "user", "content": query}], background)
        return asked + self._cues["assistant"]

    def for_background(self, query: str, begun: str = "") -> str:
        """Return a query and the cue of its background, which the model continues to a line's end.

        ``begun`` is what the background begins with.
        """
        asked = self.for_session([{"role": "user", "content": query}])
        return background_cue(asked.removesuffix(self.after["user"]), begun)

    def parse_background(self, text: str) -> str | None:
        """Return the background in a conversation's system message; ``None`` where it has none.

        Raises ``ValueError`` for a text that does not begin with the system message.
        """
        opening, closing = self.prefix[: self.place], self.prefix[self.place :]
        cue = f"{opening}\n{BACKGROUND}: "
        if self.place is not None and text.startswith(cue):
            rest = text[len(cue) :]
            if not closing:  # a control token begins the first turn
                closing = next(iter(CONTROL.findall(rest)), "")
            background, end, _ = rest.partition(closing) if closing else (rest, "", "")
            fits = background and "\n" not in background and background == background.strip()
            if fits and (end or not closing):
                return background
        if not text.startswith(self.prefix):
            raise ValueError(f"expected {self.prefix[:60]!r} first, found {text[:60]!r}")
        return None

    def parse(self, text: str) -> list[Message] | None:
        """Return the utterances behind the system message; ``None`` for broken turns.

        Turns without words are skipped. Raises ``ValueError`` for a text that does not begin with
        the system message.
        """
        text = text[len(self.opening(self.parse_background(text))) :]
        role = next((role for role, cue in self._cues.items() if text.startswith(cue)), None)
        if not text or role is None:
            return None if text else []
        turns = self._turns(text[len(self._cues[role]) :], role)
        if any(CONTROL.search(said) for _, said in turns):
            return None
        return [{"role": role, "content": said.strip()} for role, said in turns if said.strip()]

    def lines(self, text: str) -> str:
        """Return what continues a query as lines ``Human:`` and ``AI:``, as the tables have it.

        Line breaks inside a turn become blanks. A control token where none belongs begins a line
        without a role, so that the text fails the requirement ``format``.
        """
        turns = self._turns(text, "assistant")
        lines = (f"\n{ROLE_WORD[role]}: {readable(collapse(said))}" for role, said in turns)
        return "".join(lines).removeprefix(f"\n{SUPPORTER}:")

    def _turns(self, text: str, role: str) -> list[tuple[str, str]]:
        """Part a text that begins with the words of ``role``; the last turn may lack its end."""
        turns, at = [], 0
        while found := self._ends[role].search(text, at):
            turns.append((role, text[at : found.start()]))
            if found.lastgroup is None:
                return turns
            role, at = found.lastgroup, found.end()
        return [*turns, (role, text[at:])]

    @cached_property
    def _cues(self) -> dict[str, str]:
        """What begins a turn, without a blank behind it: that one is a token with what is said."""
        return {role: text.rstrip(" ") for role, text in self.before.items()}

    @cached_property
    def _ends(self) -> dict[str, re.Pattern[str]]:
        """What ends a turn of each role: its mark, and the next role's or the text's end."""
        roles = "|".join(f"(?P<{role}>{re.escape(cue)})" for role, cue in self._cues.items())
        return {
            role: re.compile(rf"{re.escape(text)}(?:{roles}|\Z)")
            for role, text in self.after.items()
        }


def read_chat_template(
    codec: TokenCodec, instruction: str, name: str | Path, *, background: bool = False
) -> ChatTemplate:
    """Take a tokenizer's chat template apart, with the instruction as its system message.

    ``background`` leaves room for a background in it.

    Raises :class:`~augesc_builder.errors.CheckpointError` where there is no template, where it
    fails, goes on without end, takes no system message or changes what is said, and where an
    utterance could not be told from its marks.
    """
    try:
        start, before, after = _marks(codec)
    except _TemplateError as error:
        raise CheckpointError(f"{name}: its chat template {error}; {WAY_OUT}") from None
    if background and not start[1] and not CONTROL.match(before["user"]):
        raise CheckpointError(
            f"{name}: its chat template writes nothing behind the system message, by which the end "
            f"of a background could be told; {WAY_OUT}"
        )
    place = len(start[0] + instruction) if background else None
    return ChatTemplate(instruction.join(start), before, after, place)


class _TemplateError(Exception):
    """What a chat template does that a form cannot be made of."""


def _marks(codec: TokenCodec) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Return what stands around the system message, and before and after what each role says."""
    before_system, before_user, ask, answer, *again, last_ask = _around(codec, "suauau")
    *_, last_answer = _around(codec, "suaua")
    if again != [ask, answer]:
        raise _TemplateError("writes the same turn differently from place to place")
    after = {"user": _common(ask, last_ask), "assistant": _common(answer, last_answer)}
    before = {
        "user": answer.removeprefix(after["assistant"]),
        "assistant": ask.removeprefix(after["user"]),
    }
    if not before_user.endswith(before["user"]):
        raise _TemplateError("writes the system message into the first turn")
    for mark in after.values():
        if not _told_apart(*(mark + following.rstrip(" ") for following in before.values())):
            raise _TemplateError("marks turns by words alone, which somebody may say")
    return [before_system, before_user.removesuffix(before["user"])], before, after


_ROLES = {"s": "system", "u": "user", "a": "assistant"}


def _around(codec: TokenCodec, roles: str) -> list[str]:
    """Return what a template writes before, between and behind messages of these roles.

    What they say has what a template may change: quotes, a backslash, brackets and an accent.
    """
    said = [f"""Abc {n} "it's" <é> \\ {{{{b}}}} & z.""" for n in range(len(roles))]
    messages = [{"role": _ROLES[r], "content": c} for r, c in zip(roles, said, strict=True)]
    try:
        rest = _render(codec.tokenizer, messages)
    except Exception as error:  # a stranger's program can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if roles.startswith("s"):
            _around(codec, roles.removeprefix("s"))
            raise _TemplateError(
                f"takes no system message, as which it is given the instruction ({reason})"
            ) from None
        raise _TemplateError(f"fails: {reason}") from None
    found = []
    for role, content in zip(roles, said, strict=True):
        before, was_there, rest = rest.partition(content)
        if not was_there:
            what = "leaves out the system message, as which it is given the instruction"
            raise _TemplateError(what if role == "s" else "changes what is said")
        found.append(codec.mark(before))
    return [*found, codec.mark(rest)]


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Apply a chat template, which may take so many steps and no more, and not read the clock."""
    left = _STEPS

    def count(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("it goes on without end")
        if frame.f_code.co_name == "strftime_now":  # of transformers: what is made must not age
            raise RuntimeError("it writes the day of its use")
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, date_string=_TODAY)
    finally:
        sys.settrace(before)
    return str(text)


def _told_apart(first: str, second: str) -> bool:
    """Whether two marks differ from their first control token on, whatever follows them."""
    tails = [mark[found.start() :] for mark in (first, second) if (found := CONTROL.search(mark))]
    return len(tails) == 2 and _common(*tails) not in tails  # noqa: PLR2004


def _common(first: str, second: str) -> str:
    """Return what two texts begin with."""
    pairs = zip(first, second, strict=False)
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
