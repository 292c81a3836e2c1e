"""The form that a recipe's model is trained on and continues, as tokens (``prompt.form``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Prompt
from augesc_builder.errors import CheckpointError
from augesc_builder.models.token_codec import CONTROL, TokenCodec
from augesc_builder.text.chat_template import WAY_OUT, ChatTemplate, read_chat_template
from augesc_builder.text.prompts import Message, PromptTemplate, collapse
from augesc_builder.text.strategy_tags import Strategies, tagged, without_tags

Learned = tuple[list[int], list[bool]]
"""Tokens of a text, and which of them the loss is over."""


@dataclass(frozen=True)
class PromptForm:
    """A template and a tokenizer: conversations to tokens, and what continues them to text.

    ``front`` are the tokens before every text, and ``end`` is the one that ends a conversation.
    With ``strategies`` the supporter's utterances begin with the tags of theirs.
    """

    template: PromptTemplate | ChatTemplate
    codec: TokenCodec
    front: tuple[int, ...]
    end: int
    strategies: bool = False

    def for_session(
        self,
        messages: Sequence[Message],
        background: str | None = None,
        strategies: Strategies | None = None,
    ) -> Learned:
        """Return the tokens of a conversation with its end, and which of them are learned.

        The instruction is not (figure 2), nor is the background, which the model is given. Needs a
        fast tokenizer. Raises ``ValueError`` for an utterance that is not one line of trimmed text,
        and as :func:`~augesc_builder.text.strategy_tags.tagged` does.
        """
        if self.strategies:
            messages = tagged(messages, strategies)
        text = self.template.for_session(messages, background)
        ids, learned = self._learned(text, len(self.template.opening(background)))
        return [*ids, self.end], [*learned, True]

    def for_session_background(self, query: str, background: str) -> Learned:
        """Return the tokens of a query and its background with its line's end, which are learned.

        Needs a fast tokenizer. Raises ``ValueError`` as :meth:`for_session`.
        """
        self.template.opening(background)
        cue = self.template.for_background(query)
        return self._learned(f"{cue} {background}\n", len(cue))

    def for_query(self, query: str, background: str | None = None) -> tuple[int, ...]:
        """Return the tokens of a query and of the supporter's cue, which the model continues."""
        return (*self.front, *self.codec.encode(self.template.for_query(query, background)))

    def for_background(self, query: str, begun: str = "") -> tuple[int, ...]:
        """Return the tokens of a query and its background's cue, which the model continues.

        One of :attr:`line_ends` ends it. ``begun`` is what the background begins with.
        """
        return (*self.front, *self.codec.encode(self.template.for_background(query, begun)))

    @cached_property
    def line_ends(self) -> frozenset[int]:
        """Return the tokens with a line break in them, and the control tokens."""
        return self.codec.line_ends()

    def background(self, ids: Sequence[int]) -> str:
        """Return what continues the cue of a background, up to a line's end; empty for no words."""
        line = CONTROL.split(self.codec.decode(ids), maxsplit=1)[0]
        return collapse(line.split("\n", maxsplit=1)[0])

    def text(self, ids: Sequence[int]) -> str:
        """Return what continues a query as lines of the paper's form, with tags if there are."""
        return self.template.lines(self.codec.decode(ids))

    def said(self, ids: Sequence[int]) -> tuple[str, Strategies | None]:
        """Return what continues a query as the generations table has it, and the strategies.

        Those are the tags that were taken out of the text; ``None`` for a form without them.
        """
        return without_tags(self.text(ids)) if self.strategies else (self.text(ids), None)

    def _learned(self, text: str, given: int) -> Learned:
        """Return the tokens of a text, of which the first ``given`` characters are not learned."""
        ids, starts = self.codec.encode_with_starts(text)
        learned = [start >= given for start in starts]
        return [*self.front, *ids], [*[False] * len(self.front), *learned]


def prompt_form(prompt: Prompt, tokenizer: Any, name: str | Path) -> PromptForm:
    """Make the form that a recipe chooses, for the tokenizer of the model ``name``.

    The paper's form ends with the tokenizer's end-of-sequence token. So does the chat form, unless
    the chat template itself writes that one behind a turn: then with the first other special token
    that the template does not write.

    Raises :class:`~augesc_builder.errors.CheckpointError` for a chat template that is none, or that
    cannot be used.
    """
    codec = TokenCodec(tokenizer)
    if prompt.form == "paper":
        plain, front = template_of(prompt), tuple(codec.front())
        return PromptForm(plain, codec, front, int(tokenizer.eos_token_id), prompt.strategies)
    if not tokenizer.chat_template:
        raise CheckpointError(f"{name}: its tokenizer has no chat template; {WAY_OUT}")
    chat = read_chat_template(codec, prompt.instruction, name, background=prompt.background)
    end = codec.free("".join([chat.prefix, *chat.before.values(), *chat.after.values()]))
    if end is None:
        raise CheckpointError(
            f"{name}: its chat template leaves no special token for the end of a conversation; "
            f"add one to the tokenizer, or set prompt.form=paper"
        )
    return PromptForm(chat, codec, (), end, prompt.strategies)


def template_of(prompt: Prompt) -> PromptTemplate:
    """Return the paper's form with what a recipe puts before conversations."""
    return PromptTemplate(prompt.instruction, prompt.background)
