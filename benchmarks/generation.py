"""Tokens a second of the decoding engine against others, on the task of ``generation_task.py``.

On CPU, one thread, one process, and tokens for each second of the processor's time, which is the
clock's where nothing else wants the core. All decode the same prompts, rows end at the same
lengths, runs alternate and medians are reported. ``transformers.generate`` is slow, so it gets the
first ``--peer-prompts`` of the prompts, in static batches; its best batch size is looked for first,
on rows of a quarter of the length.

    python benchmarks/generation.py                        # CPU, the table of the README
    python benchmarks/generation.py --processes            # two processes against two threads
    python benchmarks/generation.py --device cuda --model gptj-6b [--no-finetuning]
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder, whose statistics.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[1])

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from augesc_builder.engine import Prompt, Sampling, generate
from augesc_builder.engine.continuous import ContinuousBatchingEngine
from augesc_builder.engine.sampling import stream_key
from augesc_builder.run.markdown import markdown_table
from benchmarks.generation_peers import RESULT
from benchmarks.generation_task import (
    EOS,
    PENALTY,
    TEMPERATURE,
    TOP_P,
    Task,
    make_model,
    make_task,
)

PEERS = Path(__file__).parent / ".peers"
"""Environments of other engines, made by ``make bench-peers``."""

_FOR_PEERS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "4"}
"""One thread, nothing downloaded, and 4 GiB for vLLM's cache, which else takes all memory."""


def decode_ours(
    model: Any, task: Task, n_slots: int, *, refill: bool = True
) -> tuple[float, float]:
    """Decode a task with our engine; give tokens a second and the share of slots at work."""
    sampling = Sampling(2048, TOP_P, TEMPERATURE, PENALTY)
    prompts = [
        Prompt(ids, stream_key(1, str(i), 0), len(ids) + n)
        for i, (ids, n) in enumerate(zip(task.prompts, task.lengths, strict=True))
    ]
    engine = ContinuousBatchingEngine(model, EOS, sampling, n_slots, refill=refill)
    begun = _clock(model)
    results = generate(engine, prompts, lambda *_: None)
    seconds = _clock(model) - begun
    made = sum(len(result.token_ids) for result in results)
    if made != task.n_tokens:
        raise RuntimeError(f"{made} tokens instead of {task.n_tokens}")
    return made / seconds, engine.utilisation


