"""vLLM in a process of another environment: prompts to it and tokens from it, as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from augesc_builder.engine import Continuation, OnStep, Prompt, Sampling
from augesc_builder.engine.memory import available_memory
from augesc_builder.errors import (
    AugescError,
    CheckpointError,
    MissingExtraError,
    RunFolderError,
    WorkerDiedError,
)
from augesc_builder.pipeline.generate.vllm.exchange import (
    requests_for,
    sampling_for,
    stream_through,
)

PYTHON = "AUGESC_VLLM_PYTHON"
"""Environment variable with the interpreter of an environment that has vLLM."""

_WORKER = Path(__file__).with_name("worker.py")

_ENVIRONMENT = {
    # In the process itself: what ends this one ends all, and nothing is between the two.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Else tokens are drawn from them, and nobody hears of it.
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
    # Where a corpus is made is nobody's business.
    "VLLM_NO_USAGE_STATS": "1",
}

_ROOM_ON_CPU = 4 << 30
"""Bytes of main memory that the KV cache takes where nothing is said, or half of what is free."""

_OF_ROOM = re.compile("memory|KV cache")

_PATIENCE = 10.0
"""Seconds that a process may take to end."""


def interpreter() -> str:
    """Return the interpreter that runs vLLM.

    Raises :class:`~augesc_builder.errors.MissingExtraError` where there is none, or no vLLM there.
    """
    python = os.environ.get(PYTHON) or sys.executable
    try:
        found = subprocess.run([python, str(_WORKER)], capture_output=True, check=False)
    except OSError as error:
        raise MissingExtraError(
            f"{PYTHON} is {python!r}, which cannot be run ({error.strerror}); give the path of an "
            f"interpreter that has vLLM, such as /path/to/environment/bin/python"
        ) from None
    if found.returncode:
        raise MissingExtraError(
            f"{python} has no vLLM; install it in an environment of its own (pip install vllm), "
            f"and say where: {PYTHON}=/path/to/environment/bin/python"
        )
    return python


class VllmProcess:
    """An engine (:class:`~augesc_builder.engine.Engine`): ``vllm.LLM`` in a process of its own.

    ``how`` are arguments of ``vllm.LLM``, ``end`` the token that ends a row; all that the process
    prints goes to a file that is kept where it fails. A context manager; the process ends with it.

    Raises :class:`~augesc_builder.errors.CheckpointError` where vLLM refuses the model or the
    arguments, :class:`~augesc_builder.errors.MissingExtraError` where it cannot be imported, and
    :class:`~augesc_builder.errors.RunFolderError` where the process dies.
    """

    def __init__(self, python: str, how: Mapping[str, Any], sampling: Sampling, end: int) -> None:
        self._end, self._sampling, self._keeps_log = end, sampling, False
        reader, writer = os.pipe()
        log, name = tempfile.mkstemp(".log", "augesc-vllm-")
        self.log = Path(name)
        with os.fdopen(log) as said:
            self._process = subprocess.Popen(
                [python, "-u", str(_WORKER), str(writer)],
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                pass_fds=[writer],
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends that one
                text=True,
                encoding="utf-8",
            )
        os.close(writer)
        self._input = cast(IO[str], self._process.stdin)  # a pipe, as asked for above
        self._channel: IO[str] = os.fdopen(reader, encoding="utf-8")
        try:
            self._tell(
                engine=how,
                sampling=sampling_for(sampling, end),
                room_on_cpu=min(_ROOM_ON_CPU, available_memory() // 2),
            )
            self.facts: dict[str, Any] = self._hear()
        except BaseException:
            self.close(at_once=True)
            raise

    def __enter__(self) -> VllmProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(at_once=error is not None)

    def close(self, *, at_once: bool = False) -> None:
        """End the process, by the end of its input, or by force."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(0 if at_once else _PATIENCE)
        except subprocess.TimeoutExpired:
            # With processes of its own, under tensor or pipeline parallelism.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._channel.close()
        if not self._keeps_log:
            self.log.unlink(missing_ok=True)

    def stream(
        self, prompts: Iterable[Prompt], on_step: OnStep
    ) -> Iterator[tuple[int, Continuation]]:
        """Yield ``(number of the prompt, continuation)`` as rows end; read prompts as needed."""
        return stream_through(
            requests_for(prompts, self._sampling.max_tokens),
            # As many wait as are decoded, so that no place is ever free.
            2 * self.facts["max_num_seqs"],
            lambda request: self._tell(**asdict(request)),
            self._hear,
            self._end,
            on_step,
        )

    def _tell(self, **what: Any) -> None:
        try:
            print(json.dumps(what), file=self._input, flush=True)
        except OSError:  # it has ended, and has perhaps said why
            while True:
                self._hear()

    def _hear(self) -> Any:
        """Return what it says next: that it is ready, or a row."""
        line = self._channel.readline()
        said, what = json.loads(line) if line.endswith("\n") else ("ended", "")
        if said in {"ready", "row"}:
            return what
        self._keeps_log = True
        raise self._failure(said, " ".join(what.split()))

    def _failure(self, said: str, why: str) -> AugescError:
        where = f"; all it said is in {self.log}"
        if said == "ended":
            return self._end_of_it(where)
        if said == "missing":
            return MissingExtraError(f"vLLM cannot be imported: {why}{where}")
        hint = ""
        if _OF_ROOM.search(why):
            hint = "; set generate.backend.kv_cache_gib, or lower generate.max_tokens"
        kind = RunFolderError if hasattr(self, "facts") else CheckpointError
        return kind(f"vLLM: {why:.600}{hint}{where}")

    def _end_of_it(self, where: str) -> WorkerDiedError:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            code = 0
        if code < 0:
            return WorkerDiedError(
                f"vLLM's process was killed ({signal.Signals(-code).name}), most likely out of "
                f"memory; lower generate.backend.kv_cache_gib or generate.backend.max_num_seqs; "
                f"the same command resumes{where}"
            )
        return WorkerDiedError(
            f"vLLM's process ended (exit code {code}): {_last_line(self.log)}{where}"
        )


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, cut short."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 14)))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no word")[:300]
