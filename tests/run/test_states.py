"""States on disk: whole or not there, known by checksums, the newest that is whole is taken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augesc_builder.errors import CheckpointError, DiskError
from augesc_builder.run import layout, states
from augesc_builder.run.states import newest_state, read_state, write_state
from tests.conftest import ROOT


def save(folder: Path, step: int, keep: int | None = 2) -> None:
    def fill(at: Path) -> None:
        (at / "a.bin").write_bytes(bytes(range(200)) * step)
        (at / "b.json").write_text(f"{step}")

    write_state(folder, step, {"step": step}, fill, keep)


def newest(folder: Path, said: list[str] | None = None):
    return newest_state(layout.saved_states(folder), [].append if said is None else said.append)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path):
    assert newest(tmp_path) is None
    for step in (2, 4, 6):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-0000004", "step-0000006"]
    saved = newest(tmp_path)
    assert (saved.path.name, saved.facts) == ("step-0000006", {"step": 6})
    save(tmp_path, 8, keep=None)
    assert len(names(tmp_path)) == 3


def damage(path: Path, kind: str, place: float) -> None:
    """Flip a bit of a file, cut it, empty it, or remove it."""
    old = path.read_bytes()
    at = min(int(place * len(old)), len(old) - 1)
    if kind == "bit":
        path.write_bytes(old[:at] + bytes([old[at] ^ 1 << at % 8]) + old[at + 1 :])
    elif kind == "cut":
        path.write_bytes(old[:at])
    else:
        path.unlink()


@given(
    st.sampled_from(["a.bin", "b.json", "state.json"]),
    st.sampled_from(["bit", "cut", "gone"]),
    st.floats(0, 1),
)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path_factory, file, kind, place):
    folder = tmp_path_factory.mktemp("states")
    save(folder, 2)
    save(folder, 4)
    damage(folder / "step-0000004" / file, kind, place)
    said: list[str] = []
    saved = newest(folder, said)
    if saved.path.name == "step-0000004":  # only the line end of the mark was cut
        assert (file, saved.facts) == ("state.json", {"step": 4})
        return
    assert (saved.path.name, saved.facts) == ("step-0000002", {"step": 2})
    (line,) = said
    assert "step-0000004" in line
    assert line.endswith("trying the state before it")
    damage(folder / "step-0000002" / "a.bin", "bit", place)
    with pytest.raises(CheckpointError, match="none of the 2 saved states can be resumed from"):
        newest(folder)


def test_what_was_damaged_is_replaced_when_it_is_saved_again(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    damage(tmp_path / "step-0000006" / "a.bin", "cut", 0.5)
    save(tmp_path, 5)  # resumed from 4, and states are saved more often now
    assert names(tmp_path) == ["step-0000004", "step-0000005"]
    save(tmp_path, 6)
    assert newest(tmp_path).facts == {"step": 6}


def test_a_full_disk_leaves_what_was_there(tmp_path):
    def full(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    save(tmp_path, 2)
    save(tmp_path, 4)
    with pytest.raises(DiskError, match="no space left"):
        write_state(tmp_path, 6, {}, full)
    assert names(tmp_path) == ["step-0000002", "step-0000004"]
    assert newest(tmp_path).facts == {"step": 4}
    with pytest.raises(DiskError, match="no space left"):
        write_state(tmp_path / "new", 2, {}, full)
    assert not (tmp_path / "new").exists()


def test_every_file_is_on_the_disk_before_the_state_is_in_its_place(tmp_path, monkeypatch):
    done: list[str] = []
    sync, rename = states.sync, Path.rename

    def synced(path):
        done.append(path.name)
        sync(path)

    def renamed(path, target):
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(states, "sync", synced)
    monkeypatch.setattr("augesc_builder.run.disk.sync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    save(tmp_path, 2)
    before = done[: done.index("renamed")]
    assert before[:2] == ["a.bin", "b.json"]
    assert any(name.startswith("state.json") for name in before)
    assert before[-1] == layout.SAVING
    assert done[-1] == tmp_path.name


def test_states_of_versions_that_pickled_count_as_none(tmp_path):
    for step in (2, 4):
        (tmp_path / f"step-000000{step}").mkdir()
        (tmp_path / f"step-000000{step}" / "facts.pt").write_bytes(b"pickled")
    said: list[str] = []
    assert newest(tmp_path, said) is None
    assert [line.partition("step-")[2][:7] for line in said] == ["0000004", "0000002"]
    assert all("is of an earlier version, and not read" in line for line in said)
    save(tmp_path, 3)
    assert newest(tmp_path).facts == {"step": 3}


KILLED = """
import os, shutil, sys
from pathlib import Path
from augesc_builder.run import disk, states
from tests.run.test_states import save

root = Path(sys.argv[1])
for number in range(1000):
    folder = root / str(number)
    save(folder, 2)
    save(folder, 4)
    if not (child := os.fork()):
        left = number

        def dies(what):
            def called(*args, **options):
                global left
                if not left:
                    os._exit(9)
                left -= 1
                return what(*args, **options)
            return called

        # Before each thing that changes the disk, a file's removal within a folder included.
        for module, name in [(os, "fsync"), (os, "mkdir"), (os, "rename"), (os, "replace"),
                             (os, "unlink"), (os, "rmdir"), (Path, "write_bytes")]:
            setattr(module, name, dies(getattr(module, name)))
        save(folder, 6)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not status:
        break
print(number)
"""


def test_killed_at_any_step_of_saving_there_is_a_state_that_is_whole(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    kills = int(done.stdout)
    assert kills > 10
    seen = set()
    for number in range(kills):
        saved = newest(tmp_path / str(number))
        assert saved.facts["step"] in {4, 6}
        seen.add(saved.facts["step"])
        save(tmp_path / str(number), 8)
        assert names(tmp_path / str(number))[-1] == "step-0000008"
    assert seen == {4, 6}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "damaged"),
        ("[]", "damaged"),
        ("{}", "is no state's: files"),
        ('{"files": {"../../x": {"bytes": 1, "sha256": ""}}, "facts": {}}', "x is missing"),
        ('{"files": {"/dev/zero": {"bytes": 0, "sha256": ""}}, "facts": {}}', "zero is missing"),
        ('{"files": {"a": {"bytes": "1", "sha256": ""}}, "facts": {}}', "is no state's: files.a"),
        ('{"files": {}, "facts": {}, "more": 1}', "is no state's: more"),
        ('{"files": {}, "facts": [], "kind": "x"}', "is no state's: kind"),
    ],
)
def test_marks_that_somebody_made_up(tmp_path, text, said):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match=said) as error:
        read_state(tmp_path)
    assert "\n" not in str(error.value)


def test_the_mark_is_json_that_people_can_read(tmp_path):
    save(tmp_path, 2)
    mark = json.loads((tmp_path / "step-0000002" / "state.json").read_text())
    assert mark["files"]["b.json"]["bytes"] == 1
