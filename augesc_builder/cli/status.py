"""The command ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import DebugOption, run_to_see
from augesc_builder.run.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(status)


def status(
    run: Annotated[
        Path,
        typer.Argument(parser=run_to_see, help="The folder of a build, a stage or a training."),
    ],
    for_programs: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    debug: DebugOption = False,
) -> None:
    """Show what a run is at, while it works or after: stages done, rate, time left, who."""
    from augesc_builder.run.status import as_json, overview, told

    found = overview(run)
    Progress().say(as_json(found) if for_programs else told(found))
