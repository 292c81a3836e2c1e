"""The status file of a run: what is at work in its folder, written every few seconds.

It is for other processes to read meanwhile (:mod:`augesc_builder.run.status`). It is no part of
what the run makes: no mark lists it, nothing is decided by it, and a run that cannot write it goes
on. A killed run leaves it as it was, so it also tells by which process it was written, and how long
that was at a stage, which the run counts when it is resumed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import stat
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from augesc_builder.errors import AugescError, RunFolderError
from augesc_builder.run import layout
from augesc_builder.run.copies import place_of
from augesc_builder.run.escape import for_terminal

TICK = 2.0
"""Seconds between two looks at what is at work."""

SILENT = timedelta(minutes=5)
"""After which a process that cannot be looked for, since it is on another machine, is not taken to
be at work."""

_PATIENCE = 5.0

_LARGEST = 1 << 16
"""Bytes of a status file; one of ours has some hundred."""

_Count = Annotated[int, Field(ge=0, le=1 << 53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Number = Annotated[int | float, Field(ge=-1e12, le=1e12)]
_Text = Annotated[str, Field(max_length=500)]


class _Record(BaseModel):
    # What a later version adds is passed over.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Work(_Record):
    """How far something is that is counted, or only that it is at work."""

    stage: _Text | None = None
    since: AwareDatetime
    """When the stage began in this process."""
    seconds: _Seconds
    """Since then."""
    what: _Text | None = None
    """What is counted; ``None``: nothing is, as while a model is loaded."""
    unit: _Text | None = None
    done: _Count | None = None
    """Units done, those of earlier processes among them."""
    total: _Count | None = None
    rate: _Seconds | None = None
    """Units a second, lately, in this process."""
    seconds_left: _Seconds | None = None
    facts: Annotated[dict[_Text, _Number], Field(max_length=20)] = {}
    """Numbers such as ``loss``, or ``kept`` rows of those ``judged`` by this process so far."""


State = Literal["running", "finished", "failed", "interrupted"]


class Process(_Record):
    """A process that says what it is at."""

    state: State
    error: _Text | None = None
    written: AwareDatetime
    pid: Annotated[int, Field(ge=1, le=1 << 31)]
    started: _Text
    """When the process began, as the system counts: a number of a process is given again."""
    host: _Text
    pids: _Text
    """The system's name for the numbers of processes that ``pid`` is one of: containers have
    their own."""


class Status(Process):
    """What the file holds."""

    kind: Literal["augesc status"] = "augesc status"
    work: Work


class WorkerStatus(Process):
    """What the file of one of several workers holds."""

    kind: Literal["augesc worker"] = "augesc worker"
    stage: _Text
    device: _Text
    """What it computes on."""
    n_shards: _Count
    """Of the stage, in all."""
    shards: _Count
    """Made by this worker; others may have been first."""
    rows: _Count
    tokens: _Count
    kept: _Count = 0
    """Rows that met every requirement, of those ``judged`` so far."""
    judged: _Count = 0
    rows_a_second: _Seconds
    tokens_a_second: _Seconds
    """Lately."""
    slots_in_use: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the slot steps that made a token."""


P = TypeVar("P", bound=Process)


class StatusFile:
    """The status file of the run that this process has begun in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / layout.STATUS
        self._last: Work | None = None

    def write(self, work: Work) -> None:
        """Say how far the work is."""
        self._last = work
        self._write("running", None)

    def end(self, error: BaseException | None) -> None:
        """Say that it has ended, and by which error if by one."""
        if error is None:
            self._write("finished", None)
        else:
            self._write(*ended_by(error))

    def _write(self, state: State, error: str | None) -> None:
        if self._last is not None:
            status = Status(work=self._last, **this_process(state, error))
            write_status(self._path, status, self._path.with_name(layout.STATUS_NEW))


def ended_by(error: BaseException) -> tuple[State, str | None]:
    """Return how a process ended that met an error."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None
    kind = "" if isinstance(error, AugescError) else f"{type(error).__name__}: "
    return "failed", one_line(f"{kind}{error}")


