"""Tokens a second of the decoding engine against others, on the task of ``generation_task.py``.

On CPU, one thread, one process, and tokens for each second of the processor's time, which is the
clock's where nothing else wants the core. All decode the same prompts, rows end at the same
lengths, runs alternate and medians are reported. Other engines get the first ``--peer-prompts`` of
the prompts, each in the type it is best in, and in 8 bits where it has them; that type, and the
batch size of ``transformers.generate``, is looked for first, on rows of a quarter of the length.
``--tiny`` puts a tiny model in the place of any other, leaves out the engines of
``make bench-peers``, and goes with each of these:

    python benchmarks/generation.py                        # CPU, the table of docs/benchmarks.md
    python benchmarks/generation.py --model smollm2|FOLDER [--threads 2]    # a checkpoint, on CPU
    python benchmarks/generation.py --processes            # two processes against two threads
    python benchmarks/generation.py --device cuda --model gptj-6b [--no-finetuning]
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from augesc_builder.run.markdown import markdown_table
from benchmarks.generation_checkpoint import (
    DTYPES,
    compare_steps,
    end_of,
    load,
    load_plain,
    weights_of,
)
from benchmarks.generation_decoders import (
    decode,
    decode_ours,
    decode_static,
    decode_theirs,
    engine_for,
)
from benchmarks.generation_gpu import compare_on_gpu
from benchmarks.generation_rivals import ENGINES, Field
from benchmarks.generation_task import SIZES, Task, make_task
from benchmarks.harness import medians_of, options, parse

Label = TypeVar("Label", bound=tuple[object, ...])
"""The first cells of a row: the engine, its type, what else tells it from others."""

Run = Callable[[], float]
"""Decodes a task once and returns tokens a second."""


def compare_on_cpu(arguments: argparse.Namespace) -> None:
    """Print one table: our engine, the same kernels in static batches, and the others."""
    torch.set_num_threads(arguments.threads)
    slots, threads = arguments.slots, arguments.threads
    models = {name: load(arguments.model, DTYPES[name]) for name in arguments.types}
    first = models[arguments.types[0]]
    eos = end_of(first)
    task, short = _tasks(arguments, first.config.vocab_size)
    fewer = task.first(arguments.peer_prompts)
    at_work: set[float] = set()

    def ours(name: str, some: Task = task, *, refill: bool = True) -> float:
        rate, utilisation = decode_ours(
            models[name], some, slots, refill=refill, eos=eos, weights=weights_of(name)
        )
        if refill and some is task:
            at_work.add(utilisation)
        return rate

    def theirs(name: str, size: int, some: Task = fewer) -> float:
        return decode_theirs(models[name], some, size, eos)

    whole = [name for name in models if weights_of(name) is None] or [*models]
    (best,) = _best({(name,): partial(ours, name, short) for name in whole})
    theirs_in, size = _best(
        {
            (name, n): partial(theirs, name, n, short)
            for name in whole
            for n in arguments.batch_sizes
        }
    )
    contestants: dict[tuple[str, str], Run] = {
        **{(f"augesc, {slots} slots", name): partial(ours, name) for name in models},
        (f"the same, static batches of {slots}", best): partial(
            decode_static, models[best], task, slots, eos
        ),
        ("the same, from which ended rows leave", best): partial(ours, best, refill=False),
        (f"transformers.generate, batches of {size}", theirs_in): partial(theirs, theirs_in, size),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Field(Path(folder), load_plain(arguments.model), slots, task, arguments.rivals) as field,
    ):
        for rival in field.best(short.first(slots)):
            contestants[rival.label] = partial(
                field.decode, rival, [fewer], threads, by_clock=threads > 1
            )
        medians = medians_of(_said(contestants), arguments.runs)
    our_rates = {name: medians[f"augesc, {slots} slots", name] for name in models}
    print(
        f"\n{_processor()}, {threads} thread(s), torch {torch.__version__}; {len(task.prompts)} "
        f"prompts, {task.n_tokens:,} tokens, slots at work {max(at_work):.1%}; medians of "
        f"{arguments.runs} alternating runs; other engines: the first {len(fewer.prompts)} prompts"
        f"\n{field.about}\n"
    )
    rows = [
        [*label, f"{rate:,.0f}", f"{_beside(label[1], our_rates) / rate:.2f}"]
        for label, rate in medians.items()
    ]
    print(markdown_table(["", "type", "tokens/s", "augesc is faster by"], rows))


def _beside(kind: str, ours: Mapping[str, float]) -> float:
    """Return our rate that a row is compared with: the best of ours with 8 bits, or with more.

    Without weights of 8 bits of ours it is the best with more.
    """
    eight = {name: rate for name, rate in ours.items() if "int8" in name}
    more = {name: rate for name, rate in ours.items() if name not in eight}
    few = "int8" in kind or "8 bits" in kind
    return max(((eight or more) if few else (more or eight)).values())


def _tasks(arguments: argparse.Namespace, n_tokens: int) -> tuple[Task, Task]:
    """Return the task, and one to try types and batch sizes on: rows of a quarter of the length."""
    n = max(arguments.slots, *arguments.batch_sizes)
    return (
        make_task(arguments.prompts, scale=arguments.scale, n_tokens=n_tokens),
        make_task(n, scale=arguments.scale / 4, n_tokens=n_tokens),
    )


def _said(contestants: Mapping[Label, Run]) -> dict[Label, Run]:
    """Return functions that run others and print what they found at once."""

    def told(label: Label, run: Run) -> float:
        rate = run()
        print(f"  {', '.join(map(str, label))}: {rate:,.0f} tokens/s", flush=True)
        return rate

    return {label: partial(told, label, run) for label, run in contestants.items()}


def _best(tried: Mapping[Label, Run]) -> Label:
    """Run each once, unless there is only one; return the fastest."""
    if len(tried) == 1:
        return next(iter(tried))
    rates = medians_of(_said(tried), 1)
    return max(rates, key=rates.__getitem__)


def compare_processes(arguments: argparse.Namespace) -> None:
    """Print tokens a second of one process with one and two threads, and of two with one.

    Each process has all prompts. With half of the 96 each, prompts run out twice as early and 81 %
    of the slots would be at work in the mean, not 90 %: at most 1.85 times one, however fast.
    """
    model = load_plain(arguments.model)
    task, short = _tasks(arguments, model.config.vocab_size)
    size, slots = arguments.model, arguments.slots
    ways = {
        "one process, one thread": ([task], 1),
        "one process, two threads": ([task], 2),
        "two processes, one thread each": ([task, task], 1),
    }
    contestants: dict[tuple[str, str, str], Run] = {
        ("augesc", name, way): partial(_together, size, name, parts, threads, slots)
        for name in arguments.types
        for way, (parts, threads) in ways.items()
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Field(Path(folder), model, slots, task, arguments.rivals) as field,
    ):
        del model
        for rival in field.best(short.first(slots)):
            for way, (parts, threads) in ways.items():
                engine, name = rival.label
                run = partial(field.decode, rival, parts, threads, by_clock=True)
                contestants[engine, name, way] = run
        medians = medians_of(_said(contestants), arguments.runs)
    print(
        f"\n{_processor()}, torch {torch.__version__}; {task.n_tokens:,} tokens a process; "
        f"{field.about}\n"
    )
    rows = []
    for (engine, name, way), rate in medians.items():
        alone = medians[engine, name, next(iter(ways))]
        rows.append([f"{engine}, {name}, {way}", f"{rate:,.0f}", f"{rate / alone:.2f}"])
    print(markdown_table(["", "tokens/s", "times one"], rows))


def _together(size: str, name: str, parts: list[Task], threads: int, n_slots: int) -> float:
    """Decode each part in a process of its own; return tokens a second by the clock."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(len(parts) + 1), context.Barrier(len(parts) + 1)
    workers = [
        context.Process(target=_alone, args=(size, name, part, threads, n_slots, ready, done))
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


def _alone(
    size: str, name: str, task: Task, threads: int, n_slots: int, ready: Any, done: Any
) -> None:
    torch.set_num_threads(threads)
    model = load(size, DTYPES[name])
    engine = engine_for(model, n_slots, eos=end_of(model), weights=weights_of(name))
    ready.wait()
    decode(engine, task)
    done.wait()


def _processor() -> str:
    """Return its name, and what it computes with as Linux names it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    about = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    flags = about.get("flags", about.get("Features", "")).split()
    features = [flag for flag in flags if flag.startswith(("avx", "amx", "asimd", "sve"))]
    return f"{about.get('model name', platform.machine())} ({', '.join(features)})"


def main() -> None:
    """Measure and print one table, on a GPU two."""
    parser = options(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="small", help="small, gptj-6b, smollm2, or a folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--types", nargs="+", choices=DTYPES, default=[*DTYPES], help="of ours")
    parser.add_argument("--prompts", type=int, help="96 on CPU, 512 at full size")
    parser.add_argument("--peer-prompts", type=int, default=24)
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="of transformers.generate")
    parser.add_argument("--rivals", nargs="*", choices=ENGINES, default=ENGINES)
    parser.add_argument("--slots", type=int, help="16 on CPU, 128 at full size")
    parser.add_argument("--scale", type=float, default=1, help="of the lengths, for trials")
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--no-finetuning", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.5, help="on a GPU, for all of it")
    tiny = {"prompts": 4, "peer_prompts": 2, "slots": 2, "batch_sizes": [2], "scale": 0.02}
    arguments = parse(parser, **tiny, rivals=())
    is_checkpoint = arguments.model not in SIZES
    full_size = arguments.device == "cuda" or arguments.model == "gptj-6b"
    arguments.prompts = arguments.prompts or (512 if full_size else 96)
    arguments.slots = arguments.slots or (128 if full_size else 16)
    arguments.batch_sizes = arguments.batch_sizes or ([64, 128] if full_size else [8, 16, 32])
    if arguments.tiny:
        arguments.model = "tiny"
    if full_size:
        compare_on_gpu(arguments)
    elif arguments.processes:
        compare_processes(arguments)
    else:
        if is_checkpoint:
            compare_steps(arguments)
        compare_on_cpu(arguments)


if __name__ == "__main__":
    main()
