"""Other engines on the task of ``generation_task.py``, each in its own process and environment.

``make bench-peers`` makes the environments; an engine without one is left out, and so is a type
that an engine refuses. An engine shows first that it decodes the model that it was given: its
greedy tokens are those of ``transformers.generate`` in float32. Its rows end at the given lengths;
the tokens that it hands back are counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.generation_checkpoint import end_of
from benchmarks.generation_task import PENALTY, TEMPERATURE, TOP_P, Task
from benchmarks.peers.protocol import MARK, Setup, Work

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / ".peers"
"""Environments of other engines, made by ``make bench-peers``."""

SAMPLING = {"temperature": TEMPERATURE, "top_p": TOP_P, "repetition_penalty": PENALTY}
GREEDY = {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0}
"""The penalty is left out: not all engines have it for the tokens of prompts."""

CHECKED_ROWS, CHECKED_TOKENS = 8, 16
"""Greedy rows that an engine makes before it is measured, and the tokens of each."""


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


ENGINES = tuple(dict.fromkeys(rival.engine for rival in RIVALS))
"""Their names."""


class Field:
    """Where rivals run: a folder with the model as they read it, and their processes.

    A process starts when it is first asked for and is kept, so that loading is paid for once; as a
    context the field ends them all. ``task`` is the longest that is to come, ``engines`` names
    those that run, all without it.
    """

    def __init__(
        self, folder: Path, model: Any, slots: int, task: Task, engines: Iterable[str] | None = None
    ) -> None:
        self._engines = engines
        self.versions: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self._workers: dict[tuple[Rival, int, int], _Worker] = {}
        few = task.prompts[:CHECKED_ROWS]
        self._greedy = Task(few, [CHECKED_TOKENS] * len(few))
        self._expected = greedy_tokens(model, self._greedy)
        self._model = folder / "model"
        self._slots, self._longest = slots, max(task.longest, self._greedy.longest)
        self._vocabulary, self._eos = model.config.vocab_size, end_of(model)
        save_for_others(model, self._model)

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(list(self._workers))

    def best(self, task: Task) -> list[Rival]:
        """Try each type of each engine; return its fastest of 16 bits or more, and of 8 bits."""
        found: dict[tuple[str, bool], tuple[float, Rival]] = {}
        for rival in RIVALS:
            if self._engines is not None and rival.engine not in self._engines:
                continue
            if not rival.installed:
                self.left_out[rival.engine] = "no environment, make bench-peers"
                continue
            try:
                as_ours = self.check(rival)
                rate = self.decode(rival, [task])
            except RivalError as error:
                self.left_out[f"{rival.engine} in {rival.type}"] = str(error)
                self._end([key for key in self._workers if key[0] == rival])
                continue
            print(
                f"  {', '.join(rival.label)}: {rate:,.0f} tokens/s; greedy tokens as those of "
                f"transformers in float32: {as_ours} of {self._greedy.n_tokens}",
                flush=True,
            )
            key = rival.engine, rival.bits == 8
            if key not in found or rate > found[key][0]:
                found[key] = rate, rival
        best = [rival for _, rival in found.values()]
        self._end([key for key in self._workers if key[0] not in best])
        return best

    @property
    def about(self) -> str:
        """Return the versions of the engines that ran, and why others are left out."""
        left_out = (f"{what} left out: {why}" for what, why in self.left_out.items())
        return "\n".join([*self.versions.values(), *left_out])

    def check(self, rival: Rival) -> int:
        """Count its greedy tokens before the first of each row that ``transformers`` does not make.

        In float32 that has to be all of them; with fewer bits rows part from each other somewhere,
        but most begin alike. Raises :class:`RivalError`.
        """
        ((tokens, _),) = self._ask(rival, [self._greedy], 1, GREEDY)
        alike = [_alike(a, b) for a, b in zip(tokens, self._expected, strict=True)]
        if rival.bits == 32:
            right = sum(alike) == self._greedy.n_tokens
        else:
            right = 2 * sum(n > 0 for n in alike) > len(alike)
        if not right:
            raise RivalError(
                f"only {sum(alike)} of {self._greedy.n_tokens} greedy tokens are those of "
                "transformers in float32"
            )
        return sum(alike)

    def decode(
        self, rival: Rival, tasks: Sequence[Task], threads: int = 1, *, by_clock: bool = False
    ) -> float:
        """Decode each task in a process of its own, all at once; return tokens a second.

        The seconds are the processor's, of the slowest process, or with ``by_clock`` the clock's;
        loading is not in them. Raises :class:`RivalError`.
        """
        self._start(rival, len(tasks), threads)
        begun = time.perf_counter()
        made = self._ask(rival, tasks, threads)
        seconds = time.perf_counter() - begun
        if not by_clock:
            seconds = max(one for _, one in made)
        return sum(task.n_tokens for task in tasks) / seconds

    def sample(self, rival: Rival, task: Task) -> list[list[int]]:
        """Decode a task; return the tokens of each row. Raises :class:`RivalError`."""
        ((tokens, _),) = self._ask(rival, [task], 1)
        return tokens

    def _ask(
        self,
        rival: Rival,
        tasks: Sequence[Task],
        threads: int,
        sampling: dict[str, float] = SAMPLING,
    ) -> list[tuple[list[list[int]], float]]:
        """Return the tokens of each row of each task, and the seconds of its processor."""
        workers = self._start(rival, len(tasks), threads)
        for worker, task in zip(workers, tasks, strict=True):
            prompts = [list(ids) for ids in task.prompts]
            worker.say(asdict(Work(prompts, task.lengths, **sampling)))
        said = [worker.hear("made") for worker in workers]
        for task, one in zip(tasks, said, strict=True):
            if [len(row) for row in one["tokens"]] != task.lengths:
                n = sum(len(row) for row in one["tokens"])
                raise RivalError(f"{n} tokens instead of {task.n_tokens}")
        return [(one["tokens"], one["seconds"]) for one in said]

    def _start(self, rival: Rival, n: int, threads: int) -> list[_Worker]:
        keys = [(rival, threads, i) for i in range(n)]
        new = [key for key in keys if key not in self._workers]
        for key in new:
            self._workers[key] = _Worker(self._command(rival, threads), threads)
        for key in new:
            self.versions[rival.engine] = self._workers[key].hear("ready")["version"]
        return [self._workers[key] for key in keys]

    def _command(self, rival: Rival, threads: int) -> list[str]:
        setup = Setup(
            model=str(self._model),
            type=rival.type,
            threads=threads,
            slots=self._slots,
            longest=self._longest,
            vocabulary=self._vocabulary,
            eos=self._eos,
        )
        python = PEERS / rival.module / "bin" / "python"
        module = f"benchmarks.peers.{rival.module}"
        return [str(python), "-m", module, json.dumps(asdict(setup))]

    def _end(self, keys: Iterable[tuple[Rival, int, int]]) -> None:
        for key in keys:
            self._workers.pop(key).end()


@torch.inference_mode()
def greedy_tokens(model: Any, task: Task) -> list[list[int]]:
    """Return the greedy tokens of each row by ``transformers.generate``, prompt by prompt."""
    return [
        model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            min_new_tokens=n,
            max_new_tokens=n,
            pad_token_id=end_of(model),
        )[0, len(ids) :].tolist()
        for ids, n in zip(task.prompts, task.lengths, strict=True)
    ]


def _alike(some: list[int], others: list[int]) -> int:
    """Count what two rows begin with alike."""
    differ = (i for i, (a, b) in enumerate(zip(some, others, strict=True)) if a != b)
    return next(differ, len(some))


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
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def say(self, work: dict[str, Any]) -> None:
        """Give it work."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(work), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._failure() from None

    def hear(self, what: str) -> dict[str, Any]:
        """Return what it says next of this kind."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"{MARK} {what} "):
                found: dict[str, Any] = json.loads(line.split(maxsplit=2)[2])
                return found
        raise self._failure()

    def end(self) -> None:
        """End it; what it is at is not waited for."""
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    def _failure(self) -> RivalError:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["no reason given"]
        return RivalError(lines[-1])
