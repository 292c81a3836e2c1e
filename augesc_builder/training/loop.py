"""Fine-tuning of encoder-decoders and classifiers: phases, validation, early stopping, resume.

The loop is ``accelerate``'s: one process or many, any mixed precision, any of its config files. The
loss of a step is the mean over all that is to be told of its batch (:mod:`.task`), however that is
split.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from pydantic import TypeAdapter, ValidationError
from transformers import get_linear_schedule_with_warmup

from augesc_builder.config.base import NotNegative
from augesc_builder.config.training import Config, Phase
from augesc_builder.dialog.examples import epoch_order
from augesc_builder.dialog.folder import write_facts
from augesc_builder.errors import CheckpointError, TrainingError
from augesc_builder.models.causal_lm import quiet_bars
from augesc_builder.models.training_state import load_state, newest_everywhere, save_state
from augesc_builder.models.training_step import (
    checkpoint_activations,
    gradients,
    loss_on,
    make_accelerator,
    update,
)
from augesc_builder.run.progress import Progress
from augesc_builder.run.states import SavedState
from augesc_builder.training.lengths import Length
from augesc_builder.training.task import Task

Fill = Callable[[Path], None]


@dataclass
class TrainingState:
    """How far a training is; what a checkpoint holds beside weights and optimizer.

    Its fields are names on disk, in the facts of checkpoints.
    """

    phase: NotNegative = 0
    step: NotNegative = 0
    """Steps done in the phase."""
    total: NotNegative = 0
    """Steps done in all phases."""
    done: bool = False
    """Whether the phase is over."""
    best: float | None = None
    validations_since_best: int = 0
    """Validations since the best one."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    taken: dict[str, Length] = field(default_factory=dict)
    """How long each phase was until now, by its name."""


def place_of(saved: SavedState, n_phases: int) -> TrainingState:
    """Return how far a saved state of a training of so many phases is.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it does not say so.
    """
    try:
        place = TypeAdapter(TrainingState).validate_python(saved.facts.get("place"))
        if place.phase < n_phases:
            return place
        why = f"it is in phase {place.phase + 1} of {n_phases}"
    except ValidationError as error:
        why = error.errors()[0]["msg"]
    raise CheckpointError(f"{saved.path} is no state of `augesc train`: {why}")


@dataclass(frozen=True)
class Mixed:
    """The sets that a phase mixes, and their weights."""

    sets: Sequence[Sequence[Any]]
    weights: Sequence[float]


@dataclass(frozen=True)
class Outputs:
    """Where a training writes; in processes but the first the functions do nothing."""

    checkpoints: Path
    logs: Path
    model: Callable[[str, Fill], None]
    """Write the folder of a phase's best model."""
    curve: Callable[[TrainingState], None]
    """Write the losses so far."""


