"""The command line: one command a stage, and ``build`` for all of them.

A command reads its options and calls the library. :func:`main` turns an error of ours into one line
and an exit code, and sets what libraries want set before they are imported.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from augesc_builder import __version__
from augesc_builder.cli import choosing, hub, scaling, statistics, status, study, training, view
from augesc_builder.cli.ending import run
from augesc_builder.cli.options import (
    DebugOption,
    DryRunOption,
    ExecutorOption,
    KeepOption,
    OutOption,
    ProcessesOption,
    QuietOption,
    RayAddressOption,
    RecipeOption,
    SetOption,
    executed_by,
    executing,
    keeping,
    name_or_path,
    run_to_fill,
    run_to_read,
)
from augesc_builder.run.progress import Progress, output_errors
from augesc_builder.run.workers import warm_up

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Regenerate the AugESC corpus of emotional support conversations, or make your own.",
)


_SOURCE = typer.Option(
    "--source",
    metavar="NAME[=PATH]",
    parser=name_or_path,
    help="Where posts are from; repeatable. [default: recipe's]",
)


@app.command()
def build(
    out: OutOption,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    dry_run: DryRunOption = False,
    keep: KeepOption = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage; resume another day.")
    ] = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run every stage: queries, finetune, generate, filter, statistics, card.

    Run the same command again to resume after a stop.
    """
    from augesc_builder.config.recipe import load_recipe

    overrides = executed_by(keeping(override, keep), executor, ray_address)
    chosen, progress = load_recipe(recipe, overrides), Progress(quiet=quiet)
    if dry_run:
        from augesc_builder.pipeline.plan import plan

        for line in plan(chosen, out):
            progress.say(line)
        return
    from augesc_builder.executors import executor_of
    from augesc_builder.pipeline import build
    from augesc_builder.pipeline.summary import summary

    has_worked = build.build(chosen, out, progress, until=until)
    if executor_of(chosen.executor).joins:
        return  # another process ends the run, and says what came of it
    if not has_worked:
        where = f" Its corpus is in {out / 'corpus'}" if until is None else ""
        progress.say(f"{out} is complete: nothing to do.{where}")
    elif until in {None, list(build.STAGES)[-1]}:
        progress.say(summary(out))


@app.command()
def queries(
    out: OutOption,
    source: Annotated[list[str] | None, _SOURCE] = None,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first line that cannot be read.")
    ] = False,
    num_proc: ProcessesOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Collect trigger queries from corpora of posts."""
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.queries import stage

    given = ["queries.strict=true"] if strict else []
    chosen = load_recipe(recipe, [*(override or ()), *given])
    stage.standalone(chosen, source or [], out, Progress(quiet=quiet), num_proc)


@app.command()
def finetune(
    out: OutOption,
    sessions: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            parser=name_or_path,
            help="sample, esconv, or a file in ESConv's format. Default: the recipe's.",
        ),
    ] = None,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune the recipe's backbone; the checkpoint lands in OUT/checkpoint."""
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.finetune import stage

    given = [f"finetune.sessions={sessions}"] if sessions else []
    chosen = load_recipe(recipe, [*(override or ()), *given])
    stage.standalone(chosen, out, Progress(quiet=quiet))


