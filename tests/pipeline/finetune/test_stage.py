"""``augesc finetune`` by itself: what it saved on its way outlives every error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from augesc_builder.config.recipe import load_recipe
from augesc_builder.errors import DiskError, SettingsChangedError, TrainingError
from augesc_builder.pipeline.build import build
from augesc_builder.pipeline.finetune import stage
from augesc_builder.run.disk import sealed
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from tests.conftest import ROOT


class Stops(Progress):
    """Raises an error after so many steps; keeps what is said."""

    def __init__(self, steps: int, error: BaseException) -> None:
        super().__init__(quiet=True)
        self.left, self.error, self.said = steps, error, ""

    def say(self, text: str = "") -> None:
        self.said += text + "\n"

    def bar(self, *args, **kwargs):
        bar = super().bar(*args, **kwargs)
        update = bar.update

        def count(n, **postfix):
            update(n, **postfix)
            self.left -= 1
            if not self.left:
                raise self.error

        bar.update = count
        return bar


FULL = OSError(28, "No space left on device")


def finetune(recipe, out: Path, progress: Progress | None = None) -> dict:
    stage.standalone(recipe, out, progress or Progress(quiet=True))
    return load_file(out / "checkpoint" / "model.safetensors")


def states(out: Path) -> list[Path]:
    return sorted((out / ".work" / "finetune").glob("step-*"))


@pytest.fixture(scope="module")
def whole(tiny_file, tmp_path_factory):
    return finetune(load_recipe(tiny_file), tmp_path_factory.mktemp("whole") / "out")


@pytest.fixture
def killed(tiny_file, tmp_path):
    """A folder whose run was killed in its seventh of eight steps, after two states."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        finetune(load_recipe(tiny_file), out, Stops(7, KeyboardInterrupt()))
    assert [path.name for path in states(out)] == ["step-0000004", "step-0000006"]
    return out


