"""States that a training resumes from: whole or not there, two kept, known by their checksums.

A state is a folder. Its files are written elsewhere, synced, listed with size and SHA-256 in
``state.json``, and renamed into place; only then are older states removed. So what a kill, a full
disk or a broken one leaves is a state that checks, or one before it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from augesc_builder.errors import CheckpointError, RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.disk import (
    Written,
    disk_errors,
    load_sealed,
    measured,
    sealed,
    sync,
    write_synced,
)


class _Mark(BaseModel):
    """What ``state.json`` holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["augesc training state"] = "augesc training state"
    files: dict[str, Written]
    facts: dict[str, Any]


@dataclass(frozen=True)
class SavedState:
    """A state on disk, the facts that were saved with it (plain JSON values), and its files."""

    path: Path
    facts: dict[str, Any]
    files: tuple[str, ...]


def write_state(
    states: Path,
    step: int,
    facts: Mapping[str, Any],
    fill: Callable[[Path], None],
    keep: int | None = 2,
) -> None:
    """Save a state of so many ``step`` s; keep the newest ``keep``, or all.

    ``fill`` writes its files into the folder that it is given. Where that fails, what was there
    before is untouched.

    Raises :class:`~augesc_builder.errors.DiskError` where the disk is full or not writable.
    """
    temporary, final = states / layout.SAVING, layout.state_folder(states, step)
    with disk_errors(states):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            fill(temporary)
            seal(temporary, facts)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds others
                states.rmdir()
            raise
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(states)
    drop_later(states, step)
    for old in layout.saved_states(states)[: -keep if keep else 0]:
        shutil.rmtree(old)


def copy_state(saved: SavedState, states: Path, step: int) -> None:
    """Make a copy of a saved state the newest one of ``states``."""

    def fill(folder: Path) -> None:
        for name in saved.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(saved.path / name, folder / name)

    write_state(states, step, saved.facts, fill, keep=None)


def drop_later(states: Path, step: int) -> None:
    """Remove the states of later steps: who resumes from an earlier one makes them anew."""
    for state in layout.saved_states(states):
        if state.name > layout.state_folder(states, step).name:
            shutil.rmtree(state)


def seal(state: Path, facts: Mapping[str, Any]) -> None:
    """Sync the files of a folder and list them, with checksums, in its mark, which comes last."""
    files = {}
    for path in _files(state):
        sync(path)
        files[path.relative_to(state).as_posix()] = measured(path)
    mark = _Mark(files=files, facts=dict(facts))
    write_synced(state / layout.STATE, sealed(mark.model_dump()))


def read_state(state: Path) -> SavedState:
    """Read a state's facts, after every file of it was checked.

    Raises :class:`~augesc_builder.errors.CheckpointError` where it is no state, or a file is
    missing or has other bytes than were saved.
    """
    path = state / layout.STATE
    if not path.is_file():
        raise CheckpointError(
            f"{state} is no saved state: it has no {layout.STATE}; expected a folder such as "
            f"OUT/{layout.state_folder(Path(layout.CHECKPOINTS), 100)}"
        )
    try:
        mark = _Mark.model_validate(load_sealed(path))
    except RunFolderError as error:
        raise CheckpointError(f"{state} is damaged: {str(error).partition(';')[0]}") from None
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"]))
        raise CheckpointError(f"{path} is no state's: {where}: {what['msg']}") from None
    there = {path.relative_to(state).as_posix(): path for path in _files(state)}
    for name, expected in mark.files.items():
        try:
            same = name in there and measured(there[name]) == expected
        except OSError as error:
            raise CheckpointError(f"{state} is damaged: {name}: {error.strerror}") from None
        if not same:
            how = "is not what was saved" if name in there else "is missing"
            raise CheckpointError(f"{state} is damaged: {name} {how}")
    return SavedState(state, mark.facts, tuple(mark.files))


def newest_state(states: Sequence[Path], say: Callable[[str], None]) -> SavedState | None:
    """Return the last of ``states`` that is whole; ``None`` where none is given.

    Each damaged one is told by ``say``, and so are those of versions that pickled: they count as
    none. Raises :class:`~augesc_builder.errors.CheckpointError` where all others are damaged.
    """
    reasons = []
    for path in reversed(states):
        if (path / layout.PICKLED_FACTS).exists():
            say(f"  {path} is of an earlier version, and not read: loading it could run code")
            continue
        try:
            return read_state(path)
        except CheckpointError as error:
            reasons.append(str(error))
            say(f"  {error}; trying the state before it")
    if reasons:
        raise CheckpointError(
            f"{states[0].parent}: none of the {len(reasons)} saved states can be resumed from; "
            f"{reasons[0]}; give another --out to train from the start"
        )
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / layout.STATE)