def this_process(state: State, error: str | None = None) -> dict[str, Any]:
    """Return what :class:`Process` says of this one."""
    return {
        "state": state,
        "error": error,
        "written": datetime.now(timezone.utc),
        "pid": os.getpid(),
        "started": _started(os.getpid()) or "",
        "host": one_line(platform.node()),
        "pids": _pids(),
    }


def write_status(path: Path, status: Process, temporary: Path) -> None:
    """Write a status file where that can be done; nothing depends on it."""
    try:  # not synced: it is out of date in seconds, and a rename is whole
        temporary.write_text(status.model_dump_json(indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        return
    root = path.parent if path.name == layout.STATUS else path.parent.parent
    place_of(root).tell(path, at_once=status.state != "running")


def read_status(folder: Path) -> Status | None:
    """Return what the status file of a folder holds; ``None`` where there is none.

    Raises :class:`~augesc_builder.errors.RunFolderError` where it is not one of ours.
    """
    return _read(folder / layout.STATUS, Status)


def read_process(path: Path) -> Process | None:
    """Return what a file says of a process; ``None`` where there is none, or nothing of ours."""
    try:
        return _read(path, Process)
    except RunFolderError:
        return None


def _read(path: Path, kind: type[P]) -> P | None:
    try:
        # Not blocking: a pipe of that name would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RunFolderError(f"{path}: not a regular file; {_MEND}")
            content = os.read(descriptor, _LARGEST + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunFolderError(f"{path}: unreadable ({error.strerror}); {_MEND}") from None
    if len(content) > _LARGEST:
        raise RunFolderError(f"{path}: larger than a run writes it; {_MEND}")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"]))[:60]
        said = f"{where}: {what['msg']}" if where else what["msg"]
        raise RunFolderError(f"{path}: not as a run writes it: {said}; {_MEND}") from None


def read_workers(folder: Path) -> list[WorkerStatus]:
    """Return what the workers of a run said last, in the order of their files.

    Files that are none of ours are passed over: nothing depends on any.
    """
    found = []
    for path in sorted((folder / layout.WORKERS).glob("*.json"))[:_MOST]:
        with contextlib.suppress(RunFolderError):
            if (status := _read(path, WorkerStatus)) is not None:
                found.append(status)
    return found


_MOST = 10_000
"""Workers that are read; more than any cluster lets an array have."""

_MEND = "remove it, the next run writes it anew"


def is_at_work(status: Process) -> bool | None:
    """Whether the process that wrote a status as running still is.

    ``None``: it cannot be looked for from here, and was not heard of for :data:`SILENT`.
    """
    is_there = is_alive(status)
    if is_there is None:
        return True if datetime.now(timezone.utc) - status.written < SILENT else None
    return is_there


def is_alive(status: Process) -> bool | None:
    """Whether a process is there; ``None`` where it cannot be looked for from here."""
    if (status.host, status.pids) != (one_line(platform.node()), _pids()):
        return None
    started = _started(status.pid)
    return started is not None and (started == status.started or "" in {started, status.started})


def _started(pid: int) -> str | None:
    """Return when a process began, ``""`` where that is not told, ``None`` where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # no /proc, or one that hides what others do
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            pass
        return ""
    ended = state in {"Z", "X"}  # Z: nobody has asked for its exit code yet
    return None if ended else fields[18]


def _pids() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def one_line(text: str, longest: int = 400) -> str:
    """Return a text as one line that any terminal and file can take, cut if it is long."""
    return for_terminal(" ".join(text[:longest].split()))[:longest]


class Beat:
    """Calls a function every :data:`TICK` seconds, in a thread of its own, until it is stopped."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="augesc-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until a call that is under way has ended, but not for ever.

        It may be writing to a pipe whose reader has paused.
        """
        self._stopped.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        # An interrupt is the main thread's, which blocks it while workers start.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not self._stopped.wait(TICK):
            self._function()
