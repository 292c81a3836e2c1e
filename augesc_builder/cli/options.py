"""Options that several commands share, each defined once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from augesc_builder.config.paths import check_path
from augesc_builder.run.store import is_address

if TYPE_CHECKING:
    from augesc_builder.config.recipe import Recipe


def path(text: str) -> Path:
    """Take an option that is a path on this machine."""
    text = text.removeprefix("file://")
    if is_address(text):
        raise typer.BadParameter(f"{text[:80]} is an address; give a path on this machine")
    found = Path(name_or_path(text))
    # Arrow would take a first part such as "sample:" for the scheme of an address.
    return found.absolute() if ":" in "".join(found.parts[:1]) else found


def run_to_fill(text: str) -> Path:
    """Take the folder of a run to fill: a path, or an address, whose working copy it is then."""
    if not is_address(text):
        return path(text)
    from augesc_builder.run.copies import folder_of

    return folder_of(text)


def run_to_see(text: str) -> Path:
    """Take the folder of a run that is there; of one at an address no files are fetched."""
    if not is_address(text):
        return path(text)
    from augesc_builder.run.copies import opened

    return opened(text)


def run_to_read(text: str) -> Path:
    """Take a run or a folder of one to read; what is at an address is fetched."""
    if not is_address(text):
        return path(text)
    from augesc_builder.run.copies import fetched

    return fetched(text)


def set_to_read(text: str) -> str:
    """Take ``PATH`` or ``NAME=PATH``, where the path may be an address."""
    name, equals, at = text.rpartition("=")
    return f"{name}{equals}{run_to_read(at)}" if is_address(at) else name_or_path(text)


def name_or_path(text: str) -> str:
    """Take an option that is a name or a path; ``NAME=PATH`` too is looked at as a whole."""
    try:
        check_path(text.rpartition("=")[2])
        return check_path(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        parser=name_or_path,
        help="A shipped recipe (quickstart, smollm2, paper, paper-lora, paper-grounded, "
        "paper-blender, tiny) or a file.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Override a key of the recipe or config; repeatable.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", parser=run_to_fill, help="The folder to fill, or its address."
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--num-proc", min=1, max=1024, help="Processes at work. Default: one a core."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
FolderArgument = Annotated[
    Path, typer.Argument(parser=run_to_read, help="The folder of a build or of `augesc filter`.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]
KeepOption = Annotated[
    int | None,
    typer.Option(
        "--keep",
        min=1,
        max=1_000_000,
        help="Generate until so many sessions are kept, of all sources: generate.keep.",
    ),
]


ExecutorOption = Annotated[
    Literal["local", "ray", "slurm"] | None,
    typer.Option(help="Who makes the shards. Default: the recipe's executor.type."),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="Have the shards made by the Ray cluster there: auto, local, HOST:PORT or "
        "ray://HOST:PORT. Default: the recipe's executor.address.",
    ),
]


def executed_by(
    overrides: list[str], executor: str | None, ray_address: str | None = None
) -> list[str]:
    """Return overrides with those of ``--executor`` and ``--ray-address``, which implies ray."""
    given = _executor(executor, ray_address)
    return [*overrides, *(f"executor.{key}={json.dumps(value)}" for key, value in given.items())]


def executing(recipe: Recipe, executor: str | None, ray_address: str | None) -> Recipe:
    """Return a recipe with the same, for a command that generates nothing.

    What only one process can generate is no matter there.
    """
    chosen = recipe.executor.model_copy(update=_executor(executor, ray_address))
    return recipe.model_copy(update={"executor": chosen})


def _executor(executor: str | None, ray_address: str | None) -> dict[str, str]:
    if ray_address is None:
        return {} if executor is None else {"type": executor}
    if executor not in {None, "ray"}:
        raise typer.BadParameter(f"--ray-address goes with --executor ray, found {executor}")
    return {"type": "ray", "address": ray_address}


def keeping(overrides: list[str] | None, keep: int | None) -> list[str]:
    """Return overrides with that of ``--keep``."""
    return [*(overrides or ()), *([] if keep is None else [f"generate.keep={keep}"])]
