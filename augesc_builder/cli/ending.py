"""How a command begins and ends: streams that take any text, one line for a mistake, exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import typer

from augesc_builder import __version__
from augesc_builder.errors import AugescError
from augesc_builder.run.escape import for_terminal
from augesc_builder.run.progress import output_errors

MISTAKE = 2
"""The user's, or something that the system refuses: what mends it is said."""

BUG = 70
"""Ours, as sysexits.h has it: a traceback lies in a file."""

INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it; typer returns it too."""

READER_GONE = 1
"""Who read the output, such as ``head``, has enough; typer returns it too."""

_UsageError: type[Any] = typer.BadParameter.__mro__[2]
"""click's root of usage errors, wherever typer keeps its click."""


def run(command: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line.

    What a command refuses is turned into an :class:`~augesc_builder.errors.AugescError` where it
    arises. Anything else is a bug: its traceback goes to a file, or to the terminal with --debug.
    """
    _prepare()
    debug = "--debug" in arguments
    code = MISTAKE
    try:
        _check_text(arguments)
        code = int(command() or 0)
        with output_errors():
            sys.stdout.flush()
    except AugescError as error:
        complain(str(error))
        if debug:
            _show_traceback()
    except _UsageError as error:
        complain(f"{error.format_message()}; see augesc --help")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        code = READER_GONE
    except Exception as error:
        code = BUG
        _report(error, arguments, debug=debug)
    if code == INTERRUPTED:
        complain("stopped; run the same command again to resume")
    _leave(sys.stdout)
    return code


def complain(text: str) -> None:
    """Say in one line what is wrong; where even that cannot be said, the exit code does."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"augesc: {for_terminal(' '.join(text.split()))}\n")
        sys.stderr.flush()


def _prepare() -> None:
    """Let streams write out the characters that their encoding lacks, and libraries be silent."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else each fork makes a warning
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Escaping())


class _Escaping(logging.Formatter):
    """What is logged may hold the text of strangers."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse what is not UTF-8: manifests and recipes are, and name what they were given."""
    for text in (*arguments, str(_working_folder())):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise AugescError(
                f"{text[:80]!r} is not UTF-8; rename what is called so, or set the locale to UTF-8"
            ) from None


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise AugescError("the working folder was deleted; change to one that exists") from None


def _leave(stream: TextIO) -> None:
    """Let what a stream cannot write go nowhere: at the end of the process it would fail again."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


def _show_traceback() -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(for_terminal(traceback.format_exc()))


def _report(error: Exception, arguments: Sequence[str], *, debug: bool) -> None:
    said = f"{type(error).__name__}: {error}"[:300]
    where = (
        "" if debug else f"; the traceback is in {_write_traceback(arguments)}, please report it"
    )
    complain(f"this is a bug of augesc: {said}{where}")
    if debug:
        _show_traceback()


def _write_traceback(arguments: Sequence[str]) -> str:
    head = f"augesc {__version__}, Python {platform.python_version()}: {list(arguments)!r}\n\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="augesc-",
            suffix=".txt",
            encoding="utf-8",
            errors="backslashreplace",
            delete=False,
        ) as file:
            file.write(head + traceback.format_exc())
            return file.name
    except OSError:
        return "no file, for none could be written (--debug shows it)"
