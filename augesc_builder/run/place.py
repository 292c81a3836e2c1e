"""Where the truth about a run is: in its folder, or at an address that the folder is a copy of.

Stages work with plain paths in either case. What they write and read passes a :class:`Place`: that
of a disk has nothing to do, for the folder is all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augesc_builder.run.marks import Files, Marks


class Place:
    """A folder on a disk."""

    address: str | None = None
    is_alone = True
    """Whether a lock keeps others out who would own the run at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.address or str(self.path)

    def marks(self) -> Marks:
        """Return the marks of the run."""
        return Marks(self.path)

    # -- of an owner -----------------------------------------------------------------------------

    def begin(self, say: Callable[[str], object]) -> None:
        """Look whether a run can be there, and have here what it has come to."""

    def claim(self, manifest: str) -> bool:
        """Put the manifest of a new run; whether nobody else has begun one meanwhile."""
        return True

    def refresh(self) -> None:
        """Forget here what is no longer so."""

    def put(self, name: str) -> None:
        """Put a file that no mark lists, such as the manifest, in the place of what it was."""

    def keep_journals(self) -> None:
        """Put what endpoints were asked, and have answered."""

    def bring_journals(self) -> None:
        """Have here what endpoints were asked by processes elsewhere, as far as they put it."""

    def withdraw(self, mark: str, files: Files) -> None:
        """Remove a mark, and those of its files that are as they were written."""

    def set_aside(self, name: str) -> None:
        """Move what the run did not write out of its way."""

    def damage(self, files: Files) -> dict[str, str]:
        """Return what is wrong with files."""
        return self.marks().damage(files)

    def end(self) -> None:
        """Remove what only tells of work that is over now."""

    # -- of everybody ----------------------------------------------------------------------------

    def bring(self, stage: str, number: int | None, wanted: Callable[[str], bool]) -> None:
        """Have here those files of a stage, or of one shard, that are ``wanted`` by their names."""

    def offer(
        self, mark: str, body: dict[str, Any], staged: Mapping[str, Path], *, renew: bool = False
    ) -> dict[str, Any] | None:
        """Put files with their mark; ``None`` where others have made it: theirs stays.

        Otherwise the body that the mark has now. ``renew``: it is there, and is replaced.
        """
        return body

    def settle(self) -> None:
        """Do what makers left undone who stopped right behind their marks."""

    def check_manifest(self) -> None:
        """Have the manifest here as it is now."""

    def look(self) -> None:
        """Have here what those at work say of themselves."""

    def tell(self, path: Path, *, at_once: bool) -> None:
        """Let others read a file in which a process says what it is at."""


def flat(name: str) -> str:
    """Name a file of the run among those that wait for its mark."""
    return name.replace("/", "--")