def decode_static(model: Any, task: Task, n_slots: int) -> float:
    """Decode as static batches do, with our kernels: all rows go on until the longest ends."""
    longest = [max(task.lengths[i : i + n_slots]) for i in range(0, len(task.lengths), n_slots)]
    whole = Task(task.prompts, [longest[i // n_slots] for i in range(len(task.lengths))])
    rate, _ = decode_ours(model, whole, n_slots, refill=False)
    return rate * task.n_tokens / whole.n_tokens


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Ends every row of a batch at its own length."""

    def __init__(self, width: int, lengths: list[int], device: Any) -> None:
        self.ends = torch.tensor(lengths, device=device) + width

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return input_ids.shape[1] >= self.ends


@torch.inference_mode()
def decode_theirs(model: Any, task: Task, batch_size: int) -> float:
    """Decode a task with ``transformers.generate`` in static batches; give tokens a second."""
    begun = _clock(model)
    for first in range(0, len(task.prompts), batch_size):
        prompts = task.prompts[first : first + batch_size]
        lengths = task.lengths[first : first + batch_size]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), EOS)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=True,
            top_k=0,
            top_p=TOP_P,
            temperature=TEMPERATURE,
            repetition_penalty=PENALTY,
            max_new_tokens=max(lengths),
            pad_token_id=EOS,
            stopping_criteria=StoppingCriteriaList([_Ends(width, lengths, model.device)]),
        )
        if made.shape[1] != width + max(lengths):
            raise RuntimeError("a row ended early")
    return task.n_tokens / (_clock(model) - begun)


def _clock(model: Any) -> float:
    """Give seconds: of this process on one thread, otherwise of the world."""
    alone = model.device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def compare_on_cpu(arguments: argparse.Namespace) -> None:
    """Print one table: our engine, the same kernels in static batches, transformers, peers."""
    torch.set_num_threads(1)
    model = make_model("small", torch.float32, "cpu")
    task = make_task(arguments.prompts, scale=arguments.scale)
    fewer = task.first(arguments.peer_prompts)
    best = arguments.batch_sizes[0]
    if len(arguments.batch_sizes) > 1:
        best = max(arguments.batch_sizes, key=lambda n: _tried(model, arguments, n))
    contestants: dict[str, Callable[[], float]] = {
        f"augesc, {arguments.slots} slots": lambda: _noted(model, task, arguments.slots),
        f"the same, static batches of {arguments.slots}": lambda: decode_static(
            model, task, arguments.slots
        ),
        "the same, from which ended rows leave": lambda: decode_ours(
            model, task, arguments.slots, refill=False
        )[0],
        f"transformers.generate, batches of {best}": lambda: decode_theirs(model, fewer, best),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in _installed_peers():
            contestants[name] = _peer(name, Path(folder), model, task, arguments.slots)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(arguments.runs):
            for name, run in contestants.items():
                rates[name].append(run())
                print(f"  {name}: {rates[name][-1]:,.0f} tokens/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours = next(iter(medians.values()))
    print(
        f"\n{_processor()}, 1 thread, float32, torch {torch.__version__}; {len(task.prompts)} "
        f"prompts, {task.n_tokens:,} tokens, slots at work {_utilisation[-1]:.1%}; medians of "
        f"{arguments.runs} alternating runs; transformers: the first {len(fewer.prompts)} prompts\n"
    )
    rows = [[name, f"{rate:,.0f}", f"{ours / rate:.2f}"] for name, rate in medians.items()]
    print(markdown_table(["", "tokens/s", "augesc is faster by"], rows))


_utilisation: list[float] = []


def _noted(model: Any, task: Task, n_slots: int) -> float:
    rate, utilisation = decode_ours(model, task, n_slots)
    _utilisation.append(utilisation)
    return rate


def _tried(model: Any, arguments: argparse.Namespace, batch_size: int) -> float:
    """Decode a task with rows of a quarter of the length, the same for every batch size."""
    task = make_task(max(arguments.batch_sizes), scale=arguments.scale / 4)
    rate = decode_theirs(model, task, batch_size)
    print(f"  transformers.generate, batches of {batch_size}: {rate:,.0f} tokens/s", flush=True)
    return rate


def compare_processes(arguments: argparse.Namespace) -> None:
    """Print tokens a second of one process with one and two threads, and of two with one."""
    task = make_task(arguments.prompts, scale=arguments.scale)
    half = len(task.prompts) // 2
    halves = [
        Task(task.prompts[:half], task.lengths[:half]),
        Task(task.prompts[half:], task.lengths[half:]),
    ]
    rates: dict[str, list[float]] = {}
    context = multiprocessing.get_context("spawn")
    for _ in range(arguments.runs):
        for name, parts, threads in (
            ("one process, one thread", [task], 1),
            ("one process, two threads", [task], 2),
            ("two processes, one thread each", halves, 1),
        ):
            ready, done = context.Barrier(len(parts) + 1), context.Barrier(len(parts) + 1)
            workers = [
                context.Process(target=_alone, args=(part, threads, arguments.slots, ready, done))
                for part in parts
            ]
            for worker in workers:
                worker.start()
            ready.wait()
            begun = time.perf_counter()
            done.wait()
            rates.setdefault(name, []).append(task.n_tokens / (time.perf_counter() - begun))
            for worker in workers:
                worker.join()
            print(f"  {name}: {rates[name][-1]:,.0f} tokens/s", flush=True)
    rows = [[name, f"{statistics.median(found):,.0f}"] for name, found in rates.items()]
    print(markdown_table([_processor(), "tokens/s"], rows))


def _alone(task: Task, threads: int, n_slots: int, ready: Any, done: Any) -> None:
    torch.set_num_threads(threads)
    model = make_model("small", torch.float32, "cpu")
    ready.wait()
    decode_ours(model, task, n_slots)
    done.wait()


def _installed_peers() -> list[str]:
    return sorted(p.parent.name for p in PEERS.glob("*/installed"))


def _peer(name: str, folder: Path, model: Any, task: Task, n_slots: int) -> Callable[[], float]:
    """Give a function that runs another engine in its own environment."""
    if not (folder / "model").exists():
        model.save_pretrained(folder / "model")
        (folder / "task.json").write_text(
            json.dumps({"prompts": task.prompts, "lengths": task.lengths, "slots": n_slots})
        )

    def run() -> float:
        script = Path(__file__).with_name("generation_peers.py")
        command = [PEERS / name / "bin" / "python", script, name, folder]
        environment = {**os.environ, **_FOR_PEERS}
        done = subprocess.run(
            [*map(str, command)], env=environment, capture_output=True, text=True, check=False
        )
        found = re.search(rf"{RESULT} ([\d.]+)", done.stdout)
        if done.returncode or not found:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        return float(found[1])

    return run


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=["small", "gptj-6b", "tiny"], default="small")
    parser.add_argument("--prompts", type=int, help="96 on CPU, 512 on a GPU")
    parser.add_argument("--peer-prompts", type=int, default=64)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of transformers.generate")
    parser.add_argument("--slots", type=int, help="16 on CPU, 128 on a GPU")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1, help="of the lengths, for trials")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--no-finetuning", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.5, help="on a GPU, for all of it")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda" or arguments.model != "small"
    arguments.prompts = arguments.prompts or (512 if on_gpu else 96)
    arguments.slots = arguments.slots or (128 if on_gpu else 16)
    arguments.batch_sizes = arguments.batch_sizes or ([64, 128] if on_gpu else [8, 16, 32])
    if on_gpu:
        from benchmarks.generation_gpu import compare_on_gpu

        compare_on_gpu(arguments)
    elif arguments.processes:
        compare_processes(arguments)
    else:
        compare_on_cpu(arguments)


if __name__ == "__main__":
    main()
