"""An endpoint on loopback that speaks OpenAI's protocol over real sockets, and can misbehave.

It counts every request that it receives, and every answer that it sent whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MODEL = "stub-model"


@dataclass
class Reply:
    """What is sent back; ``cut`` closes the connection in the middle of the body.

    ``events`` are sent one by one as server-sent events, each after ``pause`` seconds.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    raw: bytes | None = None
    events: list[str] | None = None
    pause: float = 0.0


@dataclass
class Asked:
    """A request that was received."""

    id: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    status: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    answered: bool = False


def conversation(seed: str, n_lines: int = 12) -> str:
    """Give what continues a prompt: lines of two speakers, of a few words that depend on it."""
    words = hashlib.sha256(seed.encode()).hexdigest()
    lines = []
    for n in range(n_lines):
        role = "AI" if n % 2 == 0 else "Human"
        lines.append(
            f"{role}: I think of number {words[n : n + 4]} and of all that you told me today, too"
        )
    return "\n".join(lines).removeprefix("AI:")


def completion(text: str, *, finish: str | None = "stop", usage: bool = True) -> dict[str, Any]:
    """Give the JSON of an answer to a completion."""
    counts = {"prompt_tokens": 40, "completion_tokens": max(1, len(text) // 5)}
    return {
        "id": "x",
        "object": "text_completion",
        "model": MODEL,
        "choices": [{"index": 0, "text": text, "finish_reason": finish, "logprobs": None}],
        **({"usage": {**counts, "total_tokens": sum(counts.values())}} if usage else {}),
    }


def chat(text: str | None, *, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """Give the JSON of an answer to a chat."""
    found = completion(text or "", finish=finish)
    said = {"role": "assistant", "content": text, **message}
    found["choices"] = [{"index": 0, "message": said, "finish_reason": finish}]
    return found


def streamed(text: str, *, finish: str | None = "stop", pause: float = 0.0, **more: Any) -> Reply:
    """Give a chat's answer as it is streamed, word by word."""
    pieces = [{"content": word} for word in re.findall(r"\S+\s*", text)]
    chunks = [{"choices": [{"index": 0, "delta": piece}]} for piece in pieces]
    if finish is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events = [json.dumps(chunk) for chunk in chunks]
    return Reply(events=[*events, "[DONE]"] if finish else events, pause=pause, **more)


def usual(asked: Asked) -> Reply:
    """Answer with a conversation that meets the requirements."""
    if asked.path.endswith("/chat/completions"):
        return Reply(chat(f"AI:{conversation(json.dumps(asked.body['messages']))}"))
    return Reply(completion(conversation(str(asked.body["prompt"]))))


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """Give an error as OpenAI words it; underscores in names of headers become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "code": None}}, status, named)


class Stub:
    """A server in a thread; ``behave`` decides each reply."""

    def __init__(self, behave: Callable[[Asked], Reply] = usual, models: list[str] | None = None):
        self.behave = behave
        self.models: Any = [MODEL] if models is None else models
        self.asked: list[Asked] = []
        self.most_at_once = self._at_once = 0
        self.key: str | None = None
        self.port = 0
        self._loop: Any = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def answered(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.answered]

    def start(self) -> Stub:
        """Listen, at the port of before if there was one."""
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, backlog=512
            )
            self.port = self._server.sockets[0].getsockname()[1]
            ready.set()

        def run() -> None:
            self._loop.create_task(serve())
            self._loop.run_forever()
            self._loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert ready.wait(60)
        return self

    def stop(self) -> None:
        """Close every connection, whatever is under way."""

        async def end() -> None:
            assert self._server is not None
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            await turns()  # what was just accepted is a connection: a closed server makes none
            self._server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await turns()  # and their sockets closed
            self._loop.stop()

        async def turns() -> None:
            for _ in range(10):  # of the loop: on a busy machine no time is long enough for them
                await asyncio.sleep(0)

        if self._thread is not None:
            asyncio.run_coroutine_threadsafe(end(), self._loop)
            self._thread.join(60)
            self._thread = None

    def __enter__(self) -> Stub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection; it is closed even where that is ended before it began."""

        def end(task: asyncio.Task[None]) -> None:
            self._connections.pop(task).transport.abort()

        task = self._loop.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            while await self._one(reader, writer):
                pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")
        _, path, _ = request.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            said = f"Incorrect API key provided: {headers.get('authorization')}"
            return await _send(writer, failure(401, said))
        if path.endswith("/models"):
            if self.models is None:
                return await _send(writer, failure(404))
            listed = {"object": "list", "data": [{"id": name} for name in self.models]}
            return await _send(writer, Reply(listed))
        asked = Asked(headers.get("x-request-id", ""), path, json.loads(raw), headers)
        self.asked.append(asked)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self.behave(asked)
            await asyncio.sleep(reply.delay)
            asked.status = reply.status
            goes_on = await _send(writer, reply)
            if reply.status == 200 and not reply.cut and reply.raw is None:
                asked.answered = True
                asked.usage = (reply.body or {}).get("usage", {})
            return goes_on
        finally:
            self._at_once -= 1


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    if reply.events is not None:
        return await _send_events(writer, reply, reply.events)
    content = json.dumps(reply.body).encode() if reply.raw is None else reply.raw
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    lines = "".join(f"{k}: {v}\r\n" for k, v in {**headers, **reply.headers}.items())
    head = f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode("latin-1")
    writer.write(head + (content[: len(content) // 2] if reply.cut else content))
    await writer.drain()
    if reply.cut:
        writer.close()
    return not reply.cut


async def _send_events(writer: asyncio.StreamWriter, reply: Reply, events: list[str]) -> bool:
    """Send events in chunks; ``cut`` leaves out the chunk that ends them."""
    writer.write(
        b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for event in events:
        await asyncio.sleep(reply.pause)
        data = f"data: {event}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()
    if reply.cut:
        writer.close()
    else:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return not reply.cut
