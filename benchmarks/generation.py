"""Tokens a second of the decoding engine against others, on the task of ``generation_task.py``.

On CPU, one thread, one process, and tokens for each second of the processor's time, which is the
clock's where nothing else wants the core. All decode the same prompts, rows end at the same
lengths, runs alternate and medians are reported. ``transformers.generate`` is slow, so it gets the
first ``--peer-prompts`` of the prompts, in static batches; its best batch size is looked for first,
on rows of a quarter of the length. ``--tiny`` puts a tiny model in the place of any other, leaves
out the engines of ``make bench-peers``, and goes with each of these:

    python benchmarks/generation.py                        # CPU, the table of docs/benchmarks.md
    python benchmarks/generation.py --processes            # two processes against two threads
    python benchmarks/generation.py --model smollm2|FOLDER [--threads 2]    # a checkpoint, on CPU
    python benchmarks/generation.py --device cuda --model gptj-6b [--no-finetuning]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from augesc_builder.run.markdown import markdown_table
from benchmarks.generation_checkpoint import compare_checkpoint
from benchmarks.generation_decoders import decode_ours, decode_static, decode_theirs
from benchmarks.generation_gpu import compare_on_gpu
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
from benchmarks.harness import medians_of, options, parse

PEERS = Path(__file__).parent / ".peers"
"""Environments of other engines, made by ``make bench-peers``."""

_FOR_PEERS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "4"}
"""One thread, nothing downloaded, and 4 GiB for vLLM's cache, which else takes all memory."""


