"""Histories and responses as tokens, as each family of models has them.

=================  =============================================================================
Blenderbot         every utterance after a blank, a blank more between two: as ParlAI joins them
Blenderbot-small   ``__newln__`` between utterances (its tokenizer's line break)
BART               ``<s>`` first, ``</s></s>`` between utterances (its convention for pairs)
T5                 ``seeker:`` and ``supporter:`` in front of utterances
others             the end-of-sequence token between utterances
causal LMs         the tokenizer's chat template, where the model itself is the assistant,
                   whichever role it is trained for
=================  =============================================================================

A history that is too long loses its oldest tokens (causal LMs: its oldest utterances). Blenderbot
and BART mark no speaker: merge consecutive utterances, and turns tell.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from augesc_builder.config.training import Examples
from augesc_builder.dialog.examples import merge_consecutive
from augesc_builder.errors import CheckpointError, TrainingError
from augesc_builder.models.dialog import NEW_LINE, position_limit
from augesc_builder.models.training_step import IGNORED
from augesc_builder.text.prompts import Message

_REMEMBERED = 1 << 18
"""Utterances whose tokens are remembered: an epoch meets each of them many times."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
"""For causal LMs without a chat template of their own."""


_SWAPPED = {"user": "assistant", "assistant": "user"}


@dataclass(frozen=True)
class Encoded:
    """A history and a response as token ids; ``cut``: the response was too long."""

    source: list[int]
    target: list[int]
    cut: bool


