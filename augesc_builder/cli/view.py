"""The command ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import DebugOption, QuietOption, run_to_read
from augesc_builder.run.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(view)


def view(
    corpus: Annotated[
        Path,
        typer.Argument(
            parser=run_to_read,
            help="The folder of a build, a filter or a corpus, or a file of sessions.",
        ),
    ],
    port: Annotated[
        int, typer.Option(help="Where to listen on this machine; 0: any that is free.")
    ] = 8_017,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Look at a corpus in the browser: tables, figures, sessions, rejected texts."""
    from augesc_builder.human_evaluation.view import view as look

    look(corpus, port, Progress(quiet=quiet))
