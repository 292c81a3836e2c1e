"""Phases of a given number of steps, and the equal-steps control of section 7's comparison."""

from __future__ import annotations

import json

import pytest
import torch

from augesc_builder.config.training import load_config
from augesc_builder.errors import RecipeError, SettingsChangedError, TrainingError
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.progress import Progress
from augesc_builder.training.lengths import given_lengths
from augesc_builder.training.run import train
from tests.training.test_training import MINI, STEPS, StopsAfter, causal, curve_of, mini

TINY = (
    *MINI,
    "model.name=null",
    "phases.first={sessions: [{path: 'sample:train', weight: 0.05}], epochs: 1, "
    "learning_rate: 0.01, warmup_steps: 2}",
    "phases.further.learning_rate=0.005",
    "phases.further.warmup_steps=3",
    "train.mixed_precision=no",
)
AUGESC = (
    "phases.further.sessions=[{path: 'sample:test', weight: 0.3}]",
    "phases.further.epochs=3",
)


def then_augesc(*overrides):
    return load_config("esconv_then_augesc", [*TINY, *AUGESC, *overrides])


def control(other, *overrides):
    given = [f"phases.further.steps_as={other}", "phases.further.sessions=['sample:train']"]
    return load_config("esconv_equal_steps", [*TINY, *given, *overrides])


def steps_of(out, phase):
    return [row for row in curve_of(out) if row["phase"] == phase and "loss" in row]


@pytest.fixture(scope="module")
def on_augesc(tmp_path_factory):
    """The second model of the comparison, of which early stopping ended the further phase."""
    out = tmp_path_factory.mktemp("control") / "on-augesc"
    wild = ("phases.further.learning_rate=0.5", "train.evaluate_every=2", "train.patience=1")
    train(then_augesc(*wild), out, Progress(quiet=True))
    return out, wild


def test_the_control_takes_the_same_steps_in_the_same_way(on_augesc, tmp_path, monkeypatch):
    other, wild = on_augesc
    taken, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda *a, **k: (taken.append(1), step(*a, **k))[1]
    )
    train(control(other, *wild), tmp_path / "equal", Progress(quiet=True))
    theirs, ours = (steps_of(out, "further") for out in (other, tmp_path / "equal"))
    lengths = read_manifest(other)["stages"]["train"]["phases"]
    assert len(ours) == len(theirs) == lengths["further"]["steps"]
    assert len(taken) == len(ours) + len(steps_of(tmp_path / "equal", "first"))
    assert lengths["further"]["planned"] > len(theirs)  # early stopping ended it
    rates = [[row["learning_rate"] for row in rows] for rows in (theirs, ours)]
    assert rates[0] == rates[1]
    assert read_manifest(tmp_path / "equal")["stages"]["train"]["phases"] == lengths
    assert steps_of(other, "first") == steps_of(tmp_path / "equal", "first")  # of one beginning
    assert [row["loss"] for row in ours] != [row["loss"] for row in theirs]
    check_cards(other, tmp_path / "equal", len(ours))


def check_cards(other, equal, n):
    """The card of the control says what it is; that of the other training says no such thing."""
    card = (equal / "model-further" / "README.md").read_text()
    assert f"(weight 1.0); {n} steps" in card
    run = read_manifest(other)["run_id"]
    said = " ".join(card.split())
    assert f"the phase `further` of `esconv_then_augesc` took (run `{run}`)" in said
    assert "without early stopping" in said
    assert str(other) not in card
    theirs = (other / "model-further" / "README.md").read_text()
    assert f"{n} steps" in theirs
    assert "control" not in theirs


