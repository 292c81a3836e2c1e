"""The command line: one command a stage, and ``build`` for all of them.

Nothing happens here but reading options; every command calls the library.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder import __version__
from augesc_builder.errors import AugescError
from augesc_builder.progress import Progress

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Regenerate the AugESC corpus of emotional support conversations, or make your own.",
)

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="A shipped recipe (quickstart, paper, paper-lora) or a file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a recipe key; repeatable."),
]
OutOption = Annotated[Path, typer.Option("--out", help="The folder to fill.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def build(
    out: OutOption,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and an estimate; change nothing.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run every stage: queries, finetune, generate, filter, statistics, card.

    Run the same command again to go on after a stop.
    """
    from augesc_builder.recipe import load_recipe

    chosen, progress = load_recipe(recipe, override or ()), Progress(quiet=quiet)
    if dry_run:
        from augesc_builder.plan import plan

        for line in plan(chosen, out):
            progress.say(line)
        return
    from augesc_builder import pipeline
    from augesc_builder.summary import summary

    if pipeline.build(chosen, out, progress):
        progress.say(summary(out))
    else:
        progress.say(f"{out} is complete: nothing to do. Its corpus is in {out / 'corpus'}")


@app.command()
def queries(
    out: OutOption,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME[=PATH]",
            help="sample, or empathetic_dialogues=PATH; repeatable. Default: the recipe's.",
        ),
    ] = None,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Collect trigger queries from corpora of posts."""
    from augesc_builder import alone
    from augesc_builder.recipe import load_recipe

    progress = Progress(quiet=quiet)
    alone.queries(load_recipe(recipe, override or ()), source or [], out, progress)


@app.command()
def finetune(
    out: OutOption,
    sessions: Annotated[
        str | None,
        typer.Option(help="sample, esconv, or a file in ESConv's format. Default: the recipe's."),
    ] = None,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune the recipe's backbone; the checkpoint lands in OUT/checkpoint."""
    from augesc_builder import alone
    from augesc_builder.recipe import load_recipe

    given = [f"finetune.sessions={sessions}"] if sessions else []
    chosen = load_recipe(recipe, [*(override or ()), *given])
    alone.finetune(chosen, out, Progress(quiet=quiet))


@app.command()
def generate(
    queries: Annotated[Path, typer.Argument(help="A queries table: a Parquet file or a folder.")],
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint folder of transformers.")],
    out: OutOption,
    recipe: RecipeOption = "quickstart",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Continue each query into conversations, with a fine-tuned checkpoint."""
    from augesc_builder import alone
    from augesc_builder.recipe import load_recipe

    progress = Progress(quiet=quiet)
    alone.generate(load_recipe(recipe, override or ()), queries, checkpoint, out, progress)


@app.command(name="filter")
def filter_(
    generations: Annotated[
        Path, typer.Argument(help="A generations table: a Parquet file or a folder of them.")
    ],
    out: OutOption,
    recipe: RecipeOption = "paper",
    override: SetOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Apply the eight requirements: sessions to OUT/data, the rest to OUT/rejected."""
    from augesc_builder import alone
    from augesc_builder.recipe import load_recipe

    progress = Progress(quiet=quiet)
    alone.filter_(load_recipe(recipe, override or ()), generations, out, progress)


@app.command()
def stats(
    sessions: Annotated[
        list[Path],
        typer.Argument(help="Parquet files with messages, corpus folders, ESConv's JSON lines."),
    ],
    out: OutOption,
    paper: Annotated[bool, typer.Option("--paper", help="Print the paper's columns too.")] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compute the statistics of the paper's Table 2."""
    from augesc_builder import alone

    alone.statistics(sessions, out, Progress(quiet=quiet), with_paper=paper)


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="The folder of a build.")],
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the dataset card of a build again, from the build's own files."""
    from augesc_builder import alone

    alone.card(folder, Progress(quiet=quiet))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version, where asked for."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: a mistake of the user's is one line and exit code 2."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    _calm_libraries()
    try:
        app()
    except AugescError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"augesc: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("augesc: stopped; run the same command again to go on", err=True)
        sys.exit(130)


def _calm_libraries() -> None:
    """Keep the bars and chatter of libraries out of ours; their warnings stay."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("accelerate").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
