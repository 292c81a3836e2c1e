"""What a model says, as its tokens come; none of it can move a cursor or hide a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer

from augesc_builder.dialog.model import DialogModel


def printable(text: str) -> str:
    """Return a text without control and formatting characters, which could move a cursor."""
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Co", "Cs"})


class TextStreamer(BaseStreamer):  # type: ignore[misc]
    """Writes a reply as its tokens come, with the blanks of the whole.

    What ``write`` raises ends the generation.
    """

    def __init__(self, model: DialogModel, write: Callable[[str], None]) -> None:
        self._decode, self._print = model.decode, write
        self._is_prompt = not model.encoder.is_encoder_decoder  # a causal LM repeats it
        self._ids: list[int] = []
        self._shown = ""

    def put(self, value: Any) -> None:
        """Take the next token, and write all words but the last, which may go on."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self._ids += value.flatten().tolist()
        words = printable(self._decode(self._ids))
        self._show(words[: words.rfind(" ")] if " " in words else "")

    def end(self) -> None:
        """Write what is left."""
        self._show(printable(self._decode(self._ids)))

    def _show(self, text: str) -> None:
        if text.startswith(self._shown):
            self._print(text[len(self._shown) :])
            self._shown = text
