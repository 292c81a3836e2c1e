"""The commands that train dialog models, evaluate them and talk to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.progress import Progress

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a config key; repeatable."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def train(
    out: Annotated[Path, typer.Option("--out", help="The folder to fill.")],
    config: Annotated[
        str,
        typer.Option(help="A shipped config (tiny, esconv, esconv_then_augesc) or a file."),
    ] = "tiny",
    override: SetOption = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="PROBLEM_TYPE", help="Train without this problem type; repeatable."),
    ] = None,
    resume_from: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Go on from this checkpoint. Default: the newest in OUT."),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune a dialog model on sessions: Blender on ESConv, then on AugESC."""
    from augesc_builder.training.config import load_config
    from augesc_builder.training.run import train as run

    given = list(override or ())
    if leave_out:
        given.append(f"data.leave_out={leave_out!r}")
    run(load_config(config, given), out, Progress(quiet=quiet), resume_from=resume_from)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
