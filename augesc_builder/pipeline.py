"""The whole project in one place: ``build(recipe, folder)`` runs the stages in order.

::

    queries ──┐
              ├─► generate ──► filter ──► statistics ──► card
    finetune ─┘

Each stage reads the tables of those before it and writes its own; nothing flows back. A stage with
a completion mark is not run again.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from augesc_builder import __version__, stages
from augesc_builder.errors import InputError, RecipeError
from augesc_builder.progress import Progress
from augesc_builder.recipe import dump_recipe
from augesc_builder.run_folder import RunFolder
from augesc_builder.settings import Queries, Recipe
from augesc_builder.workers import cores

_PIECE = 1 << 20
_HUGE = 1 << 30
"""Bytes from which a file is not read through for its digest: a dump may have tens of GB."""

Stage = Callable[[RunFolder, Recipe, Progress], None]


def _queries(run: RunFolder, recipe: Recipe, progress: Progress) -> None:
    num_proc = worker_processes(recipe.queries)
    stages.queries(run, recipe.queries, "queries", progress, num_proc)


def _finetune(run: RunFolder, recipe: Recipe, progress: Progress) -> None:
    stages.finetune(run, recipe, "checkpoint", progress)


def _generate(run: RunFolder, recipe: Recipe, progress: Progress) -> None:
    queries = stages.table_files(run.path / "queries", "queries")
    stages.generate(run, recipe, queries, run.path / "checkpoint", "generations", progress)


def _filter(run: RunFolder, recipe: Recipe, progress: Progress) -> None:
    from augesc_builder.filtering import Filter

    generations = stages.table_files(run.path / "generations", "generations")
    judge = Filter(recipe.requirements, classifier=recipe.safety.classifier)
    stages.filter_(run, judge, generations, "corpus", progress, model=recipe.backbone.label)


def _statistics(run: RunFolder, recipe: Recipe, progress: Progress) -> None:
    from augesc_builder.measuring import Measuring
    from augesc_builder.sources.sessions import sessions_files

    what = Measuring(trained_on=stages.finetuned_on(run, recipe), seed=recipe.seed)
    corpus = run.path / "corpus"
    stages.statistics(run, {"corpus": sessions_files(corpus)}, what, "corpus", progress)


def _card(run: RunFolder, _: Recipe, __: Progress) -> None:
    stages.card(run, "corpus")


STAGES: Mapping[str, Stage] = {
    "queries": _queries,
    "finetune": _finetune,
    "generate": _generate,
    "filter": _filter,
    "statistics": _statistics,
    "card": _card,
}
"""The stages of a build, in order."""


def build(
    recipe: Recipe,
    folder: str | Path,
    progress: Progress | None = None,
    *,
    until: str | None = None,
) -> bool:
    """Run every stage that is not done yet; give ``False`` when there was nothing to do.

    ``until`` names the last stage to run, for those who spread a run over several days.

    A run that was killed goes on where it was. Under ``accelerate launch`` the first process does
    everything, and the others join it for fine-tuning.
    """
    progress = progress or Progress()
    wanted = _stages_until(until)
    rank = int(os.environ.get("RANK", "0"))
    if rank:
        _join_finetuning(recipe, Path(folder))
        return True
    check_inputs(recipe)
    with RunFolder(folder, run_settings(recipe)) as run:
        todo = [name for name in wanted if not run.is_complete(name)]
        if not todo:
            return False
        if "versions" not in run.manifest:
            run.write_text("recipe.yaml", dump_recipe(recipe))
            run.record(recipe=recipe.name, seed=recipe.seed, versions=versions())
        for number, name in enumerate(wanted, 1):
            if name not in todo:
                progress.say(f"[{number}/{len(wanted)}] {name}: done before")
                continue
            progress.say(f"[{number}/{len(wanted)}] {name}")
            STAGES[name](run, recipe, progress)
    return True


def _stages_until(until: str | None) -> list[str]:
    names = list(STAGES)
    if until is None:
        return names
    if until not in names:
        near = difflib.get_close_matches(until, names, n=1)
        raise RecipeError(
            f"unknown stage {until!r}; expected one of {', '.join(names)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return names[: names.index(until) + 1]


def run_settings(recipe: Recipe) -> dict[str, Any]:
    """Give what must not change while a folder is filled: the recipe and its local inputs."""
    return {**recipe.settings(), "inputs": input_digests(recipe)}


def input_digests(recipe: Recipe) -> dict[str, str]:
    """Give a digest of every local file that the recipe reads, by the key that names it."""
    from augesc_builder.sources import sample
    from augesc_builder.sources.reddit import ON_THE_HUB

    files: dict[str, list[Path]] = {}
    if recipe.finetune.sessions == "sample":
        files["finetune.sessions"] = [sample.SESSIONS]
    elif recipe.finetune.sessions != "esconv":
        files["finetune.sessions"] = [Path(recipe.finetune.sessions)]
    for i, origin in enumerate(recipe.queries.sources):
        key = f"queries.sources.{i}"
        if origin.source == "sample":
            files[key] = [sample.QUERIES]
        elif origin.path is not None and not origin.path.startswith(ON_THE_HUB):
            files[key] = _files_below(Path(origin.path))
    return {key: digest(paths) for key, paths in files.items()}


def worker_processes(settings: Queries) -> int:
    """Say how many processes judge posts: one for each core, where there is a dump worth it."""
    large = 32 << 20
    sizes = [
        file.stat().st_size
        for origin in settings.sources
        if origin.source == "reddit" and origin.path is not None
        for file in _files_below(Path(origin.path))
        if file.is_file()  # not an address on the Hub
    ]
    return cores() if sum(sizes) > large else 1


def check_inputs(recipe: Recipe) -> None:
    """Find mistakes in local inputs before anything is written or trained."""
    from augesc_builder.sources.sessions import BUNDLED, ON_THE_HUB, read_training_sessions

    if recipe.finetune.sessions not in {BUNDLED, ON_THE_HUB}:
        sessions, _ = read_training_sessions(recipe.finetune.sessions, None)
        if len(sessions) < recipe.finetune.n_sessions:
            raise InputError(
                f"holds {len(sessions)} sessions, and finetune.n_sessions is "
                f"{recipe.finetune.n_sessions}; lower it with --set finetune.n_sessions=N",
                recipe.finetune.sessions,
            )
    if recipe.backbone.name is not None:
        from augesc_builder.backbone import check_folder

        check_folder(recipe.backbone.name)
    if recipe.generate.tensor_parallel > 1:
        from augesc_builder.backbone import check_parts, config_of

        origin = recipe.backbone
        config = config_of(origin.from_scratch, origin.name, origin.revision)
        check_parts(config, origin.label, recipe.generate.tensor_parallel)


def versions() -> dict[str, str]:
    """Give the versions of what a run depends on."""
    packages = (
        *("datasets", "transformers", "torch", "accelerate", "nltk", "huggingface-hub"),
        *("evaluate", "tokenizers", "pyarrow", "numpy"),
    )
    return {
        "augesc-builder": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _join_finetuning(recipe: Recipe, folder: Path) -> None:
    """Take part in the first process's fine-tuning; write nothing."""
    from augesc_builder.finetune import finetune
    from augesc_builder.sources.sessions import read_training_sessions

    run = RunFolder(folder, {})
    if run.is_complete("finetune"):
        return
    sessions, _ = read_training_sessions(recipe.finetune.sessions, recipe.finetune.revision)
    finetune(recipe, sessions, lambda _: None, run.work("finetune"), Progress(quiet=True))


def _files_below(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def digest(paths: Sequence[Path]) -> str:
    """Give a short digest of the bytes of files; of huge ones, of their size, start and end."""
    running = hashlib.sha256()
    for path in paths:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                if size > _HUGE:
                    running.update(f"{size}/".encode() + file.read(_PIECE))
                    file.seek(-_PIECE, os.SEEK_END)
                while piece := file.read(_PIECE):
                    running.update(piece)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}; check the path", path) from None
    return running.hexdigest()[:16]
