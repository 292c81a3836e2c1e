"""A training from config to model folder: data, phases, card; a killed one resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augesc_builder.config.training import Config, Mix, Model, dump_config
from augesc_builder.dialog.examples import (
    Pair,
    check_problem_types,
    epoch_order,
    read_pairs,
    session_files,
    without,
)
from augesc_builder.dialog.folder import model_folder
from augesc_builder.dialog.labelled import labels_of, read_labelled
from augesc_builder.errors import MissingExtraError, TrainingError, install_extra
from augesc_builder.models.causal_lm import check_folder
from augesc_builder.models.dialog import check_method, load, load_model
from augesc_builder.models.sequence_classifier import freeze_below, load_to_train
from augesc_builder.readers.hub import resolve_model
from augesc_builder.run import layout
from augesc_builder.run.disk import disk_errors
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.run.provenance import digest
from augesc_builder.run.versions import versions
from augesc_builder.run.workers import launch_rank
from augesc_builder.training import folders
from augesc_builder.training.card import render_model_card
from augesc_builder.training.lengths import given_lengths, lengths_as
from augesc_builder.training.loop import Fill, Mixed, Outputs, Training, TrainingState
from augesc_builder.training.task import LabelTask, ResponseTask, Task


@dataclass(frozen=True)
class TrainingData:
    """The examples of every phase and those of validation; of a classifier also its labels."""

    phases: list[Mixed]
    validation: list[Any]
    labels: Sequence[str] = ()


def train(
    config: Config, out: Path, progress: Progress, *, resume_from: Path | None = None
) -> None:
    """Train by a config into ``out``; a killed training resumes from its last checkpoint.

    ``resume_from`` is another checkpoint to resume from, of this training or of one with the same
    config. Under ``accelerate launch`` the first process writes everything.

    Raises :class:`~augesc_builder.errors.TrainingError` where it cannot start or continue,
    :class:`~augesc_builder.errors.CheckpointError` where the model cannot be loaded or
    ``resume_from`` is no checkpoint, :class:`~augesc_builder.errors.InputError` for sessions that
    cannot be read, and :class:`~augesc_builder.errors.RunFolderError` where ``out`` cannot be used.
    """
    check_trackers(config)
    if resume_from is not None and config.method == "sft":
        raise TrainingError(
            "--resume-from is for methods seq2seq and classifier; sft takes the newest in OUT"
        )
    rank = launch_rank()
    saved = None
    if resume_from is not None and not rank:
        saved, place = folders.check_checkpoint(resume_from, config)
    data = read_data(config)
    if rank:
        _train(config, pinned(config, out), data, _silent(out), out, Progress(quiet=True))
        return
    with RunFolder(out, run_settings(config), progress) as run:
        if run.is_complete("train"):
            progress.say(f"{out} is complete: nothing to do. Its model is {_model_of(config, out)}")
            return
        run.begin("train")
        run.keep(layout.TRAINING_CONFIG, dump_config(config))
        run.record(name=config.name, seed=config.seed, versions=versions())
        start = pinned(config, out)
        if start.revision is not None:
            run.add(revisions={"model": start.revision})
        if saved is not None:
            with disk_errors(out):
                folders.adopt_checkpoint(saved, place.total, run)
        n = [sum(map(len, mixed.sets)) for mixed in data.phases]
        progress.say(
            f"{config.name}: {' then '.join(f'{k:,}' for k in n)} examples, "
            f"{len(data.validation):,} for validation"
        )
        with disk_errors(out):
            state = _train(config, start, data, _outputs(run), out, progress)
        _finish(config, data, state, run)
        progress.say(f"The model is {_model_of(config, out)}")


def read_data(config: Config) -> TrainingData:
    """Read every set of sessions of a config, its left-out problem types left out.

    Raises :class:`~augesc_builder.errors.InputError` where sessions cannot be read, or have not
    the labels that a classifier needs, and :class:`~augesc_builder.errors.TrainingError` where
    weights leave no example.
    """
    read: dict[str, list[Any]] = {}
    reader: Callable[..., list[Any]] = (
        read_labelled if config.method == "classifier" else read_pairs
    )

    def pairs(mix: Mix) -> Mixed:
        for item in mix:
            if item.path not in read:
                read[item.path] = reader(item.path, config.data, config.examples)
        left_out = config.data.leave_out
        sets = [without(read[item.path], left_out, item.path) for item in mix]
        return Mixed(sets, [item.weight for item in mix])

    phases = []
    for name, phase in config.phases.items():
        mixed = pairs(phase.sessions)
        if not epoch_order([len(pairs) for pairs in mixed.sets], mixed.weights, name):
            raise TrainingError(
                f"phases.{name}.sessions: the weights leave no example; give larger ones"
            )
        phases.append(mixed)
    validation = pairs(config.data.validation)
    check_problem_types([pair for every in read.values() for pair in every], config.data.leave_out)
    sizes = [len(some) for some in validation.sets]
    order = epoch_order(sizes, validation.weights, f"{config.seed}/validation")
    chosen = [validation.sets[i][j] for i, j in sorted(order)]
    if not chosen:
        raise TrainingError("data.validation: the weights leave no example; give larger ones")
    if config.method != "classifier":
        return TrainingData(phases, chosen)
    learned = [one for mixed in phases for some in mixed.sets for one in some]
    return TrainingData(phases, chosen, labels_of(learned, chosen, "data.validation"))


def run_settings(config: Config) -> dict[str, Any]:
    """Return what must not change while a folder is filled: settings and local inputs.

    Raises :class:`~augesc_builder.errors.TrainingError` where another training, whose steps are to
    be taken, does not tell them.
    """
    paths = {
        item.path
        for mix in (config.data.validation, *(p.sessions for p in config.phases.values()))
        for item in mix
    }
    inputs = {path: digest(session_files(path, config.data)) for path in sorted(paths)}
    settings = {"stage": "train", **config.fixed(), "inputs": inputs}
    if others := lengths_as(config):  # another number of steps is another training
        settings["lengths"] = {name: asdict(one) for name, one in others.items()}
    return settings


def check_trackers(config: Config) -> None:
    """Refuse trackers that accelerate does not know or that are not installed.

    Raises :class:`~augesc_builder.errors.TrainingError` for the first, and
    :class:`~augesc_builder.errors.MissingExtraError` for the second.
    """
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    known = [name for name in map(str, LoggerType.list()) if name != "all"]
    for name in config.machine.trackers:
        if name not in known:
            raise TrainingError(
                f"machine.trackers: {name!r} is no tracker of accelerate; expected some of "
                f"{', '.join(known)}"
            )
        if name not in {str(tracker.value) for tracker in get_available_trackers()}:
            line = install_extra("train") if name == "tensorboard" else f"pip install {name}"
            raise MissingExtraError(
                f"machine.trackers: {name} is not installed: {line}, or set machine.trackers=[]"
            )


def pinned(config: Config, out: Path) -> Model:
    """Return the model to start from, at the commit that this training began with."""
    model = config.model
    if model.name is None or Path(model.name).exists():
        return model
    check_folder(model.name)
    known = read_manifest(out).get("revisions", {}) if (out / layout.MANIFEST).exists() else {}
    commit = known.get("model") or resolve_model(model.name, model.revision, "model.name")
    return model.model_copy(update={"revision": commit})


def _train(
    config: Config,
    start: Model,
    data: TrainingData,
    outputs: Outputs,
    out: Path,
    progress: Progress,
) -> TrainingState:
    lengths = given_lengths(config)
    if config.method == "sft":
        from augesc_builder.training.sft import train_sft

        return train_sft(
            config, start, data.phases, data.validation, outputs, out, progress, lengths
        )

    training = Training(config, data.validation, outputs, progress)
    names = list(config.phases)
    first = training.state.phase + training.state.done
    for number, mixed in enumerate(data.phases):
        if number < first:
            continue
        before = out / model_folder(names[number - 1]) if number else None
        begun = _begun(config, start, data, before)
        training.run_phase(number, mixed, *begun, lengths.get(names[number]))
    training.end()
    return training.state


def _begun(
    config: Config, start: Model, data: TrainingData, before: Path | None
) -> tuple[Any, Any, Task]:
    """Return what a phase begins with: model, tokenizer, and what is made of examples for them.

    ``before`` is the model of the phase before it.
    """
    if config.method == "classifier":
        name, revision = (str(start.name), start.revision) if before is None else (before, None)
        model, tokenizer = load_to_train(
            *(str(name), revision, start.tokenizer, data.labels, config.seed)
        )
        if start.trainable_layers is not None:
            freeze_below(model, start.trainable_layers)
        return model, tokenizer, LabelTask(model, tokenizer, config.examples)
    if before is None:
        model, tokenizer = load_model(start, _texts(data.phases[0].sets), config.seed)
    else:
        model, tokenizer = load(before)
    check_method(config.method, model)
    return model, tokenizer, ResponseTask(model, tokenizer, config.examples)


def _texts(sets: Sequence[Sequence[Pair]]) -> list[str]:
    """Return every utterance once, session by session."""
    sessions = {id(pair.session): pair.session for pairs in sets for pair in pairs}
    return [m["content"] for session in sessions.values() for m in session.messages]


def _outputs(run: RunFolder) -> Outputs:
    def curve(state: TrainingState) -> None:
        run.keep(layout.CURVE, "".join(json.dumps(row) + "\n" for row in state.curve))

    def model(phase: str, fill: Fill) -> None:
        run.keep(model_folder(phase), fill)

    checkpoints = run.path / layout.CHECKPOINTS
    return Outputs(checkpoints, run.path / layout.LOGS, model, curve)


def _silent(out: Path) -> Outputs:
    return Outputs(
        out / layout.CHECKPOINTS,
        out / layout.LOGS,
        lambda _, __: None,
        lambda _: None,
    )


def _finish(config: Config, data: TrainingData, state: TrainingState, run: RunFolder) -> None:
    """Write the card and the mark."""
    name = model_folder(list(config.phases)[-1])
    facts: dict[str, Any] = {
        "model": name,
        "steps": state.total,
        "phases": {phase: asdict(length) for phase, length in state.taken.items()},
        "validation_loss": state.best,
        "examples": [sum(map(len, mixed.sets)) for mixed in data.phases],
        "validation_examples": len(data.validation),
    }
    if data.labels:
        facts["labels"] = list(data.labels)
    elif state.best is not None:
        facts["validation_perplexity"] = math.exp(state.best)
    card = render_model_card(config, facts, run.manifest)
    run.write_text(f"{name}/README.md", card)
    run.complete("train", **facts)


def _model_of(config: Config, out: Path) -> Path:
    return out / model_folder(list(config.phases)[-1])
