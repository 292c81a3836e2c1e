"""vLLM at work in an environment of its own, where nothing of augesc can be imported.

    PYTHON worker.py FD

Reads lines of JSON from stdin: first how the engine is made and how it samples, then a request a
line. Writes lines of JSON to the file descriptor ``FD``, which nothing else writes to: libraries
print to stdout what they like. Ends with stdin, so also where the process that started it is
killed. Without ``FD`` only says, by exit code 0, whether there is vLLM.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

Tell = Callable[[str, Any], None]
Requests = queue.SimpleQueue[dict[str, Any]]


def main() -> None:
    """Serve one process."""
    # A module beside this one must not be taken for one of vLLM's.
    sys.path[:] = [place for place in sys.path if place != os.path.dirname(__file__)]  # noqa: PTH120
    if len(sys.argv) == 1:
        sys.exit(importlib.util.find_spec("vllm") is None)
    os.set_inheritable(int(sys.argv[1]), False)
    channel = os.fdopen(int(sys.argv[1]), "w", encoding="utf-8")

    def tell(kind: str, what: Any) -> None:
        print(json.dumps([kind, what]), file=channel, flush=True)

    requests: Requests = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    try:
        _serve(requests, tell)
    except ImportError as error:
        traceback.print_exc()
        tell("missing", str(error))
    except Exception as error:  # whatever vLLM raises is told in a line
        traceback.print_exc()
        tell("error", f"{type(error).__name__}: {error}")
    sys.stderr.flush()
    os._exit(1)  # what vLLM does at the end of an interpreter may wait for ever


def _read(requests: Requests) -> None:
    """Take what comes at once, so that whoever writes never waits, and end with it."""
    try:
        for line in sys.stdin:
            requests.put(json.loads(line))
    finally:  # whoever is killed may leave half a line
        os._exit(0)


def _serve(requests: Requests, tell: Tell) -> None:
    first = requests.get()
    import vllm
    from vllm.platforms import current_platform
    from vllm.sampling_params import RequestOutputKind

    how = first["engine"]
    if current_platform.is_cpu():
        # A prompt in two parts ends vLLM 0.32 there where its request has a seed: the generator is
        # to be set back, and only those on GPUs can be.
        how["enable_chunked_prefill"] = False
        if how.keys().isdisjoint(_ROOM):  # else 0.92 of all main memory have to be free
            how["kv_cache_memory_bytes"] = first["room_on_cpu"]
    engine = vllm.LLM(**how).llm_engine
    config = engine.vllm_config
    tell(
        "ready",
        {
            "vllm": vllm.__version__,
            "dtype": str(config.model_config.dtype).removeprefix("torch."),
            "max_num_seqs": config.scheduler_config.max_num_seqs,
        },
    )

    def add(number: int, prompt: list[int], seed: int, max_tokens: int) -> None:
        sampling = vllm.SamplingParams(
            **first["sampling"],
            seed=seed,
            max_tokens=max_tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine.add_request(str(number), {"prompt_token_ids": prompt}, sampling)

    while True:
        if not engine.has_unfinished_requests():
            add(**requests.get())
        while not requests.empty():
            add(**requests.get())
        for output in engine.step():
            if output.finished:
                (made,) = output.outputs
                # Counted because VLLM_COMPUTE_NANS_IN_LOGITS is set.
                is_finite = not getattr(output.metrics, "is_corrupted", False)
                reason = made.finish_reason if is_finite else "not_finite"
                tell("row", [int(output.request_id), list(made.token_ids), reason])


_ROOM = ("kv_cache_memory_bytes", "gpu_memory_utilization")

if __name__ == "__main__":
    main()
