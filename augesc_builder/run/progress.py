"""What a run says while it works: lines, and bars with rate and time left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from augesc_builder.errors import DiskError
from augesc_builder.run.escape import for_terminal


@contextlib.contextmanager
def output_errors() -> Iterator[None]:
    """Turn a failure to write to standard output, as to a full disk, into one line.

    A reader that has gone, such as ``head``, is no failure, and passes as it is. Raises
    :class:`~augesc_builder.errors.DiskError` for the others.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DiskError(f"standard output cannot be written: {reason}") from None


class Bar:
    """A progress bar that resumes where an earlier run stopped, so that its rate is true."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def update(self, n: float, **postfix: Any) -> None:
        """Count ``n`` more units; ``postfix`` is shown behind the bar."""
        if postfix:
            self._bar.set_postfix(postfix, refresh=False)
        self._bar.update(n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class Progress:
    """Where lines and bars go; ``quiet`` silences both.

    Bars are drawn on a terminal only, never in CI; lines go to standard output.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bars = not quiet and sys.stderr.isatty() and not os.environ.get("CI")

    def say(self, text: str = "") -> None:
        """Print lines; what would command the terminal is written out.

        Raises :class:`~augesc_builder.errors.DiskError` where they cannot be written.
        """
        if not self.quiet:
            with output_errors():
                print(for_terminal(text), flush=True)  # noqa: T201

    def bar(self, total: int | None, what: str, unit: str, *, done: int = 0) -> Bar:
        """Return a bar over ``total`` units, ``done`` of them by an earlier run."""
        return Bar(
            tqdm(
                total=total,
                initial=done,
                desc=f"  {what}",
                unit=f" {unit}",
                disable=not self._bars,
                dynamic_ncols=True,
                leave=False,
                smoothing=0.1,
            )
        )
