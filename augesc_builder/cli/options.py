"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.config.paths import check_path


def path(text: str) -> Path:
    """Take an option that is a path on this machine."""
    if "://" in text:
        raise typer.BadParameter(f"{text[:80]} is an address; give a path on this machine")
    return Path(name_or_path(text))


def name_or_path(text: str) -> str:
    """Take an option that is a name or a path; ``NAME=PATH`` too is looked at as a whole."""
    try:
        check_path(text.rpartition("=")[2])
        return check_path(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        parser=name_or_path,
        help="A shipped recipe (quickstart, smollm2, paper, paper-lora, paper-grounded, "
        "paper-blender, tiny) or a file.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a key of the recipe or config; repeatable.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", parser=path, help="The folder to fill.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--num-proc", min=1, max=1024, help="Processes at work. Default: one a core."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
FolderArgument = Annotated[
    Path, typer.Argument(parser=path, help="The folder of a build or of `augesc filter`.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]
KeepOption = Annotated[
    int | None,
    typer.Option(
        "--keep",
        min=1,
        max=1_000_000,
        help="Generate until so many sessions are kept, of all sources: generate.keep.",
    ),
]


def keeping(overrides: list[str] | None, keep: int | None) -> list[str]:
    """Return overrides with that of ``--keep``."""
    return [*(overrides or ()), *([] if keep is None else [f"generate.keep={keep}"])]
