"""The commands ``select`` and ``pairs``: which sessions are kept of a query, and which are not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import (
    DebugOption,
    OutOption,
    QuietOption,
    SetOption,
    path,
    run_to_read,
)
from augesc_builder.cli.options import name_or_path as name_or_file
from augesc_builder.run.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(select)
    app.command()(pairs)


def select(
    sessions: Annotated[
        Path,
        typer.Argument(
            parser=run_to_read,
            help="Sessions with several for a query: a run's folder, or a table.",
        ),
    ],
    out: OutOption,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            parser=name_or_file,
            help="Its sections select and quality say how.",
        ),
    ] = "paper",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Choose the best sessions of each query by a measure of quality: to OUT/data."""
    from augesc_builder.pipeline.select import stage

    stage.standalone(sessions, out, Progress(quiet=quiet), recipe=recipe, overrides=override or ())


def pairs(
    run: Annotated[
        Path,
        typer.Argument(
            parser=run_to_read, help="The folder of a build that chose, or of `select`."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", parser=path, help="A new file: .jsonl, or else .parquet."
        ),
    ],
    margin: Annotated[
        float,
        typer.Option(min=0, max=1e9, help="How far the scores lie apart, at least; never equal."),
    ] = 0.0,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write chosen and rejected sessions of a query for preference training, as TRL takes them."""
    from augesc_builder.pipeline.select.pairs import write_pairs

    if math.isnan(margin):
        raise typer.BadParameter("--margin: expected a number, found nan")

    write_pairs(run, out, margin, Progress(quiet=quiet))
