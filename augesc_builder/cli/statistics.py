"""The commands ``stats``, ``quality`` and ``compare``: sets of sessions, and finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import (
    DebugOption,
    ExecutorOption,
    OutOption,
    ProcessesOption,
    QuietOption,
    RayAddressOption,
    SeedOption,
    SetOption,
    executing,
    name_or_path,
    path,
    run_to_fill,
    set_to_read,
)
from augesc_builder.run.progress import Progress
from augesc_builder.run.workers import warm_up


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(stats)
    app.command()(quality)
    app.command()(compare)


def stats(
    sessions: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]PATH...",
            parser=set_to_read,
            help="Sets: tables or lines of messages, corpus folders, ESConv's or AugESC's lines; "
            "generations and rejected rows.",
        ),
    ],
    out: OutOption,
    paper: Annotated[bool, typer.Option("--paper", help="Print the paper's columns too.")] = False,
    finetuned_on: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=path,
            help="Fine-tuning sessions in ESConv's format: what of them is memorized?",
        ),
    ] = None,
    tested_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="esconv|[NAME=]PATH",
            parser=name_or_path,
            help="Sessions that models are tested on: which of them stand in the sets? Repeatable.",
        ),
    ] = None,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Search them too; takes minutes.")
    ] = False,
    basic: Annotated[
        bool, typer.Option("--basic", help="Nothing but Table 2: the fastest.")
    ] = False,
    stop_words: Annotated[
        str | None,
        typer.Option(metavar="keep|drop", help="Stop words in Figure 4. [default: keep]"),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="PRIOR",
            help="Of Figure 4: pooled, scaled:WORDS, uninformative:COUNT. [default: pooled]",
        ),
    ] = None,
    topic_sample: Annotated[
        int | None,
        typer.Option(min=0, help="Sessions of a set in Figure 4; 0: all. [default: 10000]"),
    ] = None,
    query_sample: Annotated[
        int | None,
        typer.Option(min=0, help="Sessions of a set in Figure 3; 0: all. [default: 2000]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the samples. [default: the paper's recipe's]")
    ] = None,
    num_proc: ProcessesOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure sets of sessions: Table 2, diversity, topics, duplicates; with figures.

    With --executor slurm a worker where SLURM_ARRAY_TASK_ID or AUGESC_RANK is set; the first begins
    the run. Without a rank it sums up what workers have counted.
    """
    if num_proc != 1:
        warm_up(
            "augesc_builder.pipeline.statistics.measure",
            (Path(text.rpartition("=")[2]) for text in sessions),
        )
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.statistics import stage

    given = {
        "seed": seed,
        "statistics.stop_words": stop_words,
        "statistics.prior": prior,
        "statistics.topic_sample": "null" if topic_sample == 0 else topic_sample,
        "statistics.query_sample": "null" if query_sample == 0 else query_sample,
    }
    stage.standalone(
        sessions,
        out,
        Progress(quiet=quiet),
        with_paper=paper,
        overrides=[f"{key}={value}" for key, value in given.items() if value is not None],
        finetuned_on=finetuned_on,
        tested_on=tested_on or (),
        near_duplicates=near_duplicates,
        basic=basic,
        num_proc=num_proc,
        executor=executing(load_recipe("paper"), executor, ray_address).executor,
    )


def quality(
    sessions: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]PATH...",
            parser=set_to_read,
            help="Sets of sessions, as `augesc stats` takes them.",
        ),
    ],
    out: OutOption,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="consistency, topic_drift, informativeness, support_strategies; repeatable. "
            "[default: the recipe's, or those that need no model]",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            parser=name_or_path,
            help="Whose section `quality` says with which models.",
        ),
    ] = "paper",
    override: SetOption = None,
    num_proc: ProcessesOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure sessions beyond their form: contradictions, drift, what turns add, strategies.

    A model, where a measure has one, works in one process.
    """
    from augesc_builder.pipeline.quality import stage

    asked = [f"quality.measures={json.dumps(measure)}"] if measure else []
    stage.standalone(
        sessions,
        out,
        Progress(quiet=quiet),
        recipe=recipe,
        overrides=[*(override or ()), *asked],
        num_proc=num_proc,
    )


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN...",
            parser=set_to_read,
            help="Folders of finished builds or of `augesc filter`; the first is the reference.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=run_to_fill,
            help="Write tables, figures and numbers there.",
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Rows and columns of the paper's systems too.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Texts of this source of queries alone."),
    ] = None,
    finetuned_on: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=path,
            help="What of these sessions (ESConv's format) is memorized? Default: of each run's.",
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=100, max=100_000, help="Draws behind the intervals.")
    ] = 2_000,
    seed: SeedOption = 13,
    num_proc: ProcessesOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare finished runs: tables, what a kept session takes, differences with intervals."""
    if num_proc != 1:
        warm_up(
            "augesc_builder.pipeline.compare.measure",
            (Path(text.rpartition("=")[2]) / "corpus" for text in runs),
        )
    from augesc_builder.pipeline.compare.compare import compare as compare_runs

    compare_runs(
        runs,
        out,
        Progress(quiet=quiet),
        with_paper=paper,
        source=source,
        finetuned_on=finetuned_on,
        resamples=resamples,
        seed=seed,
        num_proc=num_proc,
    )
