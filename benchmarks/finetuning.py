"""Tokens a second and peak memory of fine-tuning here, against ``transformers.Trainer``.

Both take the same sessions in the same batches and micro-batches, the same weights, the same type
of the arithmetic, AdamW and clipping. Each run is a process of its own; they alternate, and medians
are shown. The first step does not count: memory is found in it, and kernels are chosen.

    python benchmarks/finetuning.py [--model FOLDER] [--steps 4] [--batch-size 8]
        [--micro-batch-size 2] [--mixed-precision auto] [--esconv FOLDER] [--runs 3] [--tiny]

FOLDER is a checkpoint of ``transformers``, or a name on the Hub; without one it is the quickstart's
model, whose package has to be installed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from augesc_builder.config.backbone import FromScratch
from augesc_builder.config.recipe import Recipe, load_recipe
from augesc_builder.models import causal_lm
from augesc_builder.models.allocation import memory_kept
from augesc_builder.models.backbone import place_of
from augesc_builder.models.training_step import make_accelerator, mixed_precision
from augesc_builder.pipeline.finetune.examples import Example, collate, encode
from augesc_builder.pipeline.finetune.learner import Learner
from augesc_builder.run.markdown import markdown_table
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import render
from benchmarks.harness import SHARED, cores, esconv_sessions, options, parse, ratio

Numbers = dict[str, float]

TINY = FromScratch(vocab_size=400, n_embd=32, n_layer=2, n_head=2, rotary_dim=8, n_positions=2048)
CONTESTANTS = ("transformers.Trainer", "augesc")


def main() -> None:
    """Measure and print one table; with ``--contestant``, its numbers alone, as JSON."""
    parser = options(__doc__)
    parser.add_argument("--model", help="a checkpoint folder, or a name on the Hub")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps that count")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--micro-batch-size", type=int, default=2)
    parser.add_argument("--mixed-precision", default="auto")
    parser.add_argument("--esconv", type=Path, default=SHARED / "esconv")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = parse(parser, steps=1, batch_size=4)
    if given.contestant:
        train = train_by_trainer if given.contestant == CONTESTANTS[0] else train_here
        print(json.dumps(measured(given, train)))
        return
    runs: dict[str, list[Numbers]] = {name: [] for name in CONTESTANTS}
    for _ in range(given.runs):
        for name in CONTESTANTS:
            command = [sys.executable, *sys.argv, "--contestant", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    base = medians[CONTESTANTS[0]]
    print(
        f"{base['tokens']:,.0f} tokens in {given.steps} steps of {given.batch_size} sessions, "
        f"{given.micro_batch_size} at a time; mixed precision "
        f"{mixed_precision(given.mixed_precision)}; {cores()} cores, {given.runs} runs"
    )
    rows = [
        [
            name,
            f"{found['rate']:,.0f}",
            ratio(found["rate"], base["rate"]),
            f"{found['peak'] / 1e9:.2f}",
            f"{found['faults'] / 1e3:,.0f}",
            f"{found['loss']:.3f}",
        ]
        for name, found in medians.items()
    ]
    columns = ["tokens/s", "ratio", "peak memory, GB", "page faults, thousand", "last loss"]
    print(markdown_table(["fine-tuning", *columns], rows))


class Clock:
    """Counts seconds and page faults from the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, int]] = []

    def step_ends(self) -> None:
        """Note the end of a step."""
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.ends.append((time.perf_counter(), faults))

    @property
    def passed(self) -> tuple[float, int]:
        """Seconds and page faults."""
        (begun, before), (ended, after) = self.ends[0], self.ends[-1]
        return ended - begun, after - before


def measured(given: argparse.Namespace, train: Any) -> Numbers:
    """Train in this process; return what is shown of it, and how many tokens counted."""
    recipe = load_recipe("paper", ["finetune.max_grad_norm=1.0", "finetune.warmup_steps=0"])
    settings = recipe.finetune.model_copy(update={"micro_batch_size": given.micro_batch_size})
    recipe = recipe.model_copy(update={"finetune": settings})
    sessions, _ = esconv_sessions(given.esconv, tiny=given.tiny)
    sessions = sessions[: (given.steps + 1) * given.batch_size]
    if given.model is None and given.tiny:
        texts = [render(session.messages) for session in sessions]
        model, tokenizer = causal_lm.from_scratch(TINY, texts, seed=1)
    else:
        place = given.model or place_of(load_recipe("quickstart").backbone)
        model, tokenizer = causal_lm.load(place, revision=None, dtype="float32")
    model.config.use_cache = False
    form = prompt_form(recipe.prompt, tokenizer, "the model")
    examples = [encode(session, form, 1500) for session in sessions]
    size = given.batch_size
    batches = [examples[i : i + size] for i in range(0, len(examples), size)]
    clock = Clock()
    loss = train(recipe, model, batches, tokenizer.eos_token_id, given.mixed_precision, clock)
    n_tokens = sum(len(example.input_ids) for batch in batches[1:] for example in batch)
    seconds, faults = clock.passed
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"tokens": n_tokens, "rate": n_tokens / seconds, "peak": peak}
    return {**found, "faults": faults, "loss": loss}


def train_here(
    recipe: Recipe,
    model: Any,
    batches: Sequence[Sequence[Example]],
    pad: int,
    precision: str,
    clock: Clock,
) -> float:
    """Take a step a batch as the stage does; return the loss of the last."""
    accelerator = make_accelerator(mixed_precision=mixed_precision(precision))
    learner = Learner(accelerator, model, recipe.finetune, len(batches), pad)
    with memory_kept():
        for batch in batches:
            loss = learner.step(batch)
            clock.step_ends()
    return loss


def train_by_trainer(
    recipe: Recipe,
    model: Any,
    batches: Sequence[Sequence[Example]],
    pad: int,
    precision: str,
    clock: Clock,
) -> float:
    """Take a step a batch by ``transformers.Trainer``; return the loss of the last."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Sequential(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Ends(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step_ends()

    def padded(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = collate([Example(**row) for row in rows], pad)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        mask = torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]
        return {**batch, "attention_mask": mask.long()}

    settings, kind = recipe.finetune, mixed_precision(precision)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Sequential(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=len(batches),
                per_device_train_batch_size=settings.micro_batch_size,
                gradient_accumulation_steps=len(batches[0]) // settings.micro_batch_size,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                max_grad_norm=settings.max_grad_norm or 0.0,
                bf16=kind == "bf16",
                fp16=kind == "fp16",
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=[vars(example) for batch in batches for example in batch],
            data_collator=padded,
            callbacks=[Ends()],
        )
        trainer.train()
    return float([row["loss"] for row in trainer.state.log_history if "loss" in row][-1])


if __name__ == "__main__":
    main()
