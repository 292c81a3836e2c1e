"""What a saved state holds: everything that a training resumes from, and nothing that is run."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import get_linear_schedule_with_warmup

from augesc_builder.errors import CheckpointError, TrainingError
from augesc_builder.models import training_step
from augesc_builder.models.training_state import load_state, newest_everywhere, save_state
from augesc_builder.models.training_step import make_accelerator
from augesc_builder.run.states import seal
from tests.conftest import ROOT


class Tied(torch.nn.Module):
    """Two layers with one weight, a frozen one, and a buffer."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(width, width, bias=False)
        self.outer = torch.nn.Linear(width, width)
        self.outer.weight = self.inner.weight
        self.frozen = torch.nn.Linear(width, width).requires_grad_(False)
        self.register_buffer("counted", torch.zeros(2))

    def forward(self, x):
        return self.frozen(self.outer(torch.nn.functional.dropout(self.inner(x), 0.5)))


class Trained:
    """A few steps of a training, whose state can be saved and loaded."""

    def __init__(self, seed: int, width: int = 4) -> None:
        torch.manual_seed(seed)
        self.accelerator = make_accelerator()
        model = Tied(width)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=0.1)
        schedule = get_linear_schedule_with_warmup(optimizer, 2, 20)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.schedule, self.width = schedule, width

    @property
    def parts(self):
        return self.model, self.optimizer, self.schedule

    def step(self, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            loss = self.model(torch.randn(3, self.width)).square().mean()
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.step()
            self.model.counted += 1
            losses.append(loss.item())
        return losses


@pytest.fixture
def saved(tmp_path):
    """A state of three steps, and the losses of the next three."""
    trained = Trained(1)
    trained.step(3)
    save_state(trained.accelerator, tmp_path, 3, trained.parts, {"losses": [0.1]})
    return tmp_path, trained.step(3), trained


def load(trained: Trained, states: Path):
    found = newest_everywhere(trained.accelerator, states, print)
    load_state(trained.accelerator, found, trained.parts)
    return found


def test_weights_moments_rate_and_random_numbers_are_as_they_were(saved):
    states, losses, _ = saved
    other = Trained(1)
    other.step(1)  # what is loaded replaces it
    assert load(other, states).facts == {"losses": [0.1]}
    assert other.schedule.get_last_lr() == [other.optimizer.param_groups[0]["lr"]]
    assert other.model.counted.tolist() == [3, 3]
    assert other.model.inner.weight is other.model.outer.weight
    assert other.step(3) == losses


def test_frozen_weights_are_left_out(saved):
    weights = load_file(saved[0] / "step-0000003" / "weights.safetensors")
    assert set(weights) == {"inner.weight", "outer.weight", "outer.bias", "counted"}


def test_the_scale_of_fp16_is_kept(tmp_path):
    first, second = Trained(1), Trained(1)
    first.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    first.accelerator.scaler.load_state_dict(
        {**first.accelerator.scaler.state_dict(), "scale": 4.0, "_growth_tracker": 7}
    )
    first.step(1)
    save_state(first.accelerator, tmp_path, 1, first.parts, {})
    second.accelerator.scaler = torch.amp.GradScaler("cpu")
    load(second, tmp_path)
    assert second.accelerator.scaler.state_dict() == first.accelerator.scaler.state_dict()
    assert second.accelerator.scaler.get_scale() == 4.0


def test_the_state_of_another_model(saved):
    with pytest.raises(CheckpointError, match=r"inner.weight is \(4, 4\) there, \(5, 5\) here"):
        load(Trained(1, width=5), saved[0])


def resealed(states: Path) -> None:
    seal(states / "step-0000003", {"losses": []})


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("weights", lambda t: t.pop("outer.bias"), "lacks the weights outer.bias"),
        ("weights", lambda t: t.update(more=torch.ones(1)), "has no weights more"),
        ("optimizer", lambda t: t.update({"more/step": torch.ones(1)}), "has no weights more"),
        (
            "optimizer",
            lambda t: t.update({"outer.bias/exp_avg": torch.ones(3)}),
            r"outer.bias is \(3,\) there, \(4,\) here",
        ),
        ("random", lambda t: t.update({"0/cpu": torch.ones(3)}), "no state of this training"),
    ],
)
def test_tensors_that_are_not_of_this_training(saved, file, change, said):
    path = saved[0] / "step-0000003" / f"{file}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    resealed(saved[0])
    with pytest.raises(CheckpointError, match=said) as error:
        load(Trained(1), saved[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["{}", '{"schedule": {"optimizer": 1}, "scaler": null}', "[", "[1, 2]"]
)
def test_schedules_that_are_not_of_this_training(saved, text):
    (saved[0] / "step-0000003" / "schedule.json").write_text(text)
    resealed(saved[0])
    with pytest.raises(CheckpointError, match="is no state of this training"):
        load(Trained(1), saved[0])


class Writes:
    """What a stranger pickles: loading it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def test_pickles_beside_or_in_place_of_our_files_are_never_loaded(saved, tmp_path):
    states, losses, _ = saved
    folder, proof = states / "step-0000003", tmp_path / "proof"
    bait = pickle.dumps(Writes(proof))
    for name in ("optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"):
        (folder / name).write_bytes(bait)
    resealed(states)
    other = Trained(1)
    load(other, states)
    assert other.step(3) == losses
    for name in ("weights", "optimizer", "random"):
        (folder / f"{name}.safetensors").write_bytes(bait)
        resealed(states)
        with pytest.raises(CheckpointError, match="is damaged"):
            load(Trained(1), states)
    assert not proof.exists()
    pickle.loads(bait)
    assert proof.read_text() == "executed"  # the bait is one


def test_nothing_of_the_package_unpickles():
    known = re.compile(r"torch\.load\(|\bpickle\b|joblib|\.load_state\(|allow_pickle")
    for path in [*(ROOT / "augesc_builder").rglob("*.py"), *(ROOT / "training").glob("*.py")]:
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text(encoding="utf-8"))
        assert not known.search(code), path


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "launched with DeepSpeed"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "launched with Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true"}, "launched with FSDP 1"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "launched with FSDP 1"),
    ],
)
def test_launches_that_the_loops_are_not_made_for(monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=f"{said}; expected .* FSDP with fsdp_version: 2"):
        make_accelerator()


def test_the_processes_wait_for_the_first(monkeypatch):
    """It may read a dump for hours before it trains, where ten minutes are the default."""
    given = {}

    def record(**options):
        given.update(options)
        return Accelerator(**options)

    monkeypatch.setattr(training_step, "Accelerator", record)
    make_accelerator()
    (waits,) = given["kwargs_handlers"]
    assert waits.timeout.days >= 1
