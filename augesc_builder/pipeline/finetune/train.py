"""Fine-tuning of the backbone on few sessions (section 4.1, Training).

The loop is ``accelerate``'s: one process or many, any mixed precision, the whole model in each or
sharded by FSDP; or one process with the layers spread over its GPUs. The order of the sessions
depends on seed and epoch alone, so a killed run that resumes sees what it would have seen.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list

from augesc_builder.config.recipe import Finetune, Lora, Recipe
from augesc_builder.errors import MissingExtraError, TrainingError, install_extra
from augesc_builder.models import causal_lm
from augesc_builder.models.allocation import memory_kept
from augesc_builder.models.backbone import place_of
from augesc_builder.models.training_state import newest_everywhere
from augesc_builder.models.training_step import (
    checkpoint_activations,
    make_accelerator,
    mixed_precision,
)
from augesc_builder.pipeline.finetune.examples import (
    Example,
    encode_all,
    held_out,
    sample_sessions,
)
from augesc_builder.pipeline.finetune.learner import Learner
from augesc_builder.run.progress import Progress
from augesc_builder.run.states import SavedState
from augesc_builder.sources.base import Session
from augesc_builder.text.prompt_form import prompt_form, template_of


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
    steps, losses (mean per token, natural logarithm), the type of the arithmetic.

    Raises :class:`~augesc_builder.errors.TrainingError` for a loss that is not finite, and for
    processes or GPUs that the settings cannot be spread over;
    :class:`~augesc_builder.errors.CheckpointError` where all saved states are damaged.
    """
    settings = recipe.finetune
    accelerator, saved = _accelerator(settings, states, progress)
    first: list[Any] = [None]
    if accelerator.is_main_process:
        chosen = sample_sessions(sessions, settings.n_sessions, recipe.seed)
        held = held_out(sessions, chosen, settings.held_out, recipe.seed)
        first = [(chosen, held, recipe.backbone.revision)]
    chosen, held, revision = broadcast_object_list(first)[0]
    model, tokenizer = _backbone(recipe, revision, chosen)
    model = _prepare(model, settings, recipe.seed)
    form = prompt_form(recipe.prompt, tokenizer, recipe.backbone.name or "from_scratch")
    _check_grounds(recipe, chosen)
    examples, unseen = (
        [encode_all(session, form, settings.max_tokens) for session in drawn]
        for drawn in (chosen, held)
    )
    plan = list(_batches(len(examples), settings.batch_size, settings.epochs, recipe.seed))
    learner = Learner(accelerator, model, settings, len(plan), tokenizer.eos_token_id)
    history = _History()
    if saved is not None:
        progress.say(f"  resuming from {saved.path.name}")
        learner.load(saved)
        history = _History(saved.facts["losses"], saved.facts.get("held_out", []))
    on_cpu = accelerator.device.type == "cpu"
    with (
        memory_kept() if on_cpu else contextlib.nullcontext(lambda: None) as give_back,
        progress.bar(len(plan), "fine-tuning", "step", done=len(history.losses)) as bar,
    ):

        def told(step: int, loss: float) -> None:
            bar.update(1, loss=loss)
            if step % _GIVEN_BACK == 0:
                give_back()

        _learn(learner, settings, plan, (examples, unseen), history, states, told)
    _save(accelerator, learner.model, tokenizer, recipe, out)
    accelerator.end_training()
    del model, learner
    accelerator.free_memory()  # generation needs the GPU next
    losses = history.losses
    facts = {
        "sessions": [session.session_id for session in chosen],
        "examples_cut": sum(texts[0].input_ids[-1] != form.end for texts in examples),
        "tokens_an_epoch": sum(len(e.input_ids) for texts in examples for e in texts),
        "steps": len(plan),
        "mixed_precision": accelerator.mixed_precision,
        "first_loss": round(losses[0], 4),
        "last_epoch_loss": round(_mean(losses[-math.ceil(len(plan) / settings.epochs) :]), 4),
    }
    if held:
        before, *after = (round(loss, 4) for loss in history.held_out)
        ids = [session.session_id for session in held]
        facts["held_out"] = {"sessions": ids, "loss_before": before, "losses": after}
    return facts


_GIVEN_BACK = 8
"""Optimizer steps after which the memory that is free at that moment is given back, on CPUs."""


@dataclass
class _History:
    """Losses so far, of the steps, and on held-out sessions: before any, and after each epoch.

    Its fields are names on disk, in the facts of states.
    """

    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)


def _learn(
    learner: Learner,
    settings: Finetune,
    plan: Sequence[Sequence[int]],
    sets: tuple[Sequence[Sequence[Example]], Sequence[Sequence[Example]]],
    history: _History,
    states: Path,
    told: Callable[[int, float], None],
) -> None:
    """Take the steps of the plan that the history lacks, and record them there.

    ``sets`` are the examples of each session that is learned from, and of those held out; ``told``
    hears of each step and its loss.
    """
    examples, unseen = sets[0], [*chain.from_iterable(sets[1])]
    an_epoch = len(plan) // settings.epochs
    if unseen and not history.held_out:
        history.held_out.append(learner.loss_on(unseen))
    for step in range(len(history.losses) + 1, len(plan) + 1):
        loss = learner.step([*chain.from_iterable(examples[i] for i in plan[step - 1])])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of step {step} is {loss}; lower finetune.learning_rate "
                f"({settings.learning_rate}) or set finetune.mixed_precision to no"
            )
        history.losses.append(loss)
        if unseen and step % an_epoch == 0:
            history.held_out.append(learner.loss_on(unseen))
        told(step, loss)
        every = settings.save_state_every
        if every and step % every == 0 and step < len(plan):
            learner.save(states, step, asdict(history))


def _accelerator(
    settings: Finetune, states: Path, progress: Progress
) -> tuple[Accelerator, SavedState | None]:
    """Make the accelerator, and find the state to resume from, in whose arithmetic it goes on."""
    accelerator = make_accelerator(mixed_precision=mixed_precision(settings.mixed_precision))
    _check_launch(accelerator, settings)
    saved = newest_everywhere(accelerator, states, progress.say)
    first = accelerator.mixed_precision if saved is None else saved.facts.get("mixed_precision")
    (agreed,) = broadcast_object_list([first])  # processors differ
    if agreed not in (None, accelerator.mixed_precision):
        accelerator = make_accelerator(mixed_precision=agreed)
    return accelerator, saved


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


def _check_grounds(recipe: Recipe, sessions: Sequence[Session]) -> None:
    """Refuse a prompt that asks for what no session has: the model would not learn to write it."""
    for key, name, found in (
        ("background", "situation", any(s.situation for s in sessions)),
        ("strategies", "strategy", any(s.strategies for s in sessions)),
    ):
        if getattr(recipe.prompt, key) and not found:
            raise TrainingError(
                f"prompt.{key}: none of the {len(sessions):,} sessions of "
                f"{recipe.finetune.sessions} has a {name}; give sessions that have, such as "
                f"esconv, or set it to false"
            )


def _backbone(recipe: Recipe, revision: str | None, sessions: Sequence[Session]) -> tuple[Any, Any]:
    origin, settings = recipe.backbone, recipe.finetune
    if origin.from_scratch is not None:
        template = template_of(recipe.prompt)
        texts = [
            template.for_session(s.messages, s.situation if template.background else None)
            for s in sessions
        ]
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
        raise MissingExtraError(f"finetune.lora needs peft: {install_extra('lora')}") from None
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
