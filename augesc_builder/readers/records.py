"""The guard around a line: a bad one becomes an error that is counted, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar

from augesc_builder.errors import InputError

In = TypeVar("In")
Out = TypeVar("Out")

MIB = 1 << 20

BROKEN = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What a value of the wrong kind, size or depth raises when it is taken apart: errors of encodings,
of JSON and of Arrow are ``ValueError`` or ``TypeError`` too.

Not among them is what no line can be blamed for: ``AttributeError``, ``NameError`` and
``AssertionError`` are mistakes of a program, ``OSError`` and ``MemoryError`` are the machine's. And
a mistake that raises one of these shows all the same: its name stands in the report, and a file
of which no line can be read is an error.
"""


@dataclass(frozen=True)
class Limits:
    """How much is read of a file that a stranger wrote: ``reading`` in a recipe.

    ``max_line_bytes`` is for a line, or a row of a table; ``max_expansion`` for the bytes that come
    of one compressed byte, behind the first 64 MiB.
    """

    max_line_bytes: int = MIB
    max_expansion: int = 200


USUAL = Limits()
"""Those of the shipped recipes."""


@dataclass
class BadLines:
    """Counts lines that could not be read; the first is fatal where the reader is ``strict``.

    ``limits`` tell the reader what a line may hold.
    """

    strict: bool = False
    count: int = 0
    examples: list[str] = field(default_factory=list)
    limits: Limits = USUAL

    def add(self, error: InputError) -> None:
        """Count a line, and keep what is wrong with it if it is among the first ten.

        Raises the :class:`~augesc_builder.errors.InputError` itself where the reader is strict.
        """
        if self.strict:
            raise error
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(str(error))

    def good(self, found: Iterable[Out | InputError]) -> Iterator[Out]:
        """Yield what could be read, and count the rest; raises as :meth:`add` does."""
        for value in found:
            if isinstance(value, InputError):
                self.add(value)
            else:
                yield value

    def merge(self, other: BadLines) -> None:
        """Add the lines that another process counted."""
        self.count += other.count
        self.examples = [*self.examples, *other.examples][:_EXAMPLES]

    def say(self, say: Callable[[str], None]) -> None:
        """Show how many there were, and the first of them; nothing where there were none."""
        if self.count:
            lines = "line is" if self.count == 1 else "lines are"
            say(f"  {self.count:,} {lines} unreadable, and left out")
        for example in self.examples[:_SHOWN_OF_THEM]:
            say(f"  unreadable: {example}")

    def report(self) -> dict[str, Any]:
        """Return the count and the examples as JSON values."""
        return {"count": self.count, "examples": self.examples}


_EXAMPLES, _SHOWN_OF_THEM = 10, 3


def merged(parts: Iterable[BadLines]) -> BadLines:
    """Return together what was counted apart."""
    total = BadLines()
    for part in parts:
        total.merge(part)
    return total


def parse_each(
    rows: Iterable[tuple[int, In | InputError]],
    parse: Callable[[In, int], Out],
    path: str | PathLike[str],
) -> Iterator[Out | InputError]:
    """Yield what ``parse`` makes of each row and its number, or what is wrong with it.

    ``parse`` raises :class:`~augesc_builder.errors.InputError` for what it knows to be wrong; what
    else a bad row may raise (:data:`BROKEN`) is told by its name. Rows that are errors already are
    passed on.
    """
    for number, row in rows:
        if isinstance(row, InputError):
            yield row
            continue
        try:
            found: Out | InputError = parse(row, number)
        except InputError as error:
            found = error
        except BROKEN as error:
            found = broken(error, path, number)
        yield found


def broken(error: Exception, path: str | PathLike[str], number: int) -> InputError:
    """Return the error of a line for one of :data:`BROKEN` that it raised."""
    said = str(error)[:_SHOWN]
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return InputError(f"cannot be read ({reason}); mend or remove the line", path, number)


_SHOWN = 120


def too_long(path: str | PathLike[str], number: int, limits: Limits) -> InputError:
    """Return the error of a line or row that holds too much."""
    return InputError(
        f"longer than {limits.max_line_bytes:,} bytes; remove the line, or give "
        f"reading.max_line_bytes more",
        path,
        number,
    )
