"""What a saved state of a training holds: tensors as safetensors, all else as JSON, no pickle.

Unpickling runs code, and states are handed on: so ``accelerate``'s own format, which pickles, is
not used. Tensors go by the names of the parameters, so it does not matter how many processes or
devices the model is spread over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from augesc_builder.errors import CheckpointError
from augesc_builder.models.causal_lm import brief
from augesc_builder.run import layout
from augesc_builder.run.states import SavedState, newest_state, write_state

Tensors = dict[str, torch.Tensor]

_WEIGHTS, _OPTIMIZER, _RANDOM = "weights.safetensors", "optimizer.safetensors", "random.safetensors"
_SCHEDULE = "schedule.json"


def save_state(
    accelerator: Accelerator,
    states: Path,
    step: int,
    trained: tuple[Any, Any, Any],
    facts: Mapping[str, Any],
    keep: int | None = 2,
) -> None:
    """Save all that a killed training needs to resume, from every process of it.

    ``trained`` are model, optimizer and schedule; ``facts`` are plain JSON values. Frozen weights
    are left out.

    Raises :class:`~augesc_builder.errors.DiskError` where the disk is full or not writable.
    """
    model, optimizer, schedule = trained
    found = get_state_dict(model, optimizer.optimizer, options=_options(accelerator))
    weights, moments = cast("tuple[Tensors, dict[str, Any]]", found)
    random = gather_object([_random_states()])
    if accelerator.is_main_process:
        scaler = accelerator.scaler

        def fill(folder: Path) -> None:
            save_file(_apart(weights), folder / _WEIGHTS)
            save_file(_apart(_flat(moments["state"])), folder / _OPTIMIZER)
            save_file(_flat(dict(enumerate(random))), folder / _RANDOM)
            values = {
                "schedule": schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            (folder / _SCHEDULE).write_text(json.dumps(values), encoding="utf-8")

        write_state(states, step, facts, fill, keep)
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, saved: SavedState, trained: tuple[Any, Any, Any]) -> None:
    """Put a saved state into model, optimizer and schedule, and the random states of processes.

    A process that there was none of when it was saved keeps its own random state.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it is the state of another model.
    """
    model, optimizer, schedule = trained
    weights: dict[str, Any] = {}
    moments: dict[str, Any] = {}
    read: list[Any] = [None]
    if accelerator.is_main_process:
        with _foreign(saved.path):
            weights = load_file(saved.path / _WEIGHTS)
            state = _nested(load_file(saved.path / _OPTIMIZER))
            _check_fit(accelerator.unwrap_model(model), weights, state)
            moments = {"state": state, "param_groups": _groups(optimizer.optimizer, state)}
            values = json.loads((saved.path / _SCHEDULE).read_text(encoding="utf-8"))
            read = [(values, _nested(load_file(saved.path / _RANDOM)))]
    # Not both by `set_state_dict`: a process without weights would take it to be for the optimizer.
    options = _options(accelerator, loading=True)
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimizer.optimizer, moments, options=options)
    values, random = broadcast_object_list(read)[0]
    with _foreign(saved.path):
        if values["schedule"].keys() != schedule.state_dict().keys():
            raise ValueError("it has another schedule")
        schedule.load_state_dict(values["schedule"])
        for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = float(rate)
        if accelerator.scaler is not None and values["scaler"]:
            accelerator.scaler.load_state_dict(values["scaler"])
        _set_random_states(random.get(str(accelerator.process_index), {}))


def newest_everywhere(
    accelerator: Accelerator, states: Path, say: Callable[[str], None]
) -> SavedState | None:
    """Return the newest state that is whole, the same in every process; only the first reads.

    Raises :class:`~augesc_builder.errors.CheckpointError` where all there are are damaged.
    """
    found: list[SavedState | None] = [None]
    if accelerator.is_main_process:
        found = [newest_state(layout.saved_states(states), say)]
    broadcast_object_list(found)
    return found[0]


@contextlib.contextmanager
def _foreign(path: Path) -> Iterator[None]:
    """Tell what a state of another training, or one made up, leads to."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no state of this training: {brief(error)}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {brief(error)}") from error


def _options(accelerator: Accelerator, *, loading: bool = False) -> StateDictOptions:
    """Let the first process have all of what several share; a single one's may be on many GPUs."""
    several = accelerator.num_processes > 1
    return StateDictOptions(
        full_state_dict=several,
        cpu_offload=several,
        broadcast_from_rank0=several and loading,
        ignore_frozen_params=True,
        strict=False,  # for the frozen ones; what is loaded is checked before
    )


def _check_fit(model: Any, weights: Tensors, state: Mapping[str, Tensors]) -> None:
    """Refuse weights and moments that are not this model's; raises :class:`ValueError`."""
    ours = {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if missing := sorted(trained - weights.keys()):
        raise ValueError(f"it lacks the weights {missing[0]}")
    if unknown := sorted(weights.keys() - ours.keys()) or sorted(state.keys() - trained):
        raise ValueError(f"the model has no weights {unknown[0]}")
    for name, tensor in weights.items():
        moments = (m for m in state.get(name, {}).values() if m.dim())
        for each in (tensor, *moments):
            if each.shape != ours[name].shape:
                raise ValueError(
                    f"{name} is {tuple(each.shape)} there, {tuple(ours[name].shape)} here"
                )


def _groups(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensors]) -> list[Any]:
    """Return the settings of the optimizer's one group, as the config has them."""
    (group,) = optimizer.param_groups
    return [{**{k: v for k, v in group.items() if k != "params"}, "params": list(state)}]


def _random_states() -> Tensors:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        on_gpus = torch.cuda.get_rng_state_all()
        states |= {f"cuda:{i}": state for i, state in enumerate(on_gpus)}
    return states


def _set_random_states(states: Mapping[str, torch.Tensor]) -> None:
    for device, state in states.items():
        if device == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available() and torch.device(device).index < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)


def _apart(tensors: Tensors) -> Tensors:
    """Copy what shares memory, as tied weights do: safetensors refuses it."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        apart[name] = tensor.clone() if shared else tensor.contiguous()
    return apart


def _flat(groups: Mapping[Any, Tensors]) -> Tensors:
    return {f"{a}/{b}": tensor for a, group in groups.items() for b, tensor in group.items()}


def _nested(tensors: Tensors) -> dict[str, Tensors]:
    groups: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        group, _, key = name.rpartition("/")
        groups.setdefault(group, {})[key] = tensor
    return groups
