"""Talking to a dialog model in the terminal.

What the user writes is looked through for signs of danger (``safety.py``) before the model sees
it; where there are any, a notice with places to turn to comes before the reply. The model has no
part in that, and control characters in what it says are left out: it cannot wipe the notice off a
terminal.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from transformers.generation.streamers import BaseStreamer

from augesc_builder.dialog.model import Decoding, DialogModel
from augesc_builder.errors import AugescError
from augesc_builder.run.disk import disk_errors
from augesc_builder.text.prompts import Message, collapse

CRISIS = """\
------------------------------------------------------------------------
What you wrote sounds serious. This is a computer program: it cannot help
in an emergency, and what it says may be wrong. Please reach a person.

- In danger right now: call your local emergency number (112, 911, 999).
- In the USA and Canada: call or text 988. In the UK and Ireland: call
  Samaritans at 116 123.
- Anywhere: find a free helpline at https://findahelpline.com
- Or tell somebody you trust, now.
------------------------------------------------------------------------
"""
"""Comes before a reply where a risk flag was raised."""

WELCOME = """\
You are talking to a language model, not to a person. It is made for research and may say wrong or
hurtful things. Commands: /reset begins anew, /save FILE keeps the conversation, /quit ends.
"""

_HELP = "Commands: /reset, /save FILE, /quit"


class Chat:
    """One conversation after the other, over a pair of text streams."""

    def __init__(
        self, model: DialogModel, decoding: Decoding, source: TextIO, sink: TextIO
    ) -> None:
        from augesc_builder.text.safety import LexiconScanner

        self._scanner = LexiconScanner()
        self._model, self._decoding = model, decoding
        self._source, self._sink = source, sink
        self.history: list[Message] = []
        self._conversation = 0

    def run(self) -> None:
        """Talk until the input ends or the user has enough."""
        self._write(WELCOME)
        while True:
            self._write("\nYou: ")
            line = self._source.readline()
            if not line or collapse(line) in {"/quit", "/exit"}:
                self._write("\n" if not line else "")
                return
            if text := collapse(line):
                if text.startswith("/"):
                    self._obey(text)
                else:
                    self.answer(text)

    def answer(self, text: str) -> str:
        """Write and return the reply to what the user said, after the notice where it is needed."""
        self.history.append({"role": "user", "content": text})
        if is_risky(self._scanner, text):
            self._write(f"\n{CRISIS}\n")
        self._write("Supporter: ")
        streamer = None
        if self._decoding.beams == 1:
            streamer = _Streamer(self._model, self._write)
        key = f"{self._conversation}/{len(self.history)}"
        reply = printable(self._model.reply(self.history, self._decoding, key, streamer))
        self._write("\n" if streamer is not None else f"{reply}\n")
        if reply:
            self.history.append({"role": "assistant", "content": reply})
        return reply

    def _obey(self, text: str) -> None:
        command, _, rest = text.partition(" ")
        if command == "/reset":
            self.history, self._conversation = [], self._conversation + 1
            self._write("A new conversation begins.\n")
        elif command == "/save":
            self._save(rest.strip())
        else:
            self._write(f"{_HELP}\n")

    def _save(self, name: str) -> None:
        """Add the conversation to a file of JSON lines, as sessions are kept."""
        if not name:
            self._write("Give a file: /save chat.jsonl\n")
        elif not self.history:
            self._write("There is nothing to save yet.\n")
        else:
            path = Path(name).expanduser()
            try:
                with disk_errors(path), path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"messages": self.history}, ensure_ascii=False) + "\n")
            except (AugescError, OSError) as error:  # the conversation goes on
                self._write(f"Not saved: {error}\n")
            else:
                self._write(f"Saved to {path}\n")

    def _write(self, text: str) -> None:
        self._sink.write(text)
        self._sink.flush()


def is_risky(scanner: Any, text: str) -> bool:
    """Whether what a user writes raises the flag of a crisis."""
    found = scanner.scan([{"role": "user", "content": text}])
    return any(flag.flag == "crisis" for flag in found)


def printable(text: str) -> str:
    """Return a text without control and formatting characters, which could move a cursor."""
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Co", "Cs"})


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Writes a reply as its tokens come, with the blanks of the whole."""

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
