"""Servers of models on loopback, each in processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

VLLM = ("--no-enable-chunked-prefill", "--enforce-eager", "--kv-cache-memory-bytes", 1 << 28)
"""Small, and begun soon. With prefill in parts vLLM 0.32 ends on CPUs at requests with a seed."""

Server = tuple["subprocess.Popen[bytes]", str]


def serve_with_vllm(python: str, checkpoint: Path, log: Path, *options: object) -> Server:
    """Start what ``vllm serve`` starts, in float32; give its first process and its address."""
    # Not the command `vllm`, which asks for its version by a name that the CPU build has not.
    words = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint]
    words += [*VLLM, "--dtype", "float32", *options]
    return _started(words, "/health", log, {"VLLM_NO_USAGE_STATS": "1"})


def serve_with_transformers(checkpoint: Path, log: Path) -> Server:
    """Start ``transformers serve``; give its process and its address."""
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    assert program is not None
    words = [program, "serve", checkpoint, "--device", "cpu"]
    return _started(words, "/v1/models", log, {"HF_HUB_OFFLINE": "1"})


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server with all its processes, however far it is."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _started(words: Sequence[object], path: str, log: Path, more: dict[str, str]) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [*map(str, words), "--host", "127.0.0.1", "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | more
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, start_new_session=True
        )
    while process.poll() is None:
        if _answers(address + path):
            return process, address
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:  # of transformers, which lists what a cache of the Hub has
        return True
    except OSError:
        return False
    return True
