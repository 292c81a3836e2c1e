"""Replies while they are written. What is here may be lost at any moment.

Only whole replies are kept, in the log. What was being written when the server ended is asked for
again as soon as somebody looks at that conversation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as FuturesTimeoutError

from augesc_builder.errors import AugescError
from augesc_builder.human_evaluation.conversations import Conversation, Talk
from augesc_builder.human_evaluation.systems import NoReply, Reply, TalkingSystem, legible, replied
from augesc_builder.human_evaluation.talking import Talks

_Key = tuple[str, str, str, int]

_SECONDS_TO_END = 10.0


class Replies:
    """Asks the systems for the replies that are due, each apart from the others, in one thread.

    ``warn`` hears what went wrong. The methods may be called from any thread.
    """

    def __init__(
        self, talks: Talks, systems: Mapping[str, TalkingSystem], warn: Callable[[str], None]
    ) -> None:
        self._talks, self._systems, self._warn = talks, systems, warn
        self._seconds = talks.settings.replies.timeout_seconds
        self._texts: dict[_Key, str] = {}
        self._guard = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def ask(self, annotator: str, item: str, talk: Talk) -> None:
        """Ask for every reply that is due and not being written yet."""
        for conversation in talk.waiting:
            key = _key(annotator, item, conversation)
            with self._guard:
                is_new = key not in self._texts
                self._texts.setdefault(key, "")
            if is_new:
                work = self._reply(key, annotator, item, conversation)
                asyncio.run_coroutine_threadsafe(work, self._loop)

    def text(self, annotator: str, item: str, conversation: Conversation) -> str | None:
        """Return what is written of a reply until now; ``None`` where none is being written."""
        return self._texts.get(_key(annotator, item, conversation))

    def close(self) -> None:
        """End what is being written; it stays due."""
        ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        try:
            ending.result(_SECONDS_TO_END)
        except FuturesTimeoutError:
            self._warn("some replies did not end")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS_TO_END)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        writing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        for system in self._systems.values():
            await system.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    async def _reply(self, key: _Key, annotator: str, item: str, asked: Conversation) -> None:
        begun = time.monotonic()

        def show(text: str) -> None:
            self._texts[key] = legible(text)

        found: Reply | NoReply
        try:
            try:
                # The same message of the same log gets the same draws, whichever server asks.
                found = await replied(
                    *(self._systems[asked.system], asked.history, "/".join(map(str, key))),
                    *(show, self._seconds),
                )
            except NoReply as failure:
                found = failure
            seconds = time.monotonic() - begun
            await asyncio.to_thread(self._talks.keep, annotator, item, asked, found, seconds)
        except AugescError as error:  # a full disk: the reply stays due
            self._warn(f"a reply was not kept: {error}")
        finally:
            self._texts.pop(key, None)


def _key(annotator: str, item: str, conversation: Conversation) -> _Key:
    return annotator, item, conversation.system, conversation.waits_for or 0
