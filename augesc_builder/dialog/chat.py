"""Talking to a dialog model in the terminal.

What the user writes is looked through for signs of danger (``DangerScanner``) before the model
sees it; where there are any, a notice with places to turn to comes before the reply, and people are
told, if whoever runs the program asked for that (``handover.py``). The model has no part in it, and
control characters in what it says are left out: it cannot wipe the notice off a terminal. It is no
diagnosis and no safety device: it misses what is said in other words.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from augesc_builder.dialog.handover import HandOver, danger_report
from augesc_builder.dialog.model import Decoding, DialogModel
from augesc_builder.dialog.notice import Watch, crisis
from augesc_builder.dialog.streaming import TextStreamer, printable
from augesc_builder.errors import AugescError, HandOverError, InputError
from augesc_builder.run.disk import disk_errors
from augesc_builder.text.prompts import Message, collapse

if TYPE_CHECKING:
    from augesc_builder.text.safety import Scanner

CRISIS = crisis()
"""Comes before a reply where there is a sign of danger."""

WELCOME = """\
You are talking to a language model, not to a person. It is made for research and may say wrong or
hurtful things. Commands: /reset begins anew, /save FILE keeps the conversation, /quit ends.
"""

_HELP = "Commands: /reset, /save FILE, /quit"


class Chat:
    """One conversation after the other, over a pair of text streams.

    ``classifier`` looks for danger besides the word lists, and ``on_danger`` is told of it. Raises
    :class:`~augesc_builder.errors.CheckpointError` for a model that was trained as a seeker.
    """

    def __init__(
        self,
        model: DialogModel,
        decoding: Decoding,
        source: TextIO,
        sink: TextIO,
        *,
        classifier: Scanner | None = None,
        on_danger: HandOver | None = None,
    ) -> None:
        model.check_supports()
        self._watch = Watch(
            classifier,
            lambda error: self._write(
                f"(Danger is looked for without the classifier: {_brief(error)}.)\n"
            ),
        )
        self._on_danger = on_danger
        self._model, self._decoding = model, decoding
        self._source, self._sink = source, sink
        for stream in (source, sink):  # what is no text must not end a conversation
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        self.history: list[Message] = []
        self._conversation = 0

    def run(self) -> None:
        """Talk until the input ends or the user has enough.

        Should anything fail that nobody thought of, the conversation is kept in a file first.
        """
        self._write(WELCOME)
        if self._on_danger is not None:
            self._write(f"What sounds like danger is handed on to {self._on_danger.name}.\n")
        try:
            self._talk()
        except Exception:
            self._rescue()
            raise

    def _talk(self) -> None:
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
        """Write and return the reply to what the user said, after the notice where it is needed.

        Where the model has none, that is said, and the reply is empty.
        """
        text = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cs"})
        said = [message["content"] for message in self.history if message["role"] == "user"]
        if signs := self._watch.signs(said, text):
            self._write(f"\n{CRISIS}\n")
        self._hear(text)
        if signs and self._on_danger is not None:
            self._hand_over(self._on_danger, text, signs)
        self._write("Supporter: ")
        streamer = None
        if self._decoding.beams == 1:
            streamer = TextStreamer(self._model, self._write)
        key = f"{self._conversation}/{len(self.history)}"
        try:
            reply = printable(self._model.reply(self.history, self._decoding, key, streamer))
        except AugescError as error:
            self._write(f"\n(No reply: {printable(str(error))}. You can go on, or /save FILE.)\n")
            return ""
        except KeyboardInterrupt:
            self._write("\n(Stopped.)\n")
            return ""
        self._write("\n" if streamer is not None else f"{reply}\n")
        if reply:
            self.history.append({"role": "assistant", "content": reply})
        return reply

    def _hear(self, text: str) -> None:
        """Put what the user says into the history; what got no reply goes on as one utterance."""
        if self.history and self.history[-1]["role"] == "user":
            text = f"{self.history.pop()['content']} {text}"
        self.history.append({"role": "user", "content": text})

    def _hand_over(self, on_danger: HandOver, text: str, signs: Sequence[str]) -> None:
        try:
            on_danger(danger_report(text, signs, self.history))
        except HandOverError as error:
            self._write(f"It could NOT be handed on ({_brief(error)}). Please call somebody.\n\n")
        else:
            self._write(
                f"It was handed on to {on_danger.name}. Nobody may have read it yet: do not wait "
                f"for that.\n\n"
            )

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
        if not name:
            self._write("Give a file: /save chat.jsonl\n")
        elif not self.history:
            self._write("There is nothing to save yet.\n")
        else:
            try:
                path = Path(name).expanduser()
                with disk_errors(path):
                    append_session(path, self.history)
            # ValueError: NUL in it; RuntimeError: nobody's home. The conversation goes on.
            except (AugescError, OSError, ValueError, RuntimeError) as error:
                self._write(f"Not saved: {_brief(error)}\n")
            else:
                self._write(f"Saved to {printable(str(path))}\n")

    def _rescue(self) -> None:
        """Keep the conversation for its owner alone, and say where."""
        if self.history:
            with contextlib.suppress(OSError, ValueError):
                number, name = tempfile.mkstemp(prefix="augesc-chat-", suffix=".jsonl")
                os.close(number)
                append_session(Path(name), self.history)
                self._write(f"\nSomething failed. The conversation is in {name}\n")

    def _write(self, text: str) -> None:
        self._sink.write(text)
        self._sink.flush()


def append_session(path: Path, messages: Sequence[Message]) -> None:
    """Add a conversation to a file of JSON lines, as sessions are kept; all of it or nothing.

    Raises :class:`~augesc_builder.errors.InputError` for what is no regular file (a pipe would
    block, and keep nothing), and what :func:`os.open` raises.
    """
    line = (json.dumps({"messages": list(messages)}, ensure_ascii=False) + "\n").encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, flags, 0o600)
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file; give another name", path)
        try:
            while line:
                line = line[os.write(number, line) :]
        except OSError:
            os.ftruncate(number, status.st_size)
            raise
    finally:
        os.close(number)


def _brief(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__)
