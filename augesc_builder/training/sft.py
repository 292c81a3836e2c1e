"""Fine-tuning of causal LMs by TRL's ``SFTTrainer``: messages through a chat template.

Data, histories and evaluation are those of encoder-decoders; the loss is that of the responses.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from augesc_builder.config.training import Config, Model, Phase
from augesc_builder.dialog.encoding import PLAIN_TEMPLATE, Encoder
from augesc_builder.dialog.examples import Pair, epoch_order
from augesc_builder.dialog.folder import model_folder, write_facts
from augesc_builder.errors import MissingExtraError, TrainingError, install_extra
from augesc_builder.models.causal_lm import quiet_bars
from augesc_builder.models.dialog import check_method, load, load_model
from augesc_builder.models.training_step import checkpoint_activations
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.progress import Bar, Progress
from augesc_builder.run.states import newest_state, seal
from augesc_builder.training.lengths import Length
from augesc_builder.training.loop import Mixed, Outputs, TrainingState


def train_sft(
    config: Config,
    start: Model,
    phases: Sequence[Mixed],
    validation: Sequence[Pair],
    outputs: Outputs,
    out: Path,
    progress: Progress,
    lengths: Mapping[str, Length],
) -> TrainingState:
    """Train phase by phase; within one, TRL resumes from its newest checkpoint.

    ``lengths`` has those that are given, by the phase's name.

    Raises :class:`~augesc_builder.errors.MissingExtraError` without TRL, and
    :class:`~augesc_builder.errors.TrainingError` where the batch cannot be split over the processes
    or a loss is not finite.
    """
    try:
        import trl  # noqa: F401 - asked for before anything is loaded
    except ImportError:
        raise MissingExtraError(f"method: sft needs TRL: {install_extra('sft')}") from None
    state = TrainingState()
    names = list(config.phases)
    for number, (name, phase) in enumerate(config.phases.items()):
        if number == 0:
            model, tokenizer = load_model(start, [], config.seed)
        else:
            model, tokenizer = load(out / model_folder(names[number - 1]))
        check_method(config.method, model)
        if config.machine.gradient_checkpointing:
            model.config.use_cache = False
            checkpoint_activations(model)
        if not tokenizer.chat_template and config.model.chat_template:
            plain = config.model.chat_template == "plain"
            tokenizer.chat_template = PLAIN_TEMPLATE if plain else config.model.chat_template
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        encoder = Encoder(model, tokenizer, config.examples)
        mixed, reports = phases[number], _Reports(name, progress, lengths.get(name))
        order = epoch_order(
            [len(pairs) for pairs in mixed.sets], mixed.weights, f"{config.seed}/{number}"
        )
        examples = _dataset([mixed.sets[i][j] for i, j in order], encoder)
        trainer = _trainer(
            config,
            name,
            phase,
            model,
            tokenizer,
            outputs,
            reports,
            examples,
            _dataset(validation, encoder),
            lengths.get(name),
        )
        with quiet_bars(), contextlib.closing(reports):
            trainer.train(resume_from_checkpoint=_newest(outputs.checkpoints / name, progress))
        state = _state_of(state, number, name, trainer.state)

        def fill(
            folder: Path,
            trainer: Any = trainer,
            tokenizer: Any = tokenizer,
            name: str = name,
            state: TrainingState = state,
        ) -> None:
            with quiet_bars():
                trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            write_facts(folder, config, name, state.total, state.best)

        if trainer.is_world_process_zero():
            outputs.model(name, fill)
            outputs.curve(state)
        trainer.accelerator.wait_for_everyone()
    return state


def _dataset(pairs: Sequence[Pair], encoder: Encoder) -> Dataset:
    """Return examples as TRL takes them when they are tokens already."""
    rows: dict[str, list[list[int]]] = {"input_ids": [], "completion_mask": []}
    for pair in pairs:
        example = encoder.encode(pair.history, pair.response)
        rows["input_ids"].append([*example.source, *example.target])
        rows["completion_mask"].append([0] * len(example.source) + [1] * len(example.target))
    return Dataset.from_dict(rows)


def _trainer(
    config: Config,
    name: str,
    phase: Phase,
    model: Any,
    tokenizer: Any,
    outputs: Outputs,
    reports: _Reports,
    examples: Dataset,
    validation: Dataset,
    length: Length | None,
) -> Any:
    from trl import SFTConfig, SFTTrainer

    train, machine = config.train, config.machine
    on_cpu = not torch.cuda.is_available()
    per_pass = machine.micro_batch_size * PartialState(cpu=on_cpu).num_processes
    if train.batch_size % per_pass:
        raise TrainingError(
            f"train.batch_size {train.batch_size} is no multiple of machine.micro_batch_size "
            f"{machine.micro_batch_size} times the processes; set one that is"
        )
    every = train.evaluate_every
    settings = SFTConfig(
        output_dir=str(outputs.checkpoints / name),
        num_train_epochs=phase.epochs or 1,
        max_steps=-1 if length is None else length.planned,
        learning_rate=phase.learning_rate,
        warmup_steps=phase.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm or 0.0,
        per_device_train_batch_size=machine.micro_batch_size,
        per_device_eval_batch_size=machine.micro_batch_size,
        gradient_accumulation_steps=train.batch_size // per_pass,
        gradient_checkpointing=None,  # the model is asked itself
        bf16=train.mixed_precision == "bf16",
        fp16=train.mixed_precision == "fp16",
        use_cpu=on_cpu,
        seed=config.seed % 2**32,  # NumPy takes no larger one
        max_length=None,
        completion_only_loss=True,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=every,
        save_steps=every,  # the best of them is taken: those that are validated
        # The one before stays until the newest is sealed.
        save_total_limit=machine.keep_checkpoints and max(2, machine.keep_checkpoints),
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        report_to=machine.trackers or "none",
        disable_tqdm=True,
    )
    callbacks: list[Any] = [reports]
    if train.patience is not None and not phase.is_exact:
        callbacks.append(EarlyStoppingCallback(train.patience))
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=examples,
        eval_dataset=validation,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Reports(TrainerCallback):  # type: ignore[misc]
    """Counts steps, seals checkpoints, reports validations, and stops at a non-finite loss.

    A phase of a given length, shorter than planned, ends at its last step.
    """

    def __init__(self, name: str, progress: Progress, length: Length | None) -> None:
        self._name, self._progress = name, progress
        self._last = None if length is None else length.steps
        self._bar: Bar | None = None
        self._facts: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar = self._progress.bar(state.max_steps, self._name, "step", done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(1, **self._facts)
        if state.global_step == self._last:  # validated and saved, as the last of all steps is
            control.should_evaluate = control.should_save = control.should_training_stop = True

    def close(self) -> None:
        """Count no more."""
        if self._bar is not None:
            self._bar.__exit__()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()  # each writes its random state
        if state.is_world_process_zero:
            folder = layout.trl_state_folder(Path(args.output_dir), state.global_step)
            with disk_errors(folder):
                seal(folder, {"step": state.global_step})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss, validation = ((logs or {}).get(key) for key in ("loss", "eval_loss"))
        if validation is not None:
            perplexity = math.exp(min(float(validation), 700))
            self._facts["validation_perplexity"] = perplexity
            self._progress.say(
                f"  {self._name}, step {state.global_step}: validation perplexity {perplexity:.2f}"
            )
        if loss is not None and not math.isfinite(float(loss)):
            raise TrainingError(
                f"the loss of step {state.global_step} is {loss}; lower the learning_rate of the "
                f"phase, or set train.mixed_precision to no"
            )
        if loss is not None:
            self._facts["loss"] = float(loss)


def _newest(folder: Path, progress: Progress) -> str | None:
    saved = newest_state(layout.trl_saved_states(folder), progress.say)
    return str(saved.path) if saved is not None else None


def _state_of(before: TrainingState, number: int, name: str, trainer_state: Any) -> TrainingState:
    curve = list(before.curve)
    for row in trainer_state.log_history:
        if "loss" in row:
            curve.append({"phase": name, "step": row["step"], "loss": row["loss"]})
        elif "eval_loss" in row:
            loss = row["eval_loss"]
            curve.append({"phase": name, "step": row["step"], "validation_loss": loss})
    losses = [row["eval_loss"] for row in trainer_state.log_history if "eval_loss" in row]
    return TrainingState(
        phase=number,
        step=trainer_state.global_step,
        total=before.total + trainer_state.global_step,
        done=True,
        best=min(losses) if losses else None,
        curve=curve,
        taken={**before.taken, name: Length(trainer_state.global_step, trainer_state.max_steps)},
    )
