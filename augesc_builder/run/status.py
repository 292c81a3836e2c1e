"""What a run is at, told from outside while it works: ``augesc status``.

Nothing is written and no lock is taken. The marks say what is done. The status file says what is at
work, and whether its process still is (:mod:`augesc_builder.run.heartbeat`).
"""

from __future__ import annotations

import contextlib
import json
import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augesc_builder.errors import RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.crew import Crew, crew_of
from augesc_builder.run.crew import told as workers_told
from augesc_builder.run.disk import MEND
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.heartbeat import Status, Work, is_at_work, one_line, read_status
from augesc_builder.run.kinds import kinds_of, names_of
from augesc_builder.run.markdown import NOTHING, markdown_table
from augesc_builder.run.progress import duration, line_of
from augesc_builder.run.shards import Shards

_COMMANDS = {"build": "build", "statistics": "stats", "report": "study report"} | {
    name: name
    for name in (
        "train",
        "queries",
        "finetune",
        "generate",
        "filter",
        "select",
        "quality",
        "compare",
        "simulate",
    )
}
"""What fills a folder, and the command for it."""

_TABLES = {
    "queries": ("queries",),
    "generate": ("generations", "failed"),
    "filter": ("sessions", "rejected"),
    "select": ("sessions", "not_selected"),
    "quality": ("quality",),
    "simulate": ("simulated",),
}
"""The tables whose rows tell how much a stage made."""

State = Literal[
    "running", "complete", "failed", "interrupted", "stopped", "gone", "silent", "unknown"
]
"""``gone``: the process ended without a word. ``silent``: it is on another machine, and was not
heard of for minutes. ``stopped``: it ended as it was asked to, as by ``--until``, and stages are
left. ``unknown``: nothing tells, since an earlier version began it."""

_ENDED = {"failed", "interrupted", "stopped", "gone"}

_Amount = Annotated[int, Field(ge=0, le=1 << 53)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="ignore")

    stage: str = "build"


class _Generate(BaseModel):
    model_config = ConfigDict(extra="ignore")

    choice: str | None = None


class _Manifest(BaseModel):
    """What is told of a manifest."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    settings: _Settings
    recipe: str | None = None
    name: str | None = None
    tables: dict[str, _Amount] = {}
    seconds: dict[str, Annotated[float, Field(ge=0, le=1e12)]] = {}
    stages: dict[str, dict[str, Any]] = {}
    generate: _Generate = _Generate()
    plan: list[str] = [name for name in layout.STAGES if name != "quality"]
    """The stages of a build, which an earlier version does not say: it had none of quality."""


class Stage(BaseModel):
    """A stage of a run."""

    name: str
    state: Literal["done", "at work", "begun", "to do"]
    made: dict[str, int] = {}
    """Rows by table, or steps of a training."""
    seconds: float | None = None


class Overview(BaseModel):
    """What a run is at."""

    folder: str
    kind: str
    """``build``, ``train``, or the one stage that fills the folder."""
    recipe: str | None
    state: State
    stages: list[Stage]
    status: Status | None
    """What the status file says, whoever is at work now."""
    generating: str | None
    """How generation uses the machine: processes and threads."""
    to_go_on: str | None
    kinds: list[str] = []
    """The kinds of machines that made, or began, conversations."""
    crew: Crew | None = None
    """The workers, where several are at one run."""
    is_shared: bool = False
    """Whether they are at work, and no process owns it now."""


def overview(folder: Path) -> Overview:
    """Return what the run in a folder, or in the one above a corpus, is at.

    Raises :class:`~augesc_builder.errors.RunFolderError` where there is no run, and where its
    manifest or status file is not as a run writes it.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        raise RunFolderError(f"{folder} is {found}; give the folder that a run fills (its --out)")
    folder = layout.run_of(folder)
    place = place_of(folder)
    place.look()
    manifest = _read(folder)
    status, marks = _last_word(folder), place.marks()
    counts = marks.counts()
    kind = manifest.settings.stage
    wanted = (
        [name for name in layout.STAGES if name in manifest.plan] if kind == "build" else [kind]
    )
    done = {name for name in wanted if name in marks}
    state = _state(status, is_complete=len(done) == len(wanted))
    crew = crew_of(folder, counts)
    shared = crew is not None and crew.is_at_work and state != "running"

    def stage(name: str) -> Stage:
        begun = counts[name] > 0
        if shared and name == "generate":
            return Stage(name=name, state="at work")
        if status is not None and name == status.work.stage:
            if state == "running":
                return Stage(name=name, state="at work")
            begun = True
        if name not in done:
            return Stage(name=name, state="begun" if begun else "to do")
        seconds = manifest.seconds.get(name)
        return Stage(name=name, state="done", made=_made(manifest, name), seconds=seconds)

    return Overview(
        folder=str(place),
        kind=kind,
        recipe=manifest.recipe or manifest.name,
        state="running" if shared else state,
        stages=[stage(name) for name in wanted],
        status=status,
        generating=manifest.generate.choice,
        to_go_on=_to_go_on(folder, str(place), kind) if state in _ENDED and not shared else None,
        kinds=_kinds(folder),
        crew=crew,
        is_shared=shared,
    )


