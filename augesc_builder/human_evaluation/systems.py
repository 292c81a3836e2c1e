"""The dialog systems that people talk to: a model of this machine, or one behind an address.

Each works apart from the others, and gives up by itself. What a system says is a stranger's text.
"""

from __future__ import annotations

import asyncio
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from augesc_builder.errors import AugescError
from augesc_builder.run.heartbeat import one_line
from augesc_builder.text.prompts import Message

if TYPE_CHECKING:
    from augesc_builder.human_evaluation.settings import Interactive, Replies, System
    from augesc_builder.pipeline.generate.endpoint.client import Answer

Why = Literal["slow", "broken", "empty"]

_LONGEST_REPLY = 8_000
"""Characters of a reply that are shown and kept, whatever a system writes."""

_NO_REPEAT = 3
"""As in ``augesc chat``: no three tokens come twice in a reply of a small model."""

_LONGEST_HISTORY = 100_000
"""Characters of a conversation that an endpoint is sent at most; one that wants less says so."""


class NoReply(Exception):  # noqa: N818 - what is said then, and not what went wrong here
    """There is no reply: ``why`` in a word, and ``reason`` for the study's owner alone."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why, self.reason = why, one_line(reason)


@dataclass(frozen=True)
class Reply:
    """What a system says, and how many messages at the beginning it was not sent for their length.

    ``left_out`` is None where the model itself cuts what it reads.
    """

    text: str
    left_out: int | None = None


class TalkingSystem(Protocol):
    """Whatever answers a conversation."""

    async def reply(
        self, history: Sequence[Message], key: str, show: Callable[[str], None]
    ) -> Reply:
        """Return the answer; ``show`` gets the whole text so far, each time that it grows.

        ``key`` names what is drawn for it. Raises :class:`NoReply`.
        """

    async def close(self) -> None:
        """End what is under way."""


class FolderSystem:
    """A model of ``augesc train``: one reply at a time, in a thread of its own.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it cannot be loaded, or is no
    supporter.
    """

    def __init__(self, folder: str, replies: Replies, seed: int) -> None:
        from augesc_builder.dialog.model import Decoding, DialogModel

        self._model = DialogModel(folder)
        self._model.check_supports()
        self._decoding = Decoding(
            max_tokens=replies.max_tokens,
            top_p=replies.top_p,
            temperature=replies.temperature,
            no_repeat_ngram=_NO_REPEAT,
            seed=seed,
        )
        self._thread = ThreadPoolExecutor(1, "augesc-system")
        self._closed = threading.Event()

    async def reply(
        self, history: Sequence[Message], key: str, show: Callable[[str], None]
    ) -> Reply:
        """Return the answer of the model, which forgets the oldest of what is too long for it."""
        from augesc_builder.dialog.examples import merge_consecutive

        loop, given_up = asyncio.get_running_loop(), threading.Event()

        def is_over() -> bool:
            return given_up.is_set() or self._closed.is_set()

        def work() -> str:
            if is_over():
                raise _Over
            return self._say(
                merge_consecutive(list(history)),
                key,
                lambda text: _tell(loop, show, text),
                is_over,
            )

        try:
            return Reply(await loop.run_in_executor(self._thread, work))
        except _Over:
            raise NoReply("broken", "the server ends") from None
        except AugescError as error:
            raise NoReply("broken", str(error)) from None
        except Exception as error:  # a model's code can fail in any way
            raise NoReply("broken", f"{type(error).__name__}: {error}") from None
        finally:
            given_up.set()

    def _say(
        self,
        history: Sequence[Message],
        key: str,
        show: Callable[[str], None],
        is_over: Callable[[], bool],
    ) -> str:
        from augesc_builder.dialog.streaming import TextStreamer, printable

        class Stoppable(TextStreamer):
            """Ends with the wish for a reply, at the next token."""

            def put(self, value: Any) -> None:
                if is_over():
                    raise _Over
                super().put(value)

        said: list[str] = []

        def write(piece: str) -> None:
            said.append(piece)
            show("".join(said))

        streamer = Stoppable(self._model, write)
        return printable(self._model.reply(history, self._decoding, key, streamer))

    async def close(self) -> None:
        """End the reply that is being made at its next token, and all that wait."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Over(Exception):  # noqa: N818 - nobody waits any more
    pass


def _tell(loop: asyncio.AbstractEventLoop, show: Callable[[str], None], text: str) -> None:
    try:
        loop.call_soon_threadsafe(show, text)
    except RuntimeError:  # the loop is closed
        raise _Over from None


