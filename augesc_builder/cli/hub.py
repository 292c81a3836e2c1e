"""The commands that publish a corpus, and those that look it over before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from augesc_builder.cli.options import (
    DebugOption,
    DryRunOption,
    ExecutorOption,
    FolderArgument,
    ProcessesOption,
    QuietOption,
    RayAddressOption,
    SetOption,
    executing,
    name_or_path,
    run_to_fill,
    run_to_read,
)
from augesc_builder.run.progress import Progress

RegeneratedOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        parser=name_or_path,
        help="The recipe of `regenerated`. Default: tiny.",
    ),
]


def card(
    folder: FolderArgument,
    title: Annotated[str | None, typer.Option(help="Of a folder of `augesc filter`.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Its licence, as the Hub writes it: cc-by-nc-4.0.")
    ] = None,
    about: Annotated[str | None, typer.Option(help="Which model wrote the texts, how.")] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the dataset card of a build again, or that of a folder of `augesc filter`."""
    from augesc_builder.pipeline.card import filtered, stage
    from augesc_builder.run.layout import find_corpus, run_of

    progress, corpus = Progress(quiet=quiet), find_corpus(folder)
    told = {"title": title, "licence": licence, "about": about}
    if run_of(corpus) == corpus:
        filtered.write_card(corpus, told, progress)
    elif any(told.values()):
        raise typer.BadParameter("a build knows its title, licence and model itself")
    else:
        stage.standalone(run_of(corpus), progress)


def push(
    repo: Annotated[str, typer.Option(metavar="USER/NAME", help="The repo on the Hub.")],
    folder: Annotated[
        Path | None,
        typer.Argument(parser=run_to_read, help="The folder of a build or of `augesc filter`."),
    ] = None,
    config: Annotated[
        Literal["regenerated"] | None,
        typer.Option(help="Instead of a folder: what load_dataset makes under that name."),
    ] = None,
    recipe: RegeneratedOption = None,
    public: Annotated[
        bool | None,
        typer.Option("--public/--private", help="Of a new repo.", show_default="private"),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Make it a release: v1. One that is there stays."),
    ] = None,
    gated: Annotated[
        Literal["auto", "manual"] | None,
        typer.Option(help="Ask questions of who wants it; `manual`: and agree yourself."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let go of others' files that are in the way.")
    ] = False,
    dry_run: DryRunOption = False,
    model: Annotated[
        bool, typer.Option("--model", help="Push the fine-tuned checkpoint, not the corpus.")
    ] = False,
    allow_flagged: Annotated[
        bool, typer.Option("--allow-flagged", help="Publish sessions with safety flags too.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Publish a corpus on the Hugging Face Hub, in one commit."""
    from augesc_builder.errors import PublishError
    from augesc_builder.hub import publish
    from augesc_builder.hub.release import How

    progress = Progress(quiet=quiet)
    if (folder is None) == (config is None) or (recipe and not config):
        raise typer.BadParameter("give a FOLDER, or --config regenerated and its --recipe")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise PublishError(f"--repo {repo}: expected USER/NAME, such as me/my-augesc")
    folder = folder or _regenerated(recipe, quiet=quiet, dry_run=dry_run)
    how = How(public=public, replace=replace, tag=tag, gated=gated, dry_run=dry_run)
    if model:
        publish.push_model(folder, repo, progress, how)
    else:
        publish.push_corpus(folder, repo, progress, how, allow_flagged=allow_flagged)


def _regenerated(recipe: str | None, *, quiet: bool, dry_run: bool) -> Path:
    """Return the run that ``load_dataset("augesc", "regenerated")`` reads; build it if need be."""
    import datasets

    import augesc
    from augesc_builder.builder_configs import regenerate, runs_in

    config = augesc.AugESCConfig(name="regenerated", recipe=recipe)
    runs = runs_in(datasets.config.HF_DATASETS_CACHE)
    return regenerate(config, runs, quiet=quiet, dry_run=dry_run)


def safety(
    folder: FolderArgument,
    reviewed: Annotated[
        list[str] | None,
        typer.Option(metavar="SESSION_ID", help="A person looked at it, let it stand; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            parser=run_to_fill,
            help="Scan all sessions anew, and write them here.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            parser=name_or_path,
            help="Whose section `safety` says by what. Default: paper.",
        ),
    ] = None,
    override: SetOption = None,
    executor: ExecutorOption = None,
    ray_address: RayAddressOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the sessions that the safety pass flagged, and note which a person let stand.

    With --out the pass is run over a corpus again, or for the first time.
    """
    progress = Progress(quiet=quiet)
    if out is not None:
        if reviewed:
            raise typer.BadParameter("--out scans; note what was --reviewed without it")
        from augesc_builder.config.recipe import load_recipe
        from augesc_builder.pipeline.filter.scan import rescan

        chosen = load_recipe(recipe or "paper", override or ())
        rescan(folder, out, executing(chosen, executor, ray_address), progress)
        return
    if recipe or override or executor or ray_address:
        raise typer.BadParameter("nothing is scanned without --out DIR: this shows what was found")
    from augesc_builder.hub import review

    if reviewed:
        review.mark_reviewed(folder, reviewed, progress)
    else:
        review.show_flags(folder, progress)


def check_builder(
    name: Annotated[str | None, typer.Option(help="One configuration. Default: all.")] = None,
    recipe: RegeneratedOption = None,
    num_proc: ProcessesOption = None,
    debug: DebugOption = False,
) -> None:
    """Run `datasets-cli test` on load_dataset("augesc") itself, every configuration."""
    import datasets
    from datasets.commands.datasets_cli import main as datasets_cli

    import augesc

    names = [config.name for config in augesc.AugESC.BUILDER_CONFIGS]
    if name is not None and name not in names:
        raise typer.BadParameter(f"--name {name}: expected one of {', '.join(names)}")
    if recipe is not None:
        for config in augesc.AugESC.BUILDER_CONFIGS:
            if config.name == "regenerated":
                config.recipe = recipe
    chosen = ["--name", name] if name else ["--all_configs"]
    processes = ["--num_proc", str(num_proc)] if num_proc else []
    before = sys.argv
    sys.argv = ["datasets-cli", "test", "augesc", *chosen, *processes]
    try:
        datasets_cli()
    except datasets.exceptions.DatasetGenerationError as error:
        raise (error.__cause__ or error) from None
    finally:
        sys.argv = before


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(card)
    app.command()(push)
    app.command()(safety)
    app.command("test")(check_builder)
