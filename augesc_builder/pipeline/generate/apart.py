"""Rows that are made alone, in a process of their own: one of them may end what makes it.

Whoever asked for the row is not that process, and sees it end. So it is known which row it was, and
that it was no other: a row that ends its process three times is given up. Where whoever asked ends,
too, it may have been killed for another reason, and more ends are waited for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from augesc_builder.config.plugins import import_modules, load_plugins, plugin_modules
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import AugescError, RunFolderError, WorkerDiedError
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.pipeline.generate.tasks import Row, Task
from augesc_builder.run.attempts import MOST, MOST_TAKEN, Attempts
from augesc_builder.run.heartbeat import one_line
from augesc_builder.run.workers import block_sigint, exit_with_parent, lifeline

_HOPELESS = 3
"""Queries no row of which could be made, and no other: then it is not for the rows."""


_PLACES = re.compile(r"(?<![\w.:/])~?/(?:[^\s/'\":]+/)+")
"""The folders of a file that a text names."""


class RowFailed(Exception):  # noqa: N818 - it is a finding, and no error of the program
    """A row ended what made it each time; with the last error, and how often."""

    def __init__(self, error: str, attempts: int) -> None:
        super().__init__(error)
        self.error, self.attempts = error, attempts

    def row(self, task: Task) -> Row:
        """Return the row of the table of failed ones."""
        query = task.query
        return {
            "query_id": query["query_id"],
            "sample": task.sample,
            "source": query["source"],
            "query": query["text"],
            "error": self.error,
            "attempts": self.attempts,
        }


class _Ended(Exception):  # noqa: N818
    pass


class Apart:
    """A backend in a process of its own, which has one row at a time, and is replaced if it ends.

    ``known`` is what the run chose when it began (:meth:`~.backends.base.Backend.prepare`).
    """

    def __init__(
        self, recipe: Recipe, checkpoint: Path, folder: Path, known: Mapping[str, Any]
    ) -> None:
        self._given = recipe, checkpoint, folder, dict(known)
        self._attempts = Attempts(folder)
        self._process: Any = None
        self._held = contextlib.ExitStack()
        self._has_made, self._in_vain = False, set[str]()

    def make(self, task: Task, name: str) -> Row:
        """Make a row, whose attempts are noted as those of ``name``.

        Raises :class:`RowFailed` where it ends its process each time, and
        :class:`~augesc_builder.errors.RunFolderError` where every other row does, too.
        """
        ended = self._attempts.ended(name)
        errors = [process.error for process in ended if process.error is not None]
        n_taken = len(ended) - len(errors)
        while len(errors) < MOST and n_taken < MOST_TAKEN:
            attempt = self._attempts.begin(name)
            try:
                row = self._ask(task)
            except _Ended as ended:
                errors.append(_without_places(str(ended)))
                attempt.failed(errors[-1])
            except BaseException:
                attempt.drop()
                raise
            else:
                attempt.drop()
                self._has_made = True
                return row
        last = errors[-1] if errors else "its worker was killed with it"
        self._in_vain.add(task.query["query_id"])
        if not self._has_made and len(self._in_vain) >= _HOPELESS:
            raise RunFolderError(
                f"no row can be made here, whatever the query; the last one ended by: {last}"
            )
        raise RowFailed(last, len(errors) + n_taken)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        self._held.close()

    # -- inside ----------------------------------------------------------------------------------

    def _ask(self, task: Task) -> Row:
        if self._process is None:
            self._start()
        with contextlib.suppress(OSError):  # it has ended, as the next word shows
            self._ours.send(task)
        wait([self._ours, self._process.sentinel])
        said: str = "ended"
        what: Any = None
        if self._ours.poll():  # a process that said something may have ended behind it
            with contextlib.suppress(EOFError, OSError):
                said, what = self._ours.recv()
        if said == "row":
            row: Row = what
            return row
        if said == "refused":
            raise what
        self._process.join()
        code = self._process.exitcode
        self.close()
        raise _Ended(what if said == "error" else f"its process {_end(code)}")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        watched = self._held.enter_context(lifeline())
        self._ours, theirs = context.Pipe()
        self._held.enter_context(self._ours)
        given = plugin_modules(), *self._given
        # No daemon: the backend may have processes of its own.
        self._process = context.Process(target=_work, args=(*given, theirs, watched))
        with block_sigint():
            self._process.start()
        theirs.close()


def _without_places(text: str) -> str:
    """Return an error without the folders of this machine: it may be published."""
    return _PLACES.sub("", text)


def _end(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed ({signal.Signals(-code).name})"
    return f"was killed (signal {-code})"


def _work(
    plugins: Sequence[str],
    recipe: Recipe,
    checkpoint: Path,
    folder: Path,
    known: Mapping[str, Any],
    words: Connection,
    watched: Connection,
) -> None:
    """Make rows, one by one, until one fails."""
    exit_with_parent(watched)
    with contextlib.suppress(OSError):  # short of memory, the system takes this one, not its parent
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    warnings.simplefilter("ignore")  # what is to be said of this machine was said
    load_plugins()
    import_modules(plugins)
    with contextlib.closing(backend_of(recipe)(recipe, checkpoint, folder)) as backend:
        try:
            backend.prepare(known, 1, 1)
            while True:
                ((_, row),) = backend.stream([words.recv()], lambda *_: None)
                words.send(("row", row))
        except EOFError:
            pass
        except WorkerDiedError as error:
            words.send(("error", one_line(str(error))))
        except AugescError as error:
            words.send(("refused", error))
        except Exception as error:  # whatever it is, it is of this row
            words.send(("error", one_line(f"{type(error).__name__}: {error}")))
