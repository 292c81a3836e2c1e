"""Text as tokens of one tokenizer and back, with control tokens that no text can fake.

A control token (special, as tokenizers call it: ``<|im_end|>``, ``</s>``) stands in a text as a
lone surrogate, a code point that no text of a table or a file holds. So what somebody typed is
never taken for a control token, and a control token that a model wrote is never taken for words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

_FIRST, _LAST = 0xD800, 0xDFFF
CONTROL = re.compile("([\ud800-\udfff])")
"""Finds the control tokens in a text."""

STRAY = "\n\ufffd "
"""What readable text has for a control token: a line that begins with no role."""

_UNHEARD_OF = "\U000f1234\u0378"
"""Characters that no vocabulary has whole; a tokenizer without bytes gives its unknown token."""


class TokenCodec:
    """A tokenizer of ``transformers`` that keeps control tokens and text apart."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        # Should there be more than there are surrogates, the rest share the last.
        self._char = {i: chr(min(_FIRST + n, _LAST)) for n, i in enumerate(sorted(special))}
        self._id = {char: i for i, char in reversed(self._char.items())}
        names = tokenizer.convert_ids_to_tokens(list(self._id.values()))
        self._named = dict(zip(names, self._id, strict=True))

    def mark(self, text: str) -> str:
        """Return a text in which the names of control tokens have become control tokens."""
        names = sorted(self._named, key=len, reverse=True)
        if not names:
            return text
        either = re.compile("|".join(map(re.escape, names)))
        return either.sub(lambda found: self._named[found[0]], text)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; none is put in front or behind."""
        ids: list[int] = []
        for _, piece in _pieces(text):
            ids += [self._id[piece]] if piece in self._id else self._tokenized(piece)["input_ids"]
        return ids

    def encode_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a text and the number of the character where each begins.

        Needs a fast tokenizer.
        """
        ids: list[int] = []
        starts: list[int] = []
        for at, piece in _pieces(text):
            if piece in self._id:
                ids.append(self._id[piece])
                starts.append(at)
                continue
            found = self._tokenized(piece, return_offsets_mapping=True)
            ids += found["input_ids"]
            starts += [at + start for start, _ in found["offset_mapping"]]
        return ids, starts

    def decode(self, ids: Sequence[int]) -> str:
        """Return tokens as a text in which control tokens stand as such."""
        parts: list[str] = []
        for is_control, group in groupby(ids, key=self._char.__contains__):
            if is_control:
                parts += (self._char[i] for i in group)
            else:
                parts.append(self.tokenizer.decode([*group], clean_up_tokenization_spaces=False))
        return "".join(parts)

    def free(self, used: str) -> int | None:
        """Return a control token that may end what is written with the control tokens ``used``.

        That is the end-of-sequence token, or, where a text with several turns holds it, the first
        other that it does not hold, and that stands for no unknown character either.
        """
        taken = {self._id[char] for char in used if char in self._id}
        if self.tokenizer.eos_token_id not in {None, *taken}:
            return int(self.tokenizer.eos_token_id)
        taken |= set(self.encode(_UNHEARD_OF))
        return min((i for i in self._id.values() if i not in taken), default=None)

    def line_ends(self) -> frozenset[int]:
        """Return the tokens that hold a line break, and the control tokens."""
        ids = range(len(self.tokenizer))
        texts = self.tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
        return frozenset([*self._char, *(i for i in ids if "\n" in texts[i])])

    def front(self) -> list[int]:
        """Return the tokens that the tokenizer itself puts before a text, and none behind."""
        found = self.tokenizer("a", return_special_tokens_mask=True)
        mask = [*found["special_tokens_mask"], 0]
        return list(found["input_ids"][: mask.index(0)])

    def _tokenized(self, text: str, **options: bool) -> Any:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, **options)


def readable(text: str) -> str:
    """Return a text as tables can store it, with :data:`STRAY` for control tokens."""
    return CONTROL.sub(STRAY, text)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield control tokens and the text between them, each with where it begins."""
    at = 0
    for piece in CONTROL.split(text):
        if piece:
            yield at, piece
        at += len(piece)