def compare_on_cpu(arguments: argparse.Namespace) -> None:
    """Print one table: our engine, the same kernels in static batches, transformers, peers."""
    torch.set_num_threads(1)
    model = make_model(arguments.model, torch.float32, "cpu")
    task = make_task(arguments.prompts, scale=arguments.scale)
    fewer = task.first(arguments.peer_prompts)
    best = arguments.batch_sizes[0]
    if len(arguments.batch_sizes) > 1:
        best = max(arguments.batch_sizes, key=lambda n: _tried(model, arguments, n))
    utilisation = 0.0

    def ours() -> float:
        nonlocal utilisation
        rate, utilisation = decode_ours(model, task, arguments.slots)
        return rate

    contestants: dict[str, Callable[[], float]] = {
        f"augesc, {arguments.slots} slots": ours,
        f"the same, static batches of {arguments.slots}": lambda: decode_static(
            model, task, arguments.slots
        ),
        "the same, from which ended rows leave": lambda: decode_ours(
            model, task, arguments.slots, refill=False
        )[0],
        f"transformers.generate, batches of {best}": lambda: decode_theirs(model, fewer, best),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in [] if arguments.tiny else _installed_peers():
            contestants[name] = _peer(name, Path(folder), model, task, arguments.slots)
        said = {name: _said(name, run) for name, run in contestants.items()}
        medians = medians_of(said, arguments.runs)
    our_rate = next(iter(medians.values()))
    print(
        f"\n{_processor()}, 1 thread, float32, torch {torch.__version__}; {len(task.prompts)} "
        f"prompts, {task.n_tokens:,} tokens, slots at work {utilisation:.1%}; medians of "
        f"{arguments.runs} alternating runs; transformers: the first {len(fewer.prompts)} prompts\n"
    )
    rows = [[name, f"{rate:,.0f}", f"{our_rate / rate:.2f}"] for name, rate in medians.items()]
    print(markdown_table(["", "tokens/s", "augesc is faster by"], rows))


def _said(name: str, run: Callable[[], float]) -> Callable[[], float]:
    """Return a function that runs another and prints what it found at once."""

    def told() -> float:
        rate = run()
        print(f"  {name}: {rate:,.0f} tokens/s", flush=True)
        return rate

    return told


def _tried(model: Any, arguments: argparse.Namespace, batch_size: int) -> float:
    """Decode a task with rows of a quarter of the length, the same for every batch size."""
    task = make_task(max(arguments.batch_sizes), scale=arguments.scale / 4)
    name = f"transformers.generate, batches of {batch_size}"
    return _said(name, lambda: decode_theirs(model, task, batch_size))()


def compare_processes(arguments: argparse.Namespace) -> None:
    """Print tokens a second of one process with one and two threads, and of two with one."""
    task = make_task(arguments.prompts, scale=arguments.scale)
    half = len(task.prompts) // 2
    halves = [
        Task(task.prompts[:half], task.lengths[:half]),
        Task(task.prompts[half:], task.lengths[half:]),
    ]
    size, n_slots = arguments.model, arguments.slots
    contestants = {
        "one process, one thread": lambda: _together(size, [task], 1, n_slots),
        "one process, two threads": lambda: _together(size, [task], 2, n_slots),
        "two processes, one thread each": lambda: _together(size, halves, 1, n_slots),
    }
    said = {name: _said(name, run) for name, run in contestants.items()}
    rows = [[name, f"{rate:,.0f}"] for name, rate in medians_of(said, arguments.runs).items()]
    print(markdown_table([_processor(), "tokens/s"], rows))


def _together(size: str, parts: list[Task], threads: int, n_slots: int) -> float:
    """Decode each part in a process of its own; return tokens a second by the clock."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(len(parts) + 1), context.Barrier(len(parts) + 1)
    workers = [
        context.Process(target=_alone, args=(size, part, threads, n_slots, ready, done))
        for part in parts
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    begun = time.perf_counter()
    done.wait()
    seconds = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    return sum(part.n_tokens for part in parts) / seconds


def _alone(size: str, task: Task, threads: int, n_slots: int, ready: Any, done: Any) -> None:
    torch.set_num_threads(threads)
    model = make_model(size, torch.float32, "cpu")
    ready.wait()
    decode_ours(model, task, n_slots)
    done.wait()


def _installed_peers() -> list[str]:
    return sorted(p.parent.name for p in PEERS.glob("*/installed"))


def _peer(name: str, folder: Path, model: Any, task: Task, n_slots: int) -> Callable[[], float]:
    """Return a function that runs another engine in its own environment."""
    if not (folder / "model").exists():
        model.save_pretrained(folder / "model")
        sampling = {"top_p": TOP_P, "temperature": TEMPERATURE, "repetition_penalty": PENALTY}
        rows = {"prompts": task.prompts, "lengths": task.lengths}
        (folder / "task.json").write_text(
            json.dumps({**rows, "slots": n_slots, "eos": EOS, "sampling": sampling})
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
    """Measure and print one table, on a GPU two."""
    parser = options(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="small", help="small, gptj-6b, smollm2, or a folder")
    parser.add_argument("--threads", type=int, default=1, help="with a checkpoint")
    parser.add_argument("--prompts", type=int, help="96 on CPU, 512 at full size")
    parser.add_argument("--peer-prompts", type=int, default=64)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of transformers.generate")
    parser.add_argument("--slots", type=int, help="16 on CPU, 128 at full size")
    parser.add_argument("--scale", type=float, default=1, help="of the lengths, for trials")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--no-finetuning", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.5, help="on a GPU, for all of it")
    tiny = {"prompts": 4, "peer_prompts": 2, "slots": 2, "batch_sizes": [2], "scale": 0.02}
    arguments = parse(parser, **tiny)
    is_checkpoint = arguments.model not in {"small", "gptj-6b"}
    full_size = arguments.device == "cuda" or arguments.model == "gptj-6b"
    arguments.prompts = arguments.prompts or (512 if full_size else 96)
    arguments.slots = arguments.slots or (128 if full_size else 16)
    arguments.batch_sizes = arguments.batch_sizes or ([64, 128] if full_size else [8, 16, 32])
    if arguments.tiny:
        arguments.model = "tiny"
    if is_checkpoint:
        compare_checkpoint(arguments)
    elif full_size:
        compare_on_gpu(arguments)
    elif arguments.processes:
        compare_processes(arguments)
    else:
        compare_on_cpu(arguments)


if __name__ == "__main__":
    main()