class EndpointSystem:
    """A model that speaks OpenAI's protocol of chat.

    Raises :class:`~augesc_builder.errors.EndpointError` where its key is missing, and
    :class:`~augesc_builder.errors.MissingExtraError` without the client.
    """

    def __init__(self, name: str, settings: System, replies: Replies, seed: int) -> None:
        from augesc_builder.config.openai_api import Budget, OpenAISettings
        from augesc_builder.pipeline.generate.endpoint.streaming import StreamingEndpoint

        self._settings, self._replies, self._seed = settings, replies, seed
        asked = OpenAISettings(
            type="openai_api",
            base_url=settings.base_url or "",
            model=settings.model or "",
            key_env=settings.key_env,
            keyring=None,
            mode="chat",
            request=settings.system_prompt or "-",
            examples=0,
            turns=None,
            max_new_tokens=replies.max_tokens,
            stop=[],
            send_seed=True,
            extra_body={},
            concurrency=1,
            timeout=replies.timeout_seconds,
            deadline=replies.timeout_seconds,
            budget=Budget(tokens=None, money=None),
            prices=None,
        )
        self._endpoint = StreamingEndpoint(asked, f"interactive.systems.{name}")

    async def reply(
        self, history: Sequence[Message], key: str, show: Callable[[str], None]
    ) -> Reply:
        """Return the answer; asked again, within the time there is, while nothing was shown.

        Where the endpoint takes no conversation of this length, the oldest messages behind the
        first are left out, two by two.
        """
        from augesc_builder.dialog.examples import merge_consecutive
        from augesc_builder.pipeline.generate.endpoint.client import Trouble
        from augesc_builder.pipeline.generate.endpoint.throttle import back_off

        shown = False

        def show_it(text: str) -> None:
            nonlocal shown
            shown = shown or bool(text.strip())
            show(text[:_LONGEST_REPLY])

        messages = _shortened(merge_consecutive(list(history)))
        n_whole, attempt, begun = len(messages), 0, time.monotonic()
        while True:
            attempt += 1
            try:
                answer = await self._ask(messages, key, show_it)
            except Trouble as trouble:
                wait = back_off(attempt, trouble.wait)
                left = self._replies.timeout_seconds - (time.monotonic() - begun)
                refused = trouble.replied and not trouble.again and not trouble.fatal
                if refused and len(messages) > 3 and not shown:  # noqa: PLR2004
                    messages = [messages[0], *messages[3:]]
                elif trouble.again and not shown and wait < left:
                    await asyncio.sleep(wait)
                else:
                    raise NoReply("broken", trouble.reason) from None
            else:
                return Reply(answer.text[:_LONGEST_REPLY], n_whole - len(messages))

    async def _ask(
        self, messages: Sequence[Message], key: str, show: Callable[[str], None]
    ) -> Answer:
        from augesc_builder.engine.sampling import stream_key

        prompt = self._settings.system_prompt
        system = [{"role": "system", "content": prompt}] if prompt else []
        body: Mapping[str, Any] = {
            "model": self._settings.model,
            "messages": [*system, *messages],
            "max_tokens": self._replies.max_tokens,
            "temperature": self._replies.temperature,
            "top_p": self._replies.top_p,
            "seed": stream_key(self._seed, key, 0) % (1 << 31),
        }
        return await self._endpoint.stream(body, uuid.uuid4().hex, show)

    async def close(self) -> None:
        """Let go of connections."""
        await self._endpoint.close()


def _shortened(messages: list[Message]) -> list[Message]:
    """Return a conversation without the oldest behind its first message, if it is too long."""
    while len(messages) > 3 and sum(len(m["content"]) for m in messages) > _LONGEST_HISTORY:  # noqa: PLR2004
        messages = [messages[0], *messages[3:]]
    return messages


async def replied(
    system: TalkingSystem,
    history: Sequence[Message],
    key: str,
    show: Callable[[str], None],
    seconds: float,
) -> Reply:
    """Return what a system says within so many seconds, in characters that a page can show.

    Raises :class:`NoReply` where it says nothing, or not in time.
    """
    try:
        reply = await asyncio.wait_for(system.reply(history, key, show), seconds)
    except asyncio.TimeoutError:
        raise NoReply("slow", f"no reply within {seconds:g} s") from None
    text = legible(reply.text).strip()
    if is_blank(text):
        raise NoReply("empty", "the reply has no text")
    return Reply(text, reply.left_out)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: blanks, and characters without width."""
    return all(c.isspace() or unicodedata.category(c) == "Cf" for c in text)


def legible(text: str) -> str:
    """Return a text without control characters, lines aside, and halves of surrogate pairs."""
    text = text.replace("\r\n", "\n").replace("\t", " ")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in {"Cc", "Cs"})


def open_systems(settings: Interactive, seed: int) -> dict[str, TalkingSystem]:
    """Load the models of a study, and get the keys of its endpoints, by the systems' names.

    Raises what :class:`FolderSystem` and :class:`EndpointSystem` raise.
    """
    found: dict[str, TalkingSystem] = {}
    for name, system in settings.systems.items():
        if system.folder is not None:
            found[name] = FolderSystem(system.folder, settings.replies, seed)
        else:
            found[name] = EndpointSystem(name, system, settings.replies, seed)
    return found
