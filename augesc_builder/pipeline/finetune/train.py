"""Fine-tuning of the backbone on few sessions (section 4.1, Training).

The loop is ``accelerate``'s: one process or many, any mixed precision, the whole model in each or
sharded by FSDP; or one process with the layers spread over its GPUs. The order of the sessions
depends on seed and epoch alone, so a killed run that resumes sees what it would have seen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from transformers import get_linear_schedule_with_warmup

from augesc_builder.config.recipe import Finetune, Lora, Recipe
from augesc_builder.errors import MissingExtraError, TrainingError
from augesc_builder.models import causal_lm
from augesc_builder.models.backbone import place_of
from augesc_builder.models.training_state import load_state, newest_everywhere, save_state
from augesc_builder.models.training_step import (
    IGNORED,
    checkpoint_activations,
    gradients,
    make_accelerator,
    update,
)
from augesc_builder.pipeline.finetune.examples import Example, collate, encode, sample_sessions
from augesc_builder.run.progress import Progress
from augesc_builder.sources.base import Session
from augesc_builder.text.prompt_form import prompt_form
from augesc_builder.text.prompts import PromptTemplate


def finetune(
    recipe: Recipe,
    sessions: Sequence[Session],
    out: Callable[[Callable[[Path], None]], None],
    states: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Fine-tune the backbone and hand a function that saves it to ``out``.

    ``states`` is a folder for what a killed run resumes from. ``sessions`` and the
    backbone's revision are those of the first process. Returns what the manifest records: sessions,
    steps, losses (mean per token, natural logarithm).

    Raises :class:`~augesc_builder.errors.TrainingError` for a loss that is not finite, and for
    processes or GPUs that the settings cannot be spread over;
    :class:`~augesc_builder.errors.CheckpointError` where all saved states are damaged.
    """
    settings = recipe.finetune
    accelerator = make_accelerator(mixed_precision=settings.mixed_precision)
    _check_launch(accelerator, settings)
    first: list[Any] = [None]
    if accelerator.is_main_process:
        chosen = sample_sessions(sessions, settings.n_sessions, recipe.seed)
        first = [(chosen, recipe.backbone.revision)]
    chosen, revision = broadcast_object_list(first)[0]
    model, tokenizer = _backbone(recipe, revision, chosen)
    model = _prepare(model, settings, recipe.seed)
    form = prompt_form(recipe.prompt, tokenizer, recipe.backbone.name or "from_scratch")
    examples = [encode(session, form, settings.max_tokens) for session in chosen]
    plan = list(_batches(len(examples), settings.batch_size, settings.epochs, recipe.seed))
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, settings.warmup_steps, len(plan))
    model, optimizer = accelerator.prepare(model, optimizer)
    trained = (model, optimizer, schedule)
    losses = _resume(accelerator, states, trained, progress)
    model.train()
    with progress.bar(len(plan), "fine-tuning", "step", done=len(losses)) as bar:
        for step in range(len(losses), len(plan)):
            batch = [examples[i] for i in plan[step]]
            loss = _step(accelerator, model, optimizer, batch, tokenizer.eos_token_id, settings)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of step {step + 1} is {loss}; lower finetune.learning_rate "
                    f"({settings.learning_rate}) or set finetune.mixed_precision to no"
                )
            schedule.step()
            losses.append(loss)
            bar.update(1, loss=f"{loss:.3f}")
            every = settings.save_state_every
            if every and (step + 1) % every == 0 and step + 1 < len(plan):
                save_state(accelerator, states, step + 1, trained, {"losses": losses})
    _save(accelerator, model, tokenizer, recipe, out)
    accelerator.end_training()
    model, optimizer = accelerator.free_memory(model, optimizer)  # generation needs the GPU next
    return {
        "sessions": [session.session_id for session in chosen],
        "examples_cut": sum(example.input_ids[-1] != form.end for example in examples),
        "tokens_an_epoch": sum(len(example.input_ids) for example in examples),
        "steps": len(plan),
        "first_loss": round(losses[0], 4),
        "last_epoch_loss": round(_mean(losses[-math.ceil(len(plan) / settings.epochs) :]), 4),
    }


def _check_launch(accelerator: Accelerator, settings: Finetune) -> None:
    n = accelerator.num_processes
    if n > 1 and settings.device_map is not None:
        raise TrainingError(
            f"finetune.device_map spreads the layers from one process, and {n} were launched; run "
            f"`augesc` without accelerate launch, or set finetune.device_map=null"
        )
    if settings.lora is not None and accelerator.distributed_type == DistributedType.FSDP:
        raise TrainingError(
            "finetune.lora does not go with FSDP: its adapter is merged at the end, which takes "
            "whole weights; launch without FSDP, or set finetune.lora=null"
        )


