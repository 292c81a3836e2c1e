"""llama.cpp's own server: continuous batching in parallel slots, asked over the loopback.

The weights are converted by its own script. All of the distribution is sampled from, in the order
of the other engines: the penalty, the temperature, then the nucleus.

In a profile of bfloat16 products take 72 % (dot products of AVX-512: it has none on AMX in this
type, but for Q8_0 it has), attention 15 %, sampling less than 5 %.
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

from benchmarks.peers.protocol import Engine, Setup, Work, serve

SOURCE = Path(sys.prefix) / "source" / "vendor" / "llama.cpp"
SERVER = Path(sys.prefix) / "build" / "bin" / "llama-server"
OUT_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "Q8_0": "q8_0"}
START = 600
"""Seconds until the server has to have loaded its model."""


@contextmanager
def load(setup: Setup) -> Iterator[Engine]:
    """Convert the model, once for each type, and start the server with it."""
    kind = OUT_TYPES[setup.type]
    weights = Path(setup.model).with_name(f"{kind}.gguf")
    if not weights.exists():
        _convert(setup, kind, weights)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model": weights,
        "host": "127.0.0.1",
        "port": port,
        "threads": setup.threads,
        "threads-batch": setup.threads,
        # Two for each slot wait, so that no slot does.
        "threads-http": 2 * setup.slots + 2,
        "parallel": setup.slots,
        "ctx-size": setup.slots * (setup.longest + 1),
        # Keys and values of 16 bits, as is usual, except where all is compared in 32.
        "cache-type-k": "f32" if kind == "f32" else "f16",
        "cache-type-v": "f32" if kind == "f32" else "f16",
        # Attention as products of matrices: 15 % more tokens a second with Q8_0, 5 % in bfloat16.
        "flash-attn": "off",
        # What a slot held is not wanted again: else it is copied aside when the next row begins.
        "cache-ram": 0,
    }
    command = [SERVER, *(x for name, value in options.items() for x in (f"--{name}", value))]
    flags = ["--no-kv-unified", "--no-cache-prompt", "--offline", "--no-ui"]
    with subprocess.Popen([*map(str, command), *flags], stdout=sys.stderr) as server:
        try:
            _await(server, port)
            version = _ask(port, "/props")["build_info"]
            yield Engine(
                f"llama.cpp {version}",
                lambda work: _decode(port, work, setup.slots),
                lambda: _processor_seconds(server.pid),
            )
        finally:
            server.terminate()


def _convert(setup: Setup, kind: str, weights: Path) -> None:
    _give_tokenizer(setup)
    script = [sys.executable, SOURCE / "convert_hf_to_gguf.py", setup.model]
    done = subprocess.run(
        [*map(str, script), "--outtype", kind, "--outfile", str(weights)],
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it was not converted"])[-1])


def _give_tokenizer(setup: Setup) -> None:
    """Put a tokenizer of whole words beside the model: converting wants one. It is not asked."""
    from sentencepiece import sentencepiece_model_pb2

    words = sentencepiece_model_pb2.ModelProto()
    for i in range(setup.vocabulary):
        words.pieces.add(piece=f"t{i}", score=-i, type=1 if i else 2)  # the first is the unknown
    Path(setup.model, "tokenizer.model").write_bytes(words.SerializeToString())


def _decode(port: int, work: Work, slots: int) -> list[list[int]]:
    def one(row: int) -> list[int]:
        question = {
            "prompt": work.prompts[row],
            "n_predict": work.lengths[row],
            "ignore_eos": True,
            "samplers": ["penalties", "temperature", "top_p"],
            "temperature": work.temperature,
            "top_p": work.top_p,
            "repeat_penalty": work.repetition_penalty,
            "repeat_last_n": len(work.prompts[row]) + work.lengths[row],  # all
            "cache_prompt": False,
            "return_tokens": True,
        }
        tokens: list[int] = _ask(port, "/completion", question)["tokens"]
        return tokens

    with ThreadPoolExecutor(2 * slots) as pool:
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