def same(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


def test_a_full_disk_after_a_kill_leaves_the_states(tiny_file, killed, whole):
    recipe = load_recipe(tiny_file)
    with pytest.raises(DiskError, match="it resumes where it stopped"):
        finetune(recipe, killed, Stops(1, FULL))
    assert len(states(killed)) == 2
    said = Stops(99, FULL)
    assert same(finetune(recipe, killed, said), whole)
    assert "resuming from step-0000006" in said.said
    assert not (killed / ".work").exists()


def test_an_error_of_any_kind_leaves_the_states(tiny_file, killed, refused):
    """Here one of the launch, which comes before anything is trained."""
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        said = refused("finetune", "--recipe", tiny_file, "--out", killed)
    finally:
        del os.environ["ACCELERATE_USE_DEEPSPEED"]
    assert "launched with DeepSpeed" in said
    assert len(states(killed)) == 2


def test_another_seed_is_refused(tiny_file, killed, refused, whole):
    said = refused("finetune", "--recipe", tiny_file, "--out", killed, "--set", "seed=99")
    assert "begun with other settings: seed (13 there, 99 now)" in said
    with pytest.raises(SettingsChangedError, match="learning_rate"):
        finetune(load_recipe(tiny_file, ["finetune.learning_rate=0.1"]), killed)
    assert len(states(killed)) == 2
    assert same(finetune(load_recipe(tiny_file), killed), whole)


def test_before_the_first_state_nothing_is_kept(tiny_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DiskError):
        finetune(load_recipe(tiny_file), out, Stops(1, FULL))
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt):
        finetune(load_recipe(tiny_file), out, Stops(1, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):  # with another seed it begins anew
        finetune(load_recipe(tiny_file, ["seed=99"]), out, Stops(3, KeyboardInterrupt()))
    assert [path.name for path in states(out)] == ["step-0000002"]


def test_a_damaged_state_gives_way_to_the_one_before(tiny_file, killed, whole):
    newest = states(killed)[-1] / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    progress = Stops(99, FULL)
    assert same(finetune(load_recipe(tiny_file), killed, progress), whole)
    assert "step-0000006 is damaged: optimizer.safetensors is not what was saved" in progress.said
    assert "resuming from step-0000004" in progress.said


def test_where_both_are_damaged_one_line_says_so(tiny_file, killed, refused):
    for state in states(killed):
        (state / "weights.safetensors").unlink()
    said = refused("finetune", "--recipe", tiny_file, "--out", killed)
    assert "none of the 2 saved states can be resumed from" in said
    assert "weights.safetensors is missing; give another --out" in said
    assert len(states(killed)) == 2


def test_states_go_when_fine_tuning_is_done(tiny_file, tmp_path):
    """Not only when the build is: generation may take weeks, beside gigabytes of states."""
    with RunFolder(tmp_path / "out", {}) as folder:
        stage.run(folder, load_recipe(tiny_file), Progress(quiet=True))
        assert folder.is_complete("finetune")
        assert not (tmp_path / "out" / ".work" / "finetune").exists()


def test_what_was_held_out_is_said_and_marked(tiny_file, tmp_path):
    progress = Stops(99, FULL)
    with RunFolder(tmp_path / "out", {}) as folder:
        stage.run(folder, load_recipe(tiny_file, ["finetune.held_out=4"]), progress)
        told = folder.manifest["stages"]["finetune"]["held_out"]
    assert len(told["sessions"]) == 4
    assert (
        f"on 4 held-out sessions: loss a token {told['loss_before']} before, "
        f"{told['losses'][-1]} after"
    ) in progress.said
    progress = Stops(99, FULL)
    with RunFolder(tmp_path / "without", {}) as folder:
        stage.run(folder, load_recipe(tiny_file), progress)
        assert "held_out" not in folder.manifest["stages"]["finetune"]
    assert "held-out" not in progress.said


def test_killed_outright_it_goes_on(tiny_file, tmp_path, whole):
    """By a signal that nothing can catch, as soon as the first state appears."""
    out = tmp_path / "out"
    code = "from augesc_builder.cli.app import main; main()"
    command = [sys.executable, "-c", code, "finetune", "--recipe", tiny_file, "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    deadline = time.monotonic() + 600
    process = subprocess.Popen([str(part) for part in [*command, "--quiet"]], env=environment)
    while process.poll() is None and not states(out) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert states(out) or (out / "checkpoint").is_dir()
    assert same(finetune(load_recipe(tiny_file), out), whole)


class TestJoin:
    """What a launch's other processes do: nothing, where the first one has nothing to train."""

    @pytest.fixture
    def trains(self, monkeypatch):
        calls = []
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(
            "augesc_builder.pipeline.finetune.train.finetune", lambda *given: calls.append(given)
        )
        return calls

    def test_a_checkpoint_that_is_there(self, tiny_file, tmp_path, trains, monkeypatch):
        out, recipe = tmp_path / "out", load_recipe(tiny_file)
        stage.standalone(recipe, out, Progress(quiet=True))
        assert len(trains) == 1
        assert not out.exists()
        monkeypatch.undo()
        finetune(recipe, out)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # whoever trains is refused
        stage.standalone(recipe, out, Progress(quiet=True))
        weights = out / "checkpoint" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        with pytest.raises(TrainingError, match="DeepSpeed"):
            stage.standalone(recipe, out, Progress(quiet=True))

    def test_a_commit_that_the_first_one_will_carry_out(self, tiny_file, tmp_path, trains):
        """Killed between the note of what is to be put in place and the mark: nothing to train."""
        intent = {"mark": "finetune", "body": {}, "staged": {}}
        (tmp_path / ".work").mkdir()
        (tmp_path / ".work/commit.json").write_text(sealed(intent))
        stage.join(load_recipe(tiny_file), tmp_path)
        assert not trains
        (tmp_path / ".work/commit.json").write_text(sealed({**intent, "mark": "queries"}))
        stage.join(load_recipe(tiny_file), tmp_path)
        assert len(trains) == 1

    def test_a_build_that_ends_before(self, tiny_file, tmp_path, trains):
        for until, n in (("queries", 0), ("finetune", 1), (None, 2)):
            build(load_recipe(tiny_file), tmp_path / "out", Progress(quiet=True), until=until)
            assert len(trains) == n