class Training:
    """One training, of one model or of one after the other; it resumes from its newest checkpoint.

    Raises :class:`~augesc_builder.errors.CheckpointError` where all checkpoints are damaged, and
    later :class:`~augesc_builder.errors.TrainingError` where a loss is not finite or one example is
    out of memory.
    """

    def __init__(
        self,
        config: Config,
        validation: Sequence[Any],
        outputs: Outputs,
        progress: Progress,
    ) -> None:
        self.config, self.outputs, self.progress = config, outputs, progress
        self.validation = validation
        self.micro_batch_size = config.machine.micro_batch_size
        self.accelerator = make_accelerator(
            mixed_precision=config.train.mixed_precision,
            log_with=config.machine.trackers or None,
            project_dir=str(outputs.logs),
        )
        self.resume_from = newest_everywhere(self.accelerator, outputs.checkpoints, progress.say)
        self.state = TrainingState()
        if self.resume_from is not None:
            self.state = place_of(self.resume_from, len(config.phases))
            progress.say(f"  resuming from {self.resume_from.path.name}")
        purge = {"tensorboard": {"purge_step": self.state.total + 1}} if self.state.total else {}
        if config.machine.trackers:
            self.accelerator.init_trackers(
                config.name, {"name": config.name, "seed": config.seed}, init_kwargs=purge
            )

    def run_phase(
        self,
        number: int,
        mixed: Mixed,
        model: Any,
        tokenizer: Any,
        task: Task,
        length: Length | None = None,
    ) -> None:
        """Train a model to the end of a phase, or to early stopping; write its best checkpoint.

        A phase of a given ``length`` is exactly so long.
        """
        name, phase = list(self.config.phases.items())[number]
        plan = _Plan(self.config, number, phase, mixed, length)
        self.task, self.tokenizer, self.name = task, tokenizer, name
        model.config.use_cache = False
        if self.config.machine.gradient_checkpointing:
            checkpoint_activations(model)
        torch.manual_seed(self.config.seed)  # dropout
        optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=phase.learning_rate,
            weight_decay=self.config.train.weight_decay,
        )
        planned = plan.length.planned
        schedule = get_linear_schedule_with_warmup(optimizer, phase.warmup_steps, planned)
        # The schedule is not prepared: then it would step once for each process, and it counts
        # batches.
        model, optimizer = self.accelerator.prepare(model, optimizer)
        trained = (model, optimizer, schedule)
        if self.resume_from is not None and self.state.phase == number:
            load_state(self.accelerator, self.resume_from, trained)
        else:
            before = self.state
            self.state = TrainingState(
                phase=number, total=before.total, curve=before.curve, taken=before.taken
            )
        self.resume_from = None  # phases after this one begin anew
        model.train()
        n_steps = plan.length.steps
        with self.progress.bar(n_steps, name, "step", done=self.state.step) as bar:
            # What is skipped was trained on before the kill: the order depends on the seed alone.
            for batch in islice(plan.batches(), self.state.step, n_steps):
                if self.state.done:
                    break
                rate = schedule.get_last_lr()[0]
                loss = self._step(model, optimizer, batch)
                schedule.step()
                self.state.step += 1
                self.state.total += 1
                self.state.taken[name] = Length(self.state.step, planned)
                self._log(loss=loss, learning_rate=rate)
                best = self.state.best
                known = {} if best is None else dict([self._told("best", best)])
                bar.update(1, loss=loss, **known)
                self._after_step(trained, phase, last=self.state.step == n_steps)
        model, optimizer = self.accelerator.free_memory(model, optimizer)

    def _step(self, model: Any, optimizer: Any, batch: Sequence[Any]) -> float:
        examples, n_told = self._encoded(batch)
        while True:
            # Nothing of a failed attempt may be held when its memory is needed again.
            if (loss := self._try(model, examples, n_told)) is not None:
                break
            optimizer.zero_grad()
            self._halve()
        value = float(self.accelerator.reduce(loss, "sum"))
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss of step {self.state.step + 1} is {value}; lower "
                f"phases.{self.name}.learning_rate, or set train.mixed_precision to no; the best "
                f"model and the checkpoints so far are kept"
            )
        update(self.accelerator, model, optimizer, loss, self.config.train.max_grad_norm)
        return value

    def _encoded(self, batch: Sequence[Any]) -> tuple[list[Any], int]:
        """Return examples as the task has them, and of how much their loss is the mean."""
        examples = [self.task.encode(example) for example in batch]
        examples.sort(key=lambda example: -self.task.length(example))  # little padding
        return examples, sum(map(self.task.n_told, examples))

    def _try(self, model: Any, examples: Sequence[Any], n: int) -> torch.Tensor | None:
        """Return the loss, with its gradients computed; ``None`` where out of memory."""
        try:
            return gradients(
                self.accelerator, model, examples, self.micro_batch_size, n, self._summed
            )
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
                raise
            return None

    def _halve(self) -> None:
        size, smaller = self.micro_batch_size, self.micro_batch_size // 2
        if not smaller:
            raise TrainingError(
                "out of memory with one example at a time; lower examples.max_source_tokens, set "
                "machine.gradient_checkpointing=true, or take a smaller model"
            )
        if self.accelerator.num_processes > 1:  # the others are in the middle of the same step
            raise TrainingError(
                f"out of memory with machine.micro_batch_size {size}; run the same command with "
                f"--set machine.micro_batch_size={smaller}, it resumes from the last checkpoint"
            )
        self.micro_batch_size = smaller
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.progress.say(
            f"  out of memory with {size} examples at a time: continuing with {smaller}; an "
            f"optimizer step still takes {self.config.train.batch_size}"
        )

    def _summed(self, model: Any, micro: Sequence[Any], idle: bool) -> torch.Tensor:
        return self.task.summed_loss(model, micro, idle, self.accelerator.device)

    def _told(self, when: str, loss: float) -> tuple[str, float]:
        """Return what a loss is called and is, as people are told of it."""
        name, value = self.task.told(loss)
        return f"{when}_{name}", value

    def _after_step(self, trained: tuple[Any, Any, Any], phase: Phase, *, last: bool) -> None:
        """Validate, stop early, and save, where it is time."""
        model, _, _ = trained
        state, train, machine = self.state, self.config.train, self.config.machine
        if last or state.step % train.evaluate_every == 0:
            loss = self._validate(model)
            name, value = self._told("validation", loss)
            self._log(**{"validation_loss": loss, name: value})
            if state.best is None or loss < state.best:
                state.best, state.validations_since_best = loss, 0
                self._write_best(model)
            else:
                state.validations_since_best += 1
            self.outputs.curve(state)
            patience = None if phase.is_exact else train.patience
            stop = patience is not None and state.validations_since_best >= patience
            ends = " (early stopping: the phase ends)" if stop and not last else ""
            self.progress.say(
                f"  {self.name}, step {state.step}: {name.replace('_', ' ')} {value:.2f}{ends}"
            )
            state.done = last or stop
        if state.done or state.step % machine.save_every == 0:
            facts = {"place": asdict(state), "settings": self.config.fixed()}
            save_state(
                self.accelerator,
                self.outputs.checkpoints,
                state.total,
                trained,
                facts,
                machine.keep_checkpoints,
            )

    def _validate(self, model: Any) -> float:
        """Return the mean loss of the validation set, over all processes."""
        examples, n_told = self._encoded(self.validation)
        loss = loss_on(
            self.accelerator, model, examples, self.micro_batch_size, n_told, self._summed
        )
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss of step {self.state.step} is {loss}")
        return loss

    def _write_best(self, model: Any) -> None:
        # In every process: it gathers what FSDP has sharded.
        weights = self.accelerator.get_state_dict(model)
        plain = self.accelerator.unwrap_model(model)

        def fill(folder: Path) -> None:
            plain.config.use_cache = True
            with quiet_bars():
                plain.save_pretrained(folder, state_dict=weights)
            plain.config.use_cache = False
            self.tokenizer.save_pretrained(folder)
            write_facts(folder, self.config, self.name, self.state.total, self.state.best)

        if self.accelerator.is_main_process:
            self.outputs.model(self.name, fill)
        self.accelerator.wait_for_everyone()

    def _log(self, **values: float) -> None:
        row = {"phase": self.name, "step": self.state.step, **values}
        self.state.curve.append(row)
        if self.config.machine.trackers:
            scoped = {f"{self.name}/{key}": value for key, value in values.items()}
            self.accelerator.log(scoped, step=self.state.total)

    def end(self) -> None:
        """Close the trackers."""
        self.accelerator.end_training()


class _Plan:
    """The batches of a phase, in their order, and how many of them there are."""

    def __init__(
        self, config: Config, number: int, phase: Phase, mixed: Mixed, length: Length | None
    ) -> None:
        self._key, self._mixed = f"{config.seed}/{number}", mixed
        self._size = config.train.batch_size
        self._sizes = [len(pairs) for pairs in mixed.sets]
        if length is None:
            in_epoch = len(epoch_order(self._sizes, mixed.weights, self._key))
            n_steps = (phase.epochs or 1) * math.ceil(in_epoch / self._size)
            length = Length(n_steps, n_steps)
        self.length = length

    def batches(self) -> Iterator[list[Any]]:
        """Yield the examples of each step, epoch after epoch without end."""
        for epoch in count():
            order = epoch_order(self._sizes, self._mixed.weights, f"{self._key}/{epoch}")
            for i in range(0, len(order), self._size):
                yield [self._mixed.sets[s][j] for s, j in order[i : i + self._size]]
