"""Options that several commands share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeOption = Annotated[
    str,
    typer.Option("--recipe", help="A shipped recipe (quickstart, paper, paper-lora) or a file."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a key of the recipe or config; repeatable.",
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="The folder to fill.")]
ProcessesOption = Annotated[
    int | None, typer.Option("--num-proc", min=1, help="Processes at work. Default: one a core.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
FolderArgument = Annotated[
    Path, typer.Argument(help="The folder of a build or of `augesc filter`.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]
