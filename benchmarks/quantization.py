"""How far rounded weights move the distribution of the next token, on sessions.

    python benchmarks/quantization.py [--model FOLDER] [--sessions 20] [--tiny]

Behind every token of the bundled sample's sessions, in the form that the quickstart writes them in,
the distributions of two types of weights are compared: their total variation distance, the
Kullback-Leibler divergence from the first to the second, and whether their likeliest tokens are
one. Temperature is 1, and nothing is cut. For CPUs with a C++ compiler.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from augesc_builder.config.recipe import load_recipe
from augesc_builder.engine.cache import Segment
from augesc_builder.engine.models import Network, network_of
from augesc_builder.engine.panel_cache import cache_of
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.run.markdown import markdown_table
from augesc_builder.sources.sample import read_sample_sessions
from augesc_builder.text.prompt_form import prompt_form
from benchmarks.harness import options, parse

TYPES = {
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "int8": (torch.bfloat16, torch.int8),
}
"""Of the weights, and of the matrices if they are others."""

PAIRS = [("float32", "bfloat16"), ("bfloat16", "int8"), ("float32", "int8")]


def main() -> None:
    """Print a row for each pair of types."""
    parser = options(__doc__, runs=1)
    parser.add_argument("--model", default="smollm2", help="a folder of transformers, or smollm2")
    parser.add_argument("--sessions", type=int, default=20, help="of the bundled sample")
    parser.add_argument("--tokens", type=int, default=400, help="of a session at most")
    arguments = parse(parser, sessions=1, tokens=30)
    recipe = load_recipe("quickstart")
    place = place_of(recipe.backbone) if arguments.model == "smollm2" else arguments.model
    model, tokenizer = causal_lm.load(place, revision=None, dtype="float32")
    networks = {
        name: network_of(copy.deepcopy(model).to(dtype), arguments.tokens, weights=weights)
        for name, (dtype, weights) in TYPES.items()
    }
    form = prompt_form(recipe.prompt, tokenizer, place)
    found: dict[tuple[str, str], list[Tensor]] = {pair: [] for pair in PAIRS}
    for session in read_sample_sessions()[: arguments.sessions]:
        ids = torch.tensor(form.for_session(session.messages)[0][: arguments.tokens])
        for pair, distances in zip(PAIRS, distances_of(networks, ids), strict=True):
            found[pair].append(distances)
    rows = []
    for (first, second), parts in found.items():
        variation, divergence, agrees = torch.cat(parts, 1)
        rows.append(
            [
                *(f"{second} against {first}", *figures(variation), *figures(divergence)),
                f"{float(agrees.mean()):.1%}",
            ]
        )
    n = sum(part.shape[1] for part in found[PAIRS[0]])
    print(f"\n{n:,} tokens of {arguments.sessions} sessions of the bundled sample\n")
    header = ["", "total variation, mean", "99th percentile", "KL, mean", "99th percentile"]
    print(markdown_table([*header, "same likeliest token"], rows))


@torch.inference_mode()
def distances_of(networks: dict[str, Network], ids: Tensor) -> Iterator[Tensor]:
    """Yield for each pair total variation, divergence and agreement behind each token (3, T)."""
    logs = {name: logits_of(network, ids).log_softmax(-1) for name, network in networks.items()}
    for first, second in PAIRS:
        p, q = logs[first], logs[second]
        yield torch.stack(
            [
                (p.exp() - q.exp()).abs().sum(-1) / 2,
                (p.exp() * (p - q)).sum(-1),
                (p.argmax(-1) == q.argmax(-1)).to(p.dtype),
            ]
        )


def logits_of(network: Any, ids: Tensor) -> Tensor:
    """Return the logits behind each of a text's tokens (T, V), in float64."""
    cache = cache_of(network.model, 1, len(ids))
    cache.begin_prefill([Segment(0, 0, 0, len(ids))])
    logits: Tensor = network.logits(ids, torch.arange(len(ids)), cache)
    return logits.double()


def figures(values: Tensor) -> tuple[str, str]:
    """Write the mean and the 99th percentile."""
    return f"{float(values.mean()):.4f}", f"{float(values.quantile(0.99)):.4f}"


if __name__ == "__main__":
    main()
