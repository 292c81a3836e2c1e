"""The commands that train models, evaluate them and talk to them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import (
    DebugOption,
    DryRunOption,
    OutOption,
    QuietOption,
    SeedOption,
    SetOption,
    name_or_path,
    path,
)
from augesc_builder.run.progress import Progress

ModelArgument = Annotated[
    str,
    typer.Argument(parser=name_or_path, help="The folder of a training or model, or a Hub name."),
]
BeamsOption = Annotated[int, typer.Option(min=1, help="Beams of beam search.")]
TemperatureOption = Annotated[float, typer.Option(min=0.01, help="Of sampling.")]
NoRepeatOption = Annotated[
    int, typer.Option(min=0, help="Say no n-gram of this length twice; 0: no such rule.")
]
MaxTokensOption = Annotated[int, typer.Option(min=1, help="Tokens of a response at most.")]


def train(
    out: OutOption,
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            parser=name_or_path,
            help="A shipped config (tiny, esconv, esconv_then_augesc, esconv_equal_steps, "
            "strategies) or a file.",
        ),
    ] = "tiny",
    override: SetOption = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="PROBLEM_TYPE", help="Train without this problem type; repeatable."),
    ] = None,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=path,
            help="Go on from this checkpoint. Default: the newest in OUT.",
        ),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune a dialog model on sessions, or a classifier on labelled texts."""
    from augesc_builder.config.training import load_config
    from augesc_builder.training.run import train as run

    given = list(override or ())
    if leave_out:
        given.append(f"data.leave_out={leave_out!r}")
    run(load_config(config, given), out, Progress(quiet=quiet), resume_from=resume_from)


def evaluate_model(
    model: ModelArgument,
    sessions: Annotated[
        str,
        typer.Option(
            parser=name_or_path,
            help="esconv:SPLIT, sample:SPLIT, a table, a corpus folder, a file of lines.",
        ),
    ] = "esconv:test",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            parser=name_or_path,
            help="Compare with this model, pair by pair; repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", parser=path, help="A folder for all numbers and responses."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Sessions at most, drawn.")] = None,
    perplexity_only: Annotated[
        bool, typer.Option("--perplexity-only", help="Let the model say nothing itself.")
    ] = False,
    beams: BeamsOption = 1,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Sample responses. Default: greedy.")
    ] = None,
    temperature: TemperatureOption = 1.0,
    no_repeat_ngram: NoRepeatOption = 0,
    max_tokens: MaxTokensOption = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses at a time.")] = 32,
    resamples: Annotated[int, typer.Option(min=100, help="Of intervals and tests.")] = 1000,
    seed: SeedOption = 13,
    esconv_folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", parser=name_or_path, help="ESConv's files. Default: the Hub's."
        ),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Evaluate a dialog model or a classifier; with --against, several and paired tests."""
    from augesc_builder.config.training import load_config
    from augesc_builder.dialog.folder import find_model
    from augesc_builder.dialog.model import Decoding
    from augesc_builder.evaluation.classification import evaluate_classifiers
    from augesc_builder.evaluation.evaluate import Setup, evaluate
    from augesc_builder.evaluation.report import classification_tables, evaluation_tables
    from augesc_builder.models.sequence_classifier import is_classifier

    progress = Progress(quiet=quiet)
    data = load_config("esconv").data.model_copy(update={"esconv_folder": esconv_folder})
    names = [model, *(against or ())]
    if is_classifier(find_model(model)):
        progress.say(
            classification_tables(
                evaluate_classifiers(
                    *(names, sessions, data, progress, out),
                    limit=limit,
                    batch_size=batch_size,
                    resamples=resamples,
                    seed=seed,
                )
            )
        )
        return
    decoding = Decoding(max_tokens, beams, top_p, temperature, no_repeat_ngram, seed, batch_size)
    setup = Setup(sessions, data, decoding, limit, not perplexity_only, resamples, seed)
    report = evaluate(names, setup, progress, out)
    progress.say(evaluation_tables(report))


def chat(
    model: ModelArgument,
    beams: BeamsOption = 1,
    top_p: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Sample from the likeliest tokens that sum to this."),
    ] = 0.9,
    temperature: TemperatureOption = 0.9,
    no_repeat_ngram: NoRepeatOption = 3,
    max_tokens: MaxTokensOption = 64,
    seed: SeedOption = 13,
    on_danger: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND|URL", help="Hand on what sounds like danger: JSON to stdin, or POSTed."
        ),
    ] = None,
    danger_classifier: Annotated[
        str | None,
        typer.Option(metavar="NAME|DIR", help="A text classifier that looks for danger, too."),
    ] = None,
    danger_label: Annotated[
        list[str] | None, typer.Option(help="A label of it that means danger; repeatable.")
    ] = None,
    danger_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Its score from which on it counts.")
    ] = 0.5,
    debug: DebugOption = False,
) -> None:
    """Talk to a dialog model in the terminal; /reset, /save FILE and /quit are commands."""
    if (danger_classifier is None) != (not danger_label):
        raise typer.BadParameter("--danger-classifier and --danger-label belong together")
    from augesc_builder.config.recipe import SafetyClassifier
    from augesc_builder.dialog.chat import Chat
    from augesc_builder.dialog.handover import hand_over_to
    from augesc_builder.dialog.model import Decoding, DialogModel
    from augesc_builder.text.safety import ClassifierScanner

    told = hand_over_to(on_danger) if on_danger else None
    classifier = None
    if danger_classifier is not None:
        classifier = ClassifierScanner(
            SafetyClassifier(
                model=danger_classifier,
                revision=None,
                threshold=danger_threshold,
                labels={label.lower(): "danger" for label in danger_label or ()},
            )
        )

    decoding = Decoding(
        max_tokens, beams, top_p if beams == 1 else None, temperature, no_repeat_ngram, seed
    )
    chatting = Chat(
        *(DialogModel(model), decoding, sys.stdin, sys.stdout),
        classifier=classifier,
        on_danger=told,
    )
    chatting.run()


def simulate(
    out: OutOption,
    seeker: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL#MODEL",
            parser=name_or_path,
            help="Who plays the seekers: a dialog model, a chat model, or an endpoint.",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR|URL#MODEL", help="A model to talk to, or an endpoint; repeatable."
        ),
    ] = None,
    cards: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            parser=name_or_path,
            help="Role cards: esconv:SPLIT, sample:SPLIT, a file. [default: esconv:test]",
        ),
    ] = None,
    esconv_folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", parser=name_or_path, help="ESConv's files. Default: the Hub's."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Cards at most, drawn.")] = None,
    turns: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of seeker and system. [default: 8]")
    ] = None,
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", parser=name_or_path, help="Settings: simulation, or a file."
        ),
    ] = "simulation",
    override: SetOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a model that plays seekers talk to dialog models; beside people, never in their place."""
    from augesc_builder.simulation.settings import given_seeker, given_systems, load_simulation

    given = {
        **{"cards.path": cards, "cards.esconv_folder": esconv_folder},
        **{"cards.limit": limit, "turns": turns},
    }
    named = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    parties = [*(given_seeker(seeker) if seeker else ()), *given_systems(system or ())]
    settings = load_simulation(config, [*parties, *named, *(override or ())])
    progress = Progress(quiet=quiet)
    if dry_run:
        from augesc_builder.simulation.simulate import plan

        for line in plan(settings):
            progress.say(line)
        return
    from augesc_builder.simulation.simulate import simulate as run

    run(settings, out, progress)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command("evaluate-model")(evaluate_model)
    app.command()(chat)
    app.command()(simulate)