@app.command()
def generate(
    queries: Annotated[
        Path,
        typer.Argument(parser=run_to_read, help="A queries table: a Parquet file or a folder."),
    ],
    out: OutOption,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=run_to_read,
            help="A checkpoint folder of transformers, where the recipe's backend needs one.",
        ),
    ] = None,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    keep: KeepOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Continue each query into conversations, by the recipe's backend.

    With --executor slurm a worker where SLURM_ARRAY_TASK_ID or AUGESC_RANK is set; the first begins
    the run, and the command without them ends it.
    """
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.generate import stage

    overrides = executed_by(keeping(override, keep), executor, ray_address)
    chosen, progress = load_recipe(recipe, overrides), Progress(quiet=quiet)
    if dry_run:
        for line in stage.plan(chosen, queries):
            progress.say(line)
        return
    stage.standalone(chosen, queries, checkpoint, out, progress)


@app.command(name="filter")
def filter_(
    generations: Annotated[
        Path | None,
        typer.Argument(
            parser=run_to_read,
            help="Parquet or JSON lines with text (and query) or messages; a file or a folder.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=run_to_fill, help="The folder to fill."),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=run_to_read,
            help="Decide again what DIR, of a filter or a build, measured. No --out: only print.",
        ),
    ] = None,
    includes_query: Annotated[
        bool, typer.Option("--includes-query", help="A text is a whole conversation.")
    ] = False,
    no_safety: Annotated[
        bool, typer.Option("--no-safety", help="Leave the safety pass out; flags are null then.")
    ] = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            parser=name_or_path,
            help="Counts tokens where rows have no counts. Default: that of --recipe, if given.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            parser=name_or_path,
            help="Thresholds. Default: paper, or those of --reuse.",
        ),
    ] = None,
    override: SetOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    num_proc: ProcessesOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Apply the eight requirements: sessions to OUT/data, the rest to OUT/rejected.

    With --executor slurm a worker where SLURM_ARRAY_TASK_ID or AUGESC_RANK is set; the first begins
    the run, and the command without them ends it.
    """
    if num_proc != 1:
        warm_up(
            "augesc_builder.pipeline.filter.filter", [path for path in (generations, reuse) if path]
        )
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.filter import again, stage

    progress = Progress(quiet=quiet)
    if reuse is not None:
        if generations is not None or includes_query or tokenizer:
            raise typer.BadParameter(
                "--reuse measures nothing: give neither a file nor how to read"
            )
        if ray_address is not None or executor not in {None, "local"}:
            raise typer.BadParameter(
                "--reuse measures nothing: one process does it; leave --executor out"
            )
        again.refilter(reuse, override or (), recipe, out, progress, num_proc)
        return
    if generations is None or out is None:
        raise typer.BadParameter("expected GENERATIONS and --out DIR, or --reuse DIR")
    stage.standalone(
        executing(load_recipe(recipe or "paper", override or ()), executor, ray_address),
        generations,
        out,
        progress,
        includes_query=includes_query,
        tokenizer=tokenizer,
        from_recipe=recipe is not None,
        scan=not no_safety,
        num_proc=num_proc,
    )


choosing.register(app)
statistics.register(app)


hub.register(app)
scaling.register(app)
status.register(app)
study.register(app)
training.register(app)
view.register(app)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version, where asked for."""
    if show:
        Progress().say(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: a mistake of the user's is one line and exit code 2."""
    # What imports make stays, and looking through it for garbage at every step is a tenth of them.
    gc.set_threshold(10_000)
    arguments = sys.argv[1:] or ["--help"]

    def command() -> Any:
        if not {"-h", "--help", "--version"} & set(arguments):
            return app(arguments, standalone_mode=False)
        _describe_additions()
        with output_errors():
            return app(arguments, standalone_mode=False)

    sys.exit(run(command, arguments))


def _describe_additions() -> None:
    """Let the help name every source, backend and requirement, those of plugins included.

    Only where help is asked for: other commands need not wait for the records.
    """
    from augesc_builder.pipeline.filter.requirements import REQUIREMENTS
    from augesc_builder.pipeline.generate.backends import backend_names
    from augesc_builder.sources.registry import query_sources

    names = [info.name if info.bundled_posts else f"{info.name}=PATH" for info in query_sources()]
    _SOURCE.help = f"{', '.join(names)}; repeatable. [default: recipe's]"
    epilogs: dict[str, str] = {
        "build": f"Backends (generate.backend.type): {', '.join(backend_names())}.",
        "filter": f"Requirements: {', '.join(REQUIREMENTS)}.",
    }
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        if name in epilogs:
            command.epilog = epilogs[name]


if __name__ == "__main__":
    main()
