"""The commands ``slurm`` and ``ray-job``: builds for clusters, as files to be read and edited."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from augesc_builder.cli.options import DebugOption, OutOption, SetOption, name_or_path, path
from augesc_builder.errors import ExecutorError
from augesc_builder.run.copies import place_of
from augesc_builder.run.progress import Progress


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(slurm)
    app.command()(ray_job)


def _sbatch_option(text: str) -> str:
    if not text.startswith("-") or not text.isprintable():
        raise typer.BadParameter(
            f"{text[:80]!r}: expected an option of sbatch, such as --time=8:00"
        )
    return text


RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", parser=name_or_path, help="A shipped recipe or a file."),
]


def slurm(
    recipe: RecipeArgument,
    out: OutOption,
    array: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Elements: workers that make shards."),
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Begin a Ray cluster in the allocation instead.")
    ] = False,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Nodes of the Ray cluster.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="The file to write. Default: OUT.sbatch."),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it, too.")] = False,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            parser=_sbatch_option,
            help="Of every job, such as --sbatch=--gres=gpu:1; repeatable.",
        ),
    ] = None,
    override: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Write a batch file that builds on Slurm: queries and training, the shards, all the rest.

    Shards are made by the elements of an array (--array 16), or on Ray (--ray --nodes 4).
    """
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.executors import batch
    from augesc_builder.pipeline.inputs import stages_of

    n = nodes if ray else array
    if n is None or (array if ray else nodes) is not None:
        raise ExecutorError(
            "expected either --array N, for the elements of an array, or --ray --nodes N, for a "
            "Ray cluster of so many nodes"
        )
    executor = "ray" if ray else "slurm"
    chosen = load_recipe(recipe, [*(override or ()), f"executor.type={executor}"])
    stages = stages_of(chosen)
    named = str(Path(recipe).absolute()) if Path(recipe).is_file() else recipe
    place = place_of(out.absolute())
    command = [sys.executable, "-m", "augesc_builder", "build"]
    command += ["--recipe", named, "--out", str(place)]
    for given in override or ():
        command += ["--set", given]
    if submit:
        batch.check_cluster(array)
    beside = out if place.address is None else Path(place.address.rpartition("/")[2])
    target = file or beside.with_name(f"{beside.name}.sbatch")
    before = stages[stages.index("generate") - 1]
    file_of = batch.Batch(chosen.name, command, n, before, sbatch or (), on_ray=ray)
    batch.write_batch(target, file_of.text(target))
    if submit:
        Progress().say(batch.submit(target))
    else:
        Progress().say(f"{target} is written; `bash {shlex.quote(str(target))}` submits it")


def ray_job(
    recipe: RecipeArgument,
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="The image of all containers: augesc and Ray.")
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="The run's folder, as containers see it.")
    ],
    claim: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A volume claim (ReadWriteMany) that is mounted where --out lies.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=100_000, help="Nodes of Ray beside the head.")
    ] = 1,
    gpus: Annotated[int, typer.Option(min=0, max=1024, help="GPUs of each of them.")] = 1,
    cpus: Annotated[int, typer.Option(min=1, max=10_000, help="Cores of each.")] = 8,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of each.")] = "64Gi",
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=path, help="The file to write. Default: print it."),
    ] = None,
    override: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Write a manifest that builds on Kubernetes: a RayJob of the operator KubeRay.

    It is to be read and edited; `kubectl apply -f FILE` submits it.
    """
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.executors.batch import write_batch
    from augesc_builder.executors.manifest import RayJob
    from augesc_builder.pipeline.inputs import stages_of

    chosen = load_recipe(recipe, [*(override or ()), "executor.type=ray"])
    if Path(recipe).is_file():
        raise ExecutorError(
            f"{recipe}: containers do not see this file; give a shipped recipe and --set, or put "
            f"it into the image and its path there behind --recipe in the manifest"
        )
    job = RayJob(
        name=chosen.name,
        recipe=recipe,
        overrides=override or (),
        image=image,
        out=out,
        claim=claim,
        workers=workers,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        trains="finetune" in stages_of(chosen),
    )
    if file is None:
        typer.echo(job.text(), nl=False)
    else:
        write_batch(file, job.text())
        Progress().say(f"{file} is written; `kubectl apply -f {shlex.quote(str(file))}` submits it")
