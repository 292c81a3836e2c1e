"""The task at full size on one GPU: tokens a second, the share of what its memory allows, training.

Every step of decoding reads all weights, and the keys and values of the rows at work; the card's
measured copy bandwidth says how long that takes at least. Fits into nine minutes on one command.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from datetime import date
from typing import Any

import torch

from augesc_builder.run.markdown import markdown_table
from benchmarks.generation_decoders import decode_ours, decode_static, decode_theirs
from benchmarks.generation_task import Task, make_model, make_task

TRAINING_TOKENS = 780
"""Of ESConv's sessions in GPT-J's tokens, with the instruction, on average."""


def compare_on_gpu(arguments: argparse.Namespace) -> None:
    """Print two tables: decoding, and fine-tuning."""
    end = time.monotonic() + 60 * arguments.minutes
    device = arguments.device
    name = torch.cuda.get_device_name() if device == "cuda" else device
    bandwidth = copy_bandwidth(device)
    print(f"{name}, torch {torch.__version__}, {date.today()}; copies {bandwidth / 1e12:.2f} TB/s")
    model = make_model(arguments.model, torch.bfloat16, device)
    task = make_task(arguments.prompts, scale=arguments.scale)
    decode_ours(model, make_task(arguments.slots, scale=arguments.scale / 8), arguments.slots)
    rows = []
    rates = []
    for _ in range(2):
        rate, utilisation = decode_ours(model, task, arguments.slots)
        rates.append(rate)
        print(f"  augesc: {rate:,.0f} tokens/s, slots at work {utilisation:.1%}", flush=True)
    rate = statistics.median(rates)
    n_steps = task.n_tokens / (arguments.slots * utilisation)
    ideal = ideal_seconds(model, task, n_steps, bandwidth)
    share = f"{ideal / (task.n_tokens / rate):.0%}"
    per_hour = 3600 * len(task.prompts) / task.n_tokens
    rows.append(
        [f"augesc, {arguments.slots} slots", f"{rate:,.0f}", f"{rate * per_hour:,.0f}", share]
    )
    static = decode_static(model, task.first(2 * arguments.slots), arguments.slots)
    rows.append(["the same, static batches", f"{static:,.0f}", f"{static * per_hour:,.0f}", ""])
    found = {}
    for size in arguments.batch_sizes:
        if time.monotonic() > end - 180:
            print(f"  no time left for transformers.generate in batches of {size}")
            continue
        found[size] = decode_theirs(model, make_task(size, scale=arguments.scale / 4), size)
        print(
            f"  transformers.generate, batches of {size}: {found[size]:,.0f} tokens/s, short rows"
        )
    if found:
        best = max(found, key=found.__getitem__)
        expected = task.first(best).n_tokens / found[best]
        theirs = found[best]
        label = f"transformers.generate, batches of {best}, rows of a quarter of the length"
        if time.monotonic() + 2 * expected < end - 60:
            theirs = decode_theirs(model, task.first(best), best)
            label = f"transformers.generate, batches of {best}"
        rows.append([label, f"{theirs:,.0f}", f"{theirs * per_hour:,.0f}", ""])
        print(f"augesc is faster by {rate / theirs:.2f}")
    print(
        markdown_table([f"{name}, bfloat16", "tokens/s", "sessions/hour", "of the roofline"], rows)
    )
    del model
    if not arguments.no_finetuning:
        print(markdown_table(["fine-tuning", "s/step", "peak GB"], list(training(arguments, end))))


def copy_bandwidth(device: str) -> float:
    """Measure bytes a second, read and written, of a large copy."""
    big = torch.empty(
        (1 << 31) if device == "cuda" else (1 << 26), dtype=torch.uint8, device=device
    )
    other = torch.empty_like(big)
    times = []
    for _ in range(6):
        _wait(device)
        begun = time.perf_counter()
        other.copy_(big)
        _wait(device)
        times.append(time.perf_counter() - begun)
    return 2 * big.numel() / min(times)


def ideal_seconds(model: Any, task: Task, n_steps: float, bandwidth: float) -> float:
    """Return how long reading takes: weights a step, and for each token a row's KV cache."""
    config = model.config
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    weights -= model.transformer.wte.weight.numel() * model.dtype.itemsize  # looked up, not read
    one = 2 * config.n_layer * config.n_embd * model.dtype.itemsize
    read = sum(
        one * n * (len(prompt) + (n + 1) / 2)
        for prompt, n in zip(task.prompts, task.lengths, strict=True)
    )
    return float((weights * n_steps + read) / bandwidth)


def training(arguments: argparse.Namespace, end: float) -> Any:
    """Measure optimizer steps of the paper's recipe and of LoRA, on sessions of usual length."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        from augesc_builder.config.recipe import load_recipe
        from augesc_builder.pipeline.finetune import train
        from augesc_builder.pipeline.finetune.examples import Example
        from augesc_builder.pipeline.finetune.learner import Learner
    except ImportError as error:
        print(f"  fine-tuning is left out: {error}")
        return
    for name in ("paper", "paper-lora"):
        if time.monotonic() > end - 45:
            print(f"  no time left for fine-tuning with {name}")
            continue
        gc.collect()
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        settings = load_recipe(name).finetune
        on_cpu = arguments.device == "cpu"
        AcceleratorState._reset_state()
        accelerator = Accelerator(mixed_precision=settings.mixed_precision, cpu=on_cpu)
        model = make_model(
            arguments.model, getattr(torch, settings.weights_dtype), arguments.device
        )
        model = train._prepare(model, settings, 1)
        learner = Learner(accelerator, model, settings, n_steps=4, pad=50256)
        n_tokens = TRAINING_TOKENS if not on_cpu else 16
        batch = [Example(ids, ids) for ids in [list(range(n_tokens))] * settings.batch_size]
        seconds = []
        for _ in range(4):
            _wait(arguments.device)
            begun = time.perf_counter()
            learner.step(batch)
            _wait(arguments.device)
            seconds.append(time.perf_counter() - begun)
        peak = 0.0 if on_cpu else torch.cuda.max_memory_allocated() / 1e9
        yield [f"{name}, {settings.batch_size} sessions", f"{min(seconds[1:]):.2f}", f"{peak:.0f}"]
        accelerator.free_memory()
        del model, learner


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