def told(found: Overview) -> str:
    """Say in lines what a run is at."""
    rows = [
        [
            stage.name,
            stage.state,
            ", ".join(f"{n:,} {what}" for what, n in stage.made.items()) or NOTHING,
            NOTHING if stage.seconds is None else duration(stage.seconds),
        ]
        for stage in found.stages
    ]
    recipe = f" by {one_line(found.recipe, 80)}" if found.recipe else ""
    lines = [f"{found.folder}: {found.kind}{recipe}", ""]
    lines += [markdown_table(["stage", "state", "made", "time"], rows), ""]
    if found.generating is not None:
        lines.append(f"Generation: {one_line(found.generating)}.")
    if len(found.kinds) > 1:
        lines.append(f"Kinds of machines: {'; '.join(found.kinds)}.")
    elif found.kinds:
        lines.append(f"Machines: {found.kinds[0]}.")
    over = {"complete", "stopped"}
    if found.status is not None and found.state not in over and not found.is_shared:
        lines.append(_at(found.status.work, is_over=found.state != "running"))
    if found.crew is not None:
        lines += workers_told(found.crew)
    lines.append(_who(found))
    if found.to_go_on is not None:
        lines.append(f"To go on: {found.to_go_on}")
    return "\n".join(lines)


def as_json(found: Overview) -> str:
    """Return the same for programs, in characters that no terminal minds."""
    return json.dumps(found.model_dump(mode="json"), indent=2).replace("\x7f", r"\u007f")


def _read(folder: Path) -> _Manifest:
    try:
        manifest = _Manifest.model_validate(read_manifest(folder))
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"]))[:60]
        raise RunFolderError(
            f"{folder / layout.MANIFEST}: not as a run writes it: {where}: {what['msg']}; {MEND}"
        ) from None
    if manifest.settings.stage not in _COMMANDS:
        raise RunFolderError(
            f"{folder / layout.MANIFEST}: of a kind that is not known here, "
            f"{manifest.settings.stage[:40]!r}; take the version of augesc that wrote it"
        )
    return manifest


def _kinds(folder: Path) -> list[str]:
    """Name the kinds of machines; nothing where what tells of them is damaged."""
    with contextlib.suppress(RunFolderError, TypeError, ValueError, AttributeError):
        return names_of([*kinds_of(Shards(folder, lambda _: None), "generate").values()])
    return []


def _last_word(folder: Path) -> Status | None:
    """Read the status file, again where its process has ended: it may have said how since."""
    status = read_status(folder)
    ended = status is not None and status.state == "running" and is_at_work(status) is False
    return read_status(folder) if ended else status


def _state(status: Status | None, *, is_complete: bool) -> State:
    if status is not None and status.state == "running":
        at_work = is_at_work(status)
        if at_work:
            return "running"
    else:
        at_work = False
    if is_complete:
        return "complete"
    if status is None:
        return "unknown"
    if status.state == "running":
        return "silent" if at_work is None else "gone"
    return "stopped" if status.state == "finished" else status.state


def _made(manifest: _Manifest, stage: str) -> dict[str, int]:
    found = {
        name: manifest.tables[name] for name in _TABLES.get(stage, ()) if name in manifest.tables
    }
    steps = manifest.stages.get(stage, {}).get("steps")
    return found | ({"steps": steps} if isinstance(steps, int) else {})


def _at(work: Work, *, is_over: bool) -> str:
    """Say how far the work is, or was."""
    if not is_over:
        return one_line(line_of(work))
    left = work.model_copy(update={"rate": None, "seconds_left": None})
    return one_line(f"It had come to {line_of(left)}")


def _who(found: Overview) -> str:
    """Say who is at work, or how it ended."""
    status = found.status
    if found.is_shared:
        return "Workers are at work, and no process owns the run now."
    if found.state == "complete":
        return "Complete."
    if status is None:
        return (
            "It has no status file, as runs of an earlier version: whether a process is at work "
            "does not show."
        )
    ago = _ago(status)
    process = f"Process {status.pid} on {one_line(status.host)}"
    return {
        "running": f"{process} is at work; it was heard of {ago} ago.",
        "failed": f"It failed {ago} ago: {one_line(status.error or '')}",
        "interrupted": f"It was interrupted {ago} ago.",
        "stopped": f"Nobody is at work: it ended as it was asked to, {ago} ago.",
        "gone": f"{process} is gone, and was heard of {ago} ago: it was killed, or the machine "
        f"stopped.",
        "silent": f"{process} was heard of {ago} ago; only there it shows whether it is at work.",
    }[found.state]


def _ago(status: Status) -> str:
    return duration(max(0.0, (datetime.now(timezone.utc) - status.written).total_seconds()))


def _to_go_on(folder: Path, out: str, kind: str) -> str:
    if kind == "build" and (folder / layout.RECIPE).is_file():
        return shlex.join(
            ["augesc", "build", "--recipe", str(folder / layout.RECIPE), "--out", out]
        )
    return f"the same command again, `augesc {_COMMANDS[kind]}` with --out {shlex.quote(out)}"
