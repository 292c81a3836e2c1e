"""Other engines on the task of ``generation_task.py``, each in its own process and environment.

``make bench-peers`` makes the environments; an engine without one is left out, and so is a type
that an engine refuses. A rival's rows end at the given lengths, which its process checks by count.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.generation_task import PENALTY, TEMPERATURE, TOP_P, Task
from benchmarks.peers.protocol import MARK

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / ".peers"
"""Environments of other engines, made by ``make bench-peers``."""

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    # vLLM: one process; 4 GiB for its cache, which else takes all memory; threads where they like.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "4",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


class RivalError(RuntimeError):
    """Another engine did not start, refused a type, or made other tokens than it should."""


@dataclass(frozen=True)
class Rival:
    """An engine and the type it computes in; ``bits`` are those of a weight."""

    engine: str
    type: str
    bits: int

    @property
    def module(self) -> str:
        """Return the name of its module in ``benchmarks.peers``, and of its environment."""
        return self.engine.lower().replace(".", "_")

    @property
    def installed(self) -> bool:
        """Whether it has an environment."""
        return (PEERS / self.module / "installed").exists()

    @property
    def label(self) -> tuple[str, str]:
        """Return the first two cells of its row."""
        return self.engine, f"{self.type} (8 bits)" if self.bits == 8 else self.type


RIVALS = (
    Rival("CTranslate2", "float32", 32),
    Rival("CTranslate2", "bfloat16", 16),
    Rival("CTranslate2", "int8_float32", 8),
    Rival("CTranslate2", "int8_bfloat16", 8),
    Rival("vLLM", "float32", 32),
    Rival("vLLM", "bfloat16", 16),
    Rival("llama.cpp", "float32", 32),
    Rival("llama.cpp", "bfloat16", 16),
    Rival("llama.cpp", "float16", 16),
    Rival("llama.cpp", "Q8_0", 8),
)


class Field:
    """Where rivals run: a folder with the model as they read it, and the slots that each has."""

    def __init__(self, folder: Path, model: Any, slots: int) -> None:
        self.folder, self.slots = folder, slots
        self.config = model.config
        self.versions: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        save_for_others(model, folder / "model")

    def best(self, task: Task) -> list[Rival]:
        """Try each type of each engine; return its fastest of 16 bits or more, and of 8 bits."""
        found: dict[tuple[str, bool], tuple[float, Rival]] = {}
        for rival in RIVALS:
            if not rival.installed:
                self.left_out[rival.engine] = "no environment, make bench-peers"
                continue
            try:
                rate = self.decode(rival, [task])
            except RivalError as error:
                self.left_out[f"{rival.engine} in {rival.type}"] = str(error)
                continue
            print(f"  {', '.join(rival.label)}: {rate:,.0f} tokens/s", flush=True)
            key = rival.engine, rival.bits == 8
            if key not in found or rate > found[key][0]:
                found[key] = rate, rival
        return [rival for _, rival in found.values()]

    @property
    def about(self) -> str:
        """Return the versions of the engines that ran, and why others are left out."""
        left_out = (f"{what} left out: {why}" for what, why in self.left_out.items())
        return "; ".join([*self.versions.values(), *left_out])

    def decode(
        self, rival: Rival, tasks: Sequence[Task], threads: int = 1, *, by_clock: bool = False
    ) -> float:
        """Decode each task in a process of its own, all at once; return tokens a second.

        The seconds are the processor's, of the slowest process, or with ``by_clock`` the clock's;
        loading is not in them. Raises :class:`RivalError`.
        """
        with ExitStack() as stack:
            workers = [
                stack.enter_context(_Worker(self._command(rival, task, i, threads), threads))
                for i, task in enumerate(tasks)
            ]
            for worker in workers:
                self.versions[rival.engine] = worker.hear("ready")["version"]
            begun = time.perf_counter()
            for worker in workers:
                worker.go()
            said = [worker.hear("made") for worker in workers]
            seconds = time.perf_counter() - begun
        for task, one in zip(tasks, said, strict=True):
            if one["made"] != task.lengths:
                raise RivalError(f"{sum(one['made'])} tokens instead of {task.n_tokens}")
        if not by_clock:
            seconds = max(one["seconds"] for one in said)
        return sum(task.n_tokens for task in tasks) / seconds

    def _command(self, rival: Rival, task: Task, part: int, threads: int) -> list[str]:
        file = self.folder / f"task-{part}.json"
        sampling = {"top_p": TOP_P, "temperature": TEMPERATURE, "repetition_penalty": PENALTY}
        config = self.config
        about = {"vocabulary": config.vocab_size, "eos": config.eos_token_id, "slots": self.slots}
        file.write_text(json.dumps({**asdict(task), **about, "sampling": sampling}))
        python = PEERS / rival.module / "bin" / "python"
        module = f"benchmarks.peers.{rival.module}"
        given = [file, self.folder / "model", rival.type, threads]
        return [*map(str, [python, "-m", module, *given])]


def save_for_others(model: Any, folder: Path) -> None:
    """Write a checkpoint that the ``transformers`` of every environment reads.

    Before version 5 the base of rotary positions stood at the top of the configuration.
    """
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.setdefault("torch_dtype", config.get("dtype"))
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        config.setdefault("rope_theta", rope["rope_theta"])
    path.write_text(json.dumps(config))


class _Worker:
    """The process of another engine; what it writes to stderr is kept until it ends."""

    def __init__(self, command: list[str], threads: int) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    def hear(self, what: str) -> dict[str, Any]:
        """Return what it says next of this kind."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"{MARK} {what} "):
                found: dict[str, Any] = json.loads(line.split(maxsplit=2)[2])
                return found
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["no reason given"]
        raise RivalError(lines[-1])