@pytest.mark.slow
def test_a_killed_control_goes_on_and_another_number_is_another_training(on_augesc, tmp_path):
    other, wild = on_augesc
    config = control(other, *wild)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    train(config, whole, Progress(quiet=True))
    n_first = len(steps_of(whole, "first"))
    with pytest.raises(KeyboardInterrupt):
        train(config, out, StopsAfter(n_first + 2))
    train(config, out, Progress(quiet=True))
    assert curve_of(out) == curve_of(whole)
    manifest = read_manifest(out)
    assert manifest["settings"]["lengths"]["further"]["config"] == "esconv_then_augesc"
    with pytest.raises(SettingsChangedError, match="lengths"):
        longer = tmp_path / "longer"
        train(then_augesc(*wild, "train.patience=null"), longer, Progress(quiet=True))
        longer.rename(tmp_path / "moved")
        other.rename(tmp_path / "kept")
        try:
            (tmp_path / "moved").rename(other)
            train(config, out, Progress(quiet=True))
        finally:
            other.rename(tmp_path / "moved")
            (tmp_path / "kept").rename(other)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, STEPS, 2 * STEPS + 3])
def test_stated_steps_are_taken_exactly_whatever_the_data(n, tmp_path):
    given = ("phases.first.epochs=null", f"phases.first.steps={n}")
    config = mini(*given, "train.patience=1", "train.evaluate_every=1")
    config = config.model_copy(
        update={"phases": {"first": config.phases["first"].model_copy(update={"learning_rate": 9})}}
    )
    train(config, tmp_path / "out", Progress(quiet=True))
    assert len(steps_of(tmp_path / "out", "first")) == n


def test_what_the_control_shares_and_what_not():
    ours = load_config("esconv_equal_steps").settings()
    theirs = load_config("esconv_then_augesc").settings()
    assert ours.keys() == theirs.keys()
    apart = {key for key in ours if ours[key] != theirs[key]}
    assert apart == {"name", "about", "phases"}
    further = ours["phases"]["further"], theirs["phases"]["further"]
    differ = {key for key in further[0] if further[0][key] != further[1][key]}
    assert differ == {"sessions", "epochs", "steps_as"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("phases.first.steps=3",), "found epochs=1, steps=3"),
        (("phases.first.epochs=null",), "found none"),
        (("phases.first.epochs=null", "phases.first.steps=0"), "greater than or equal to 1"),
    ],
)
def test_a_phase_has_one_length(given, said):
    with pytest.raises(RecipeError, match=said):
        mini(*given)


@pytest.mark.slow
def test_another_training_that_does_not_tell_its_steps(on_augesc, tmp_path):
    other, wild = on_augesc

    def refused(folder, *overrides):
        with pytest.raises(TrainingError) as error:
            given_lengths(control(folder, *overrides))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "steps_as: " in (said := refused(tmp_path / "x"))
    assert "manifest.json" in said
    assert "took steps of 8 examples" in refused(other, "train.batch_size=4")
    with pytest.raises(KeyboardInterrupt):
        train(then_augesc(*wild), tmp_path / "begun", StopsAfter(2))
    assert "no training that is done" in refused(tmp_path / "begun")
    train(mini("phases.first.epochs=1"), tmp_path / "first", Progress(quiet=True))
    assert "its phases: first" in refused(tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert manifest["stages"]["train"]["phases"]["first"]["steps"] == STEPS


@pytest.mark.slow
def test_trl_takes_the_same_steps_too(tmp_path):
    pytest.importorskip("trl")
    made = f"model.name={causal(tmp_path / 'causal')}"
    given = ("method=sft", made, "model.from_scratch=null", "model.chat_template=plain")
    given = (*given, "train.evaluate_every=2", "examples.max_source_tokens=64")
    wild = (*given, "phases.first.learning_rate=5", "train.patience=1", "phases.first.epochs=4")
    train(mini(*wild), tmp_path / "other", Progress(quiet=True))
    theirs = read_manifest(tmp_path / "other")["stages"]["train"]["phases"]["first"]
    assert theirs["planned"] == 4 * STEPS > theirs["steps"]
    as_long = (f"phases.first.steps_as={tmp_path / 'other'}", "phases.first.epochs=null")
    train(mini(*given, "train.patience=1", *as_long), tmp_path / "equal", Progress(quiet=True))
    assert len(steps_of(tmp_path / "equal", "first")) == theirs["steps"]
    assert read_manifest(tmp_path / "equal")["stages"]["train"]["phases"]["first"] == theirs
