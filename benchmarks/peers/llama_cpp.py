"""llama.cpp's own server: continuous batching in parallel slots, asked over the loopback.

The weights are converted by its own script. All of the distribution is sampled from, in the order
of the other engines: the penalty, the temperature, then the nucleus.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Engine, Work, serve

SOURCE = Path(sys.prefix) / "source" / "vendor" / "llama.cpp"
SERVER = Path(sys.prefix) / "build" / "bin" / "llama-server"
OUT_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "Q8_0": "q8_0"}
START = 600
"""Seconds until the server has to have loaded its model."""


@contextmanager
def load(work: Work) -> Iterator[Engine]:
    """Convert the model, once for each type, and start the server with it."""
    kind = OUT_TYPES[work.type]
    weights = work.model.with_name(f"{kind}.gguf")
    if not weights.exists():
        _give_tokenizer(work)
        convert = [sys.executable, SOURCE / "convert_hf_to_gguf.py", work.model]
        subprocess.run(
            [*map(str, convert), "--outtype", kind, "--outfile", str(weights)],
            check=True,
            stdout=sys.stderr,
        )
    longest = max(len(ids) + n for ids, n in zip(work.prompts, work.lengths, strict=True))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model": weights,
        "host": "127.0.0.1",
        "port": port,
        "threads": work.threads,
        "threads-batch": work.threads,
        # Two for each slot wait, so that no slot does.
        "threads-http": 2 * work.slots + 2,
        "parallel": work.slots,
        "ctx-size": work.slots * (longest + 1),
    }
    command = [SERVER, *(x for name, value in options.items() for x in (f"--{name}", value))]
    flags = ["--no-kv-unified", "--no-cache-prompt", "--offline", "--no-ui"]
    with subprocess.Popen([*map(str, command), *flags], stdout=sys.stderr) as server:
        try:
            _await(server, port)
            version = _ask(port, "/props")["build_info"]
            yield Engine(
                f"llama.cpp {version}",
                lambda: _decode(port, work),
                lambda: _processor_seconds(server.pid),
            )
        finally:
            server.terminate()


def _give_tokenizer(work: Work) -> None:
    """Put a tokenizer of whole words beside the model: converting wants one. It is not asked."""
    from sentencepiece import sentencepiece_model_pb2

    words = sentencepiece_model_pb2.ModelProto()
    for i in range(work.vocabulary):
        words.pieces.add(piece=f"t{i}", score=-i, type=1 if i else 2)  # the first is the unknown
    (work.model / "tokenizer.model").write_bytes(words.SerializeToString())


def _decode(port: int, work: Work) -> list[int]:
    def one(row: int) -> int:
        question = {
            "prompt": work.prompts[row],
            "n_predict": work.lengths[row],
            "ignore_eos": True,
            "samplers": ["penalties", "temperature", "top_p"],
            "temperature": work.sampling["temperature"],
            "top_p": work.sampling["top_p"],
            "repeat_penalty": work.sampling["repetition_penalty"],
            "repeat_last_n": len(work.prompts[row]) + work.lengths[row],  # all
            "cache_prompt": False,
            "return_tokens": True,
        }
        return len(_ask(port, "/completion", question)["tokens"])

    with ThreadPoolExecutor(2 * work.slots) as pool:
        return list(pool.map(one, range(len(work.prompts))))


def _ask(port: int, path: str, question: dict[str, Any] | None = None) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        if question is None:
            connection.request("GET", path)
        else:
            head = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(question), head)
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 200:
        raise OSError(f"{path}: {answer.status} {text[:500]!r}")
    return json.loads(text)


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):  # not listening yet, or loading
            _ask(port, "/health")
            return
        time.sleep(0.1)
    raise RuntimeError("llama-server did not start")


def _processor_seconds(process: int) -> float:
    """Return the seconds of the processor that a process has used; without ``/proc``, the clock."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return time.perf_counter()
    after_name = stat.read_text().rsplit(")", 1)[1].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    serve(load)