def _backbone(recipe: Recipe, revision: str | None, sessions: Sequence[Session]) -> tuple[Any, Any]:
    origin, settings = recipe.backbone, recipe.finetune
    if origin.from_scratch is not None:
        template = PromptTemplate(recipe.prompt.instruction)
        texts = [template.for_session(session.messages) for session in sessions]
        model, tokenizer = causal_lm.from_scratch(origin.from_scratch, texts, recipe.seed)
        model = model.to(getattr(torch, settings.weights_dtype))
    else:
        pinned = origin.model_copy(update={"revision": revision})
        model, tokenizer = causal_lm.load(
            place_of(pinned),
            revision=revision,
            dtype=settings.weights_dtype,
            device_map=settings.device_map,
        )
        places = set((getattr(model, "hf_device_map", None) or {}).values())
        if left := sorted({"cpu", "disk"} & places) if len(places) > 1 else []:
            raise TrainingError(
                f"{origin.name}: its weights do not fit on the GPUs, and some layers are left on "
                f"{' and '.join(left)}; use more GPUs, or FSDP over several machines"
            )
    if not tokenizer.is_fast:
        raise TrainingError(
            f"{origin.name}: its tokenizer has no fast version; choose another model"
        )
    limit = causal_lm.max_positions(model.config)
    if limit and settings.max_tokens > limit:
        raise TrainingError(
            f"finetune.max_tokens is {settings.max_tokens}, but the model has positions for "
            f"{limit}; lower it"
        )
    return model, tokenizer


def _prepare(model: Any, settings: Finetune, seed: int) -> Any:
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    if settings.lora is not None:
        torch.manual_seed(seed)
        model = _with_lora(model, settings.lora)
    torch.manual_seed(seed)  # dropout, where the model has any
    return model


def _with_lora(model: Any, lora: Lora) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError(
            "finetune.lora needs peft: pip install 'augesc-builder[lora]'"
        ) from None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
    )
    return get_peft_model(model, config)


def _batches(n: int, size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Yield the sessions of every step, each epoch in an order of its own."""
    for epoch in range(epochs):
        order = list(range(n))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from (order[i : i + size] for i in range(0, n, size))


def _step(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    batch: Sequence[Example],
    pad: int,
    settings: Finetune,
) -> float:
    """Take one optimizer step; the loss is the mean over all conversation tokens of the batch."""

    def summed_loss(model: Any, micro: Sequence[Example], idle: bool) -> torch.Tensor:
        tensors = {k: v.to(accelerator.device) for k, v in collate(micro, pad).items()}
        labels = tensors.pop("labels")
        logits = model(**tensors).logits  # (B, T, V)
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            (torch.full_like(labels, IGNORED) if idle else labels)[:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    n_tokens = sum(label != IGNORED for example in batch for label in example.labels[1:])
    size = settings.micro_batch_size
    loss = gradients(accelerator, model, batch, size, n_tokens, summed_loss)
    return update(accelerator, model, optimizer, loss, settings.max_grad_norm)


def _resume(
    accelerator: Accelerator, states: Path, trained: tuple[Any, Any, Any], progress: Progress
) -> list[float]:
    """Load the newest saved state; give the losses of the steps it has behind it."""
    saved = newest_everywhere(accelerator, states, progress.say)
    if saved is None:
        return []
    progress.say(f"  resuming from {saved.path.name}")
    load_state(accelerator, saved, trained)
    return list(saved.facts["losses"])


def _save(
    accelerator: Accelerator,
    model: Any,
    tokenizer: Any,
    recipe: Recipe,
    out: Callable[[Callable[[Path], None]], None],
) -> None:
    accelerator.wait_for_everyone()
    plain = accelerator.unwrap_model(model)
    weights = accelerator.get_state_dict(model)  # gathers what FSDP has spread
    if not accelerator.is_main_process:
        return
    if recipe.finetune.lora is not None:
        plain = plain.merge_and_unload()
        weights = None
    plain.config.use_cache = True

    def fill(folder: Path) -> None:
        with causal_lm.quiet_bars():
            plain.save_pretrained(folder, state_dict=weights)
        tokenizer.save_pretrained(folder)

    out(fill)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
