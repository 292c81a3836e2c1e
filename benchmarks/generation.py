"""Tokens a second of the plain engine against `transformers.generate`, on the quickstart's model.

Same prompts, same weights, same sampling settings; runs alternate, medians are reported. Rows of
the two are not the same text: `generate` draws from one global stream.

    python benchmarks/generation.py [--rows 40] [--runs 3]
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not this folder, whose statistics.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[1])

import argparse
import platform
import statistics
import time

import torch

from augesc_builder import backbone
from augesc_builder.engine import Prompt, Sampling
from augesc_builder.engine.sampling import stream_key
from augesc_builder.engine.simple import SimpleEngine
from augesc_builder.prompts import render, render_query, with_instruction
from augesc_builder.recipe import load_recipe
from augesc_builder.report import markdown_table
from augesc_builder.sources.sample import read_sample_queries, read_sample_sessions


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=400)
    arguments = parser.parse_args()

    recipe = load_recipe("quickstart")
    texts = [render(session.messages) for session in read_sample_sessions()]
    shape = recipe.backbone.from_scratch
    assert shape is not None
    model, tokenizer = backbone.from_scratch(shape, texts, seed=1)
    model.eval()
    queries = [post.text for post in read_sample_queries()][: arguments.rows]
    prompts = [
        tuple(tokenizer(with_instruction(recipe.prompt.instruction, render_query(q)))["input_ids"])
        for q in queries
    ]
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    padded = tokenizer.pad({"input_ids": [list(p) for p in prompts]}, return_tensors="pt")
    settings = recipe.generate

    def ours() -> int:
        sampling = Sampling(
            arguments.max_tokens,
            settings.top_p,
            settings.temperature,
            settings.repetition_penalty,
        )
        engine = SimpleEngine(model, int(tokenizer.eos_token_id), sampling, arguments.rows)
        rows = [Prompt(p, stream_key(1, str(i), 0)) for i, p in enumerate(prompts)]
        return sum(len(r.token_ids) for r in engine.generate(rows, lambda *_: None))

    def theirs() -> int:
        torch.manual_seed(1)
        width = padded["input_ids"].shape[1]
        made = model.generate(
            **padded,
            do_sample=True,
            top_k=0,
            top_p=settings.top_p,
            temperature=settings.temperature,
            repetition_penalty=settings.repetition_penalty,
            max_length=arguments.max_tokens,
            pad_token_id=tokenizer.eos_token_id,
        )[:, width:]
        ends = (made == tokenizer.eos_token_id).long().argmax(1)
        lengths = torch.where((made == tokenizer.eos_token_id).any(1), ends, made.shape[1])
        return int(lengths.sum())

    rates: dict[str, list[float]] = {"augesc, simple engine": [], "transformers.generate": []}
    for _ in range(arguments.runs):
        for name, run in zip(rates, (ours, theirs), strict=True):
            begun = time.perf_counter()
            made = run()
            rates[name].append(made / (time.perf_counter() - begun))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    base = medians["transformers.generate"]
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"float32, {arguments.rows} rows, {arguments.runs} alternating runs, "
        f"torch {torch.__version__}"
    )
    print(
        markdown_table(
            ["", "tokens/s (median)", "ratio"],
            [[name, f"{rate:,.0f}", f"{rate / base:.2f}"] for name, rate in medians.items()],
        )
    )


if __name__ == "__main__":
    main()