class Encoder:
    """Turns examples into tokens for one model.

    Raises :class:`~augesc_builder.errors.TrainingError` where the settings want more tokens than
    the model has positions, and :class:`~augesc_builder.errors.CheckpointError` where the tokenizer
    lacks a chat template, or the config a decoder's first token. Encoding raises the latter where a
    chat template fails.
    """

    def __init__(self, model: Any, tokenizer: Any, examples: Examples) -> None:
        self.tokenizer = tokenizer
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        limit = position_limit(model, tokenizer)
        self.max_target = examples.max_target_tokens
        max_source = examples.max_source_tokens or (limit if self.is_encoder_decoder else None)
        if max_source is None:
            if limit is None:
                raise TrainingError(
                    "neither model nor tokenizer says how long a text may be; set "
                    "examples.max_source_tokens"
                )
            max_source = limit - self.max_target
        self.max_source = max_source
        both = {"max_source_tokens": self.max_source, "max_target_tokens": self.max_target}
        for key, value in both.items():
            if limit is not None and value > limit:
                raise TrainingError(
                    f"examples.{key} is {value}, but the model has positions for {limit}; lower it"
                )
        if limit is not None and not self.is_encoder_decoder and sum(both.values()) > limit:
            raise TrainingError(
                f"examples.max_source_tokens + max_target_tokens is {sum(both.values())}, but the "
                f"model has positions for {limit}; lower one of them"
            )
        if not self.is_encoder_decoder and not tokenizer.chat_template:
            raise CheckpointError(
                "the tokenizer has no chat template; set model.chat_template to a Jinja template, "
                "or to plain for a simple one"
            )
        kind = str(model.config.model_type)
        self._decoder_start = model.config.decoder_start_token_id if self.is_encoder_decoder else 0
        if self._decoder_start is None:
            raise CheckpointError(
                "the model's config has no decoder_start_token_id; set it in its config.json"
            )
        self.eos = int(tokenizer.eos_token_id)
        self.pad = self.eos if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self._target_prefix = " " if kind == "blenderbot" else ""
        self._swapped = examples.role == "seeker"
        self._history_turns = examples.history_turns
        self._prefix = {"user": "", "assistant": ""}
        self._start, self._between, self._end = _marks(kind, tokenizer)
        if kind in {"t5", "mt5", "umt5"}:
            self._prefix = {"user": "seeker: ", "assistant": "supporter: "}
        elif kind == "blenderbot":
            self._prefix = {"user": " ", "assistant": " "}
        self._ids = functools.lru_cache(_REMEMBERED)(self._tokenize)

    def encode(self, history: Sequence[Message], response: str) -> Encoded:
        """Encode an example."""
        target = [*self._ids(response, self._target_prefix), self.eos]
        return Encoded(
            self.source(history), target[: self.max_target], len(target) > self.max_target
        )

    def source(self, history: Sequence[Message]) -> list[int]:
        """Encode a history; of one that is too long the oldest is cut off."""
        ids, n_start = self.whole(history), len(self._start)
        if self.is_encoder_decoder:
            return [*ids[:n_start], *ids[n_start + max(0, len(ids) - self.max_source) :]]
        messages = list(history)
        while len(ids) > self.max_source and len(messages) > 1:
            messages.pop(0)
            ids = self.whole(messages)
        return ids[-self.max_source :]

    def whole(self, history: Sequence[Message]) -> list[int]:
        """Encode a history, however long it is."""
        if not self.is_encoder_decoder:
            return self._templated(history)
        body: list[int] = []
        for message in history:
            body += self._between if body else []
            body += self._ids(message["content"], self._prefix[message["role"]])
        return [*self._start, *body, *self._end]

    def context(self, history: Sequence[Message]) -> list[int] | None:
        """Encode a conversation of two that take turns; its first utterance, the query, is kept.

        What is too long loses its oldest utterances behind the query, two by two, so that turns
        still tell who speaks. Of the latest, where it does not fit beside the query, the end is
        kept. ``None`` where not even that fits.
        """
        query, *rest = history
        turns = self._history_turns
        oldest = 0 if turns is None else max(0, len(rest) + 1 - turns)
        for start in range(oldest + oldest % 2, max(len(rest), 1), 2):
            if len(ids := self.whole([query, *rest[start:]])) <= self.max_source:
                return ids
        for latest in rest[-1:]:
            for end in _ends(latest["content"]):
                both: list[Message] = [query, {"role": latest["role"], "content": end}]
                if len(ids := self.whole(merge_consecutive(both))) <= self.max_source:
                    return ids
        return None

    def _templated(self, messages: Sequence[Message]) -> list[int]:
        """Apply the chat template, a program of whoever made the model: it can fail in any way."""
        if self._swapped:
            messages = [
                {"role": _SWAPPED[message["role"]], "content": message["content"]}
                for message in messages
            ]
        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(
                f"the model's chat template fails: {reason}; set model.chat_template to another, "
                f"or to plain"
            ) from error
        if not ids:
            raise CheckpointError(
                "the model's chat template writes nothing; set model.chat_template to another, or "
                "to plain"
            )
        return ids

    def _tokenize(self, text: str, prefix: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(prefix + text, add_special_tokens=False)["input_ids"])

    def collate(
        self, examples: Sequence[Encoded], *, ignored: bool = False
    ) -> dict[str, torch.Tensor]:
        """Pad examples to one batch for teacher forcing; ``ignored`` leaves all labels out.

        ``input_ids`` and ``attention_mask`` are (B, T), padded at the right.
        For encoder-decoders ``labels`` (B, T) are the responses, and the decoder reads them one
        place to the right. For causal LMs history and response are one text, and labels leave the
        history out.
        """
        if self.is_encoder_decoder:
            ids, wanted = [e.source for e in examples], [e.target for e in examples]
        else:
            ids = [[*e.source, *e.target] for e in examples]
            wanted = [[*[IGNORED] * (len(e.source) - 1), *e.target, IGNORED] for e in examples]
        labels = _rows(wanted, IGNORED)
        batch = {
            "input_ids": _rows(ids, self.pad),
            "attention_mask": _rows([[1] * len(row) for row in ids], 0),
            "labels": torch.full_like(labels, IGNORED) if ignored else labels,
        }
        if self.is_encoder_decoder:
            shifted = [[self._decoder_start, *e.target[:-1]] for e in examples]
            batch["decoder_input_ids"] = _rows(shifted, self.pad)
        return batch


def _marks(kind: str, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """Return the tokens that stand before the history, between utterances, and behind."""
    eos = [int(tokenizer.eos_token_id)]
    if kind == "blenderbot":
        return [], [tokenizer.convert_tokens_to_ids("\u0120")], eos
    if kind == "blenderbot-small":
        new_line = tokenizer.convert_tokens_to_ids(NEW_LINE)
        return [], eos if new_line in {None, tokenizer.unk_token_id} else [new_line], eos
    if kind in {"bart", "mbart"}:
        return [int(tokenizer.bos_token_id)], [*eos, *eos], eos
    if kind in {"t5", "mt5", "umt5"}:
        return [], [], eos
    return [], eos, eos


def summed_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed negative log-likelihood of each row's labels: (B,), in nats."""
    labels = batch.pop("labels")
    logits = model(**batch, use_cache=False).logits.float()  # (B, T, V)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(labels.shape).sum(-1)


def _ends(text: str) -> Iterator[str]:
    """Yield a text from each of its words on, and then from each letter of the last word."""
    starts = [found.start() for found in _WORD.finditer(text)]
    for start in [*starts, *range(starts[-1] + 1, len(text))]:
        yield text[start:]


_WORD = re.compile(r"\S+")


def _rows(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(len(row) for row in values)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in values])  # (B, T)
