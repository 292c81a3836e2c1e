"""The commands of human evaluation: ``study create``, ``export``, ``import`` and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import (
    DebugOption,
    DryRunOption,
    OutOption,
    QuietOption,
    name_or_path,
    path,
)
from augesc_builder.run.progress import Progress

group = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Ask people: a quality study of corpora, or a comparison of dialog systems.",
)


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    app.add_typer(group, name="study")


StudyArgument = Annotated[
    Path, typer.Argument(metavar="STUDY", parser=path, help="The folder of `augesc study create`.")
]


@group.command()
def create(
    out: OutOption,
    corpora: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]CORPUS...",
            parser=name_or_path,
            help="Sets of sessions: folders of corpora or runs, files, esconv, augesc, sample.",
        ),
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", parser=name_or_path, help="Settings: quality, interactive, a file."
        ),
    ] = "quality",
    form: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            parser=name_or_path,
            help="paper, behaviours, interactive, or a YAML file. Default: the settings'.",
        ),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Sessions of each corpus. [default: 60]")
    ] = None,
    ratings: Annotated[
        int | None, typer.Option(min=1, max=100, help="People who rate a session. [default: 3]")
    ] = None,
    per_person: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Sessions a person, about. [default: 15]")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR|URL#MODEL",
            help="A model to talk with in an interactive study, or an endpoint; repeatable.",
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="Override a key of the settings; repeatable."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all that is drawn. [default: 13]")
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw sessions, deal them to people, and write the study's folder with personal links."""
    from augesc_builder.human_evaluation.create import create as create_study
    from augesc_builder.human_evaluation.create import given_corpora, given_systems
    from augesc_builder.human_evaluation.settings import load_settings

    given = {
        "form": form,
        "sessions": sessions,
        "ratings": ratings,
        "per_person": per_person,
        "seed": seed,
    }
    named = [f"{key}={value}" for key, value in given.items() if value is not None]
    overrides = [*given_systems(system or []), *named, *(override or [])]
    settings = load_settings(config, overrides)
    create_study(settings, given_corpora(corpora or []), out, Progress(quiet=quiet))


@group.command()
def export(
    study: StudyArgument,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="PATH", parser=path, help="The file, or folder, to write."),
    ],
    to: Annotated[
        str,
        typer.Option(metavar="FORMAT", help="csv, parquet, events, people, potato, label-studio."),
    ] = "csv",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the answers as a table, or the study in the form of another tool."""
    from augesc_builder.human_evaluation.exchange import export as export_study
    from augesc_builder.human_evaluation.study import Study

    export_study(Study.open(study), out, to, Progress(quiet=quiet))


@group.command(name="import")
def import_(
    study: StudyArgument,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", parser=path, help="Ratings: CSV, or Label Studio's JSON."),
    ],
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Add ratings that people gave elsewhere; every one is checked against the study first."""
    from augesc_builder.human_evaluation.imports import import_ratings
    from augesc_builder.human_evaluation.study import Study

    import_ratings(Study.open(study), file, Progress(quiet=quiet))


@group.command()
def serve(
    study: StudyArgument,
    host: Annotated[
        str, typer.Option(help="Where to listen; anything but this machine opens it to others.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    url_prefix: Annotated[
        str,
        typer.Option(metavar="PATH|URL", help="Where a web server in front shows the pages."),
    ] = "",
    links: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="Write the personal links, as CSV."),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Serve the pages of a study to the people who take part in it."""
    from augesc_builder.human_evaluation.serve import serve_study

    serve_study(study, host, port, url_prefix, links, Progress(quiet=quiet))


@group.command()
def report(
    study: StudyArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", parser=path, help="Write tables, figures and numbers there."
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's Table 3, or 4, beside ours.")
    ] = False,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="TEST", help="student, welch, mann-whitney or paired. [default: student]"
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="session|rating",
            help="What is one observation of a test. [default: session, its mean]",
        ),
    ] = None,
    holm: Annotated[
        bool, typer.Option("--holm", help="Correct p-values for how many there are.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Test all others against this set, or system, too."),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.5, help="p below it is marked. [default: 0.01]"),
    ] = None,
    hasty: Annotated[
        float | None,
        typer.Option(
            min=0, max=86_400, help="Seconds in which nobody reads one. [default: the study's]"
        ),
    ] = None,
    resamples: Annotated[
        int | None,
        typer.Option(min=100, max=100_000, help="Draws behind the intervals. [default: 2000]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draws. [default: 13]")] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Report what people answered: means or preferences, tests, agreement; with figures."""
    from augesc_builder.human_evaluation.report import report as report_on
    from augesc_builder.human_evaluation.study import Study

    given = {
        **{"test": test, "unit": unit, "holm": holm or None, "reference": reference},
        **{"level": level, "hasty": hasty, "resamples": resamples, "seed": seed},
    }
    known = {key: value for key, value in given.items() if value is not None}
    report_on(Study.open(study), out, Progress(quiet=quiet), with_paper=paper, **known)


@group.command()
def judge(
    study: StudyArgument,
    endpoint: Annotated[
        str,
        typer.Option(metavar="URL", help="An OpenAI-compatible address, up to and with /v1."),
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The model, as the endpoint calls it.")
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", parser=name_or_path, help="Settings of the judge, or a file."
        ),
    ] = "judge",
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="Override a key of the settings; repeatable."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a model fill the form as one more annotator, marked, and never mixed with people."""
    from augesc_builder.human_evaluation.judge import judge as let_judge
    from augesc_builder.human_evaluation.judge import plan
    from augesc_builder.human_evaluation.judge_settings import load_judge
    from augesc_builder.human_evaluation.study import Study

    given = {"endpoint.base_url": endpoint, "endpoint.model": model}
    named = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    settings, progress = load_judge(config, [*named, *(override or [])]), Progress(quiet=quiet)
    if dry_run:
        for line in plan(Study.open(study), settings):
            progress.say(line)
        return
    let_judge(Study.open(study), settings, progress)
