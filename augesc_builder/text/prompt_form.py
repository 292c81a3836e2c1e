"""The form that a recipe's model is trained on and continues, as tokens (``prompt.form``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.recipe import Prompt
from augesc_builder.errors import CheckpointError
from augesc_builder.models.token_codec import TokenCodec
from augesc_builder.text.chat_template import WAY_OUT, ChatTemplate, read_chat_template
from augesc_builder.text.prompts import Message, PromptTemplate


@dataclass(frozen=True)
class PromptForm:
    """A template and a tokenizer: conversations to tokens, and what continues them to text.

    ``front`` are the tokens before every text, and ``end`` is the one that ends a conversation.
    """

    template: PromptTemplate | ChatTemplate
    codec: TokenCodec
    front: tuple[int, ...]
    end: int

    def for_session(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Return the tokens of a conversation with its end, and which of them are learned.

        The instruction is not (figure 2). Needs a fast tokenizer. Raises ``ValueError`` for an
        utterance that is not one line of trimmed text.
        """
        ids, starts = self.codec.encode_with_starts(self.template.for_session(messages))
        learned = [start >= len(self.template.prefix) for start in starts]
        return [*self.front, *ids, self.end], [*[False] * len(self.front), *learned, True]

    def for_query(self, query: str) -> tuple[int, ...]:
        """Return the tokens of a query and of the supporter's cue, which the model continues."""
        return (*self.front, *self.codec.encode(self.template.for_query(query)))

    def text(self, ids: Sequence[int]) -> str:
        """Return what continues a query as the generations table has it: the paper's lines."""
        return self.template.lines(self.codec.decode(ids))


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
        plain = PromptTemplate(prompt.instruction)
        return PromptForm(plain, codec, tuple(codec.front()), int(tokenizer.eos_token_id))
    if not tokenizer.chat_template:
        raise CheckpointError(f"{name}: its tokenizer has no chat template; {WAY_OUT}")
    chat = read_chat_template(codec, prompt.instruction, name)
    end = codec.free("".join([chat.prefix, *chat.before.values(), *chat.after.values()]))
    if end is None:
        raise CheckpointError(
            f"{name}: its chat template leaves no special token for the end of a conversation; "
            f"add one to the tokenizer, or set prompt.form=paper"
        )
    return PromptForm(chat, codec, (), end)
