"""What a recipe reads from this disk: checked before anything is written, and told by digests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augesc_builder.config.quality import MODEL_SECTIONS, Quality
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import InputError
from augesc_builder.models.backbone import check_backbone, gguf_on_disk, sha256_of
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.readers.hub import is_on_the_hub
from augesc_builder.run import layout
from augesc_builder.run.provenance import content_of, digest, files_below
from augesc_builder.text.lexicon import LEXICONS

SAFETY_LISTS = [LEXICONS / f"{name}.yaml" for name in ("safety", "danger", "medications")]
"""What the safety pass of the filter stage looks for."""


def stages_of(recipe: Recipe) -> list[str]:
    """Return the stages that a build comes to, in order.

    Not every backend needs fine-tuning; quality is measured, and the best are chosen, where a
    recipe asks for it.
    """
    optional = {
        "finetune": backend_of(recipe).needs_checkpoint,
        "select": recipe.select is not None,
        "quality": bool(recipe.quality.measures),
    }
    return [name for name in layout.STAGES if optional.get(name, True)]


def sessions_by(recipe: Recipe) -> str:
    """Return the stage that writes the sessions of the corpus."""
    return "filter" if recipe.select is None else "select"


def run_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what must not change while a folder is filled: the recipe and its local inputs."""
    return {**recipe.fixed_settings(), "inputs": input_digests(recipe)}


def input_digests(recipe: Recipe) -> dict[str, str]:
    """Return a digest of everything local that the recipe reads, by the key that names it."""
    from augesc_builder.sources.registry import find_source
    from augesc_builder.sources.sessions import find_sessions

    backend = backend_of(recipe)
    files: dict[str, list[Path]] = {**_lists(recipe)}
    if backend.n_sessions(recipe):
        sessions = find_sessions(recipe.finetune.sessions)
        if sessions is None:
            files["finetune.sessions"] = [Path(recipe.finetune.sessions)]
        elif sessions.bundled_sessions is not None:
            files["finetune.sessions"] = [sessions.bundled_sessions]
    for i, origin in enumerate(recipe.queries.sources):
        key = f"queries.sources.{i}"
        source = find_source(origin.source)
        if source is not None and source.bundled_posts is not None:
            files[key] = [source.bundled_posts]
        elif origin.path is not None and not is_on_the_hub(origin.path):
            files[key] = files_below(Path(origin.path))
    files |= _files_beside(recipe) | distractors_here(recipe.quality)
    if recipe.prompt.personas is not None and not is_on_the_hub(recipe.prompt.personas):
        files["prompt.personas"] = [Path(recipe.prompt.personas)]
    found = {key: digest(paths) for key, paths in files.items()}
    if backend.needs_checkpoint and (gguf := gguf_on_disk(recipe.backbone)) is not None:
        found["finetune.backbone"] = sha256_of(gguf)[:16]
    found |= {key: content_of(Path(name)) for key, name in _models(recipe) if _is_here(name)}
    return found | {key: content_of(model) for key, model in backend.models(recipe).items()}


def _lists(recipe: Recipe) -> dict[str, list[Path]]:
    """Return the word lists of a recipe: the user's own, or those that are shipped."""
    reddit = recipe.queries.reddit
    lists = {
        "queries.reddit.lexicons.serious_issue": (reddit.lexicons.serious_issue, "serious_issues"),
        "queries.reddit.lexicons.medication": (reddit.lexicons.medication, "medications"),
        "queries.reddit.lexicons.reddit_lingo": (reddit.lexicons.reddit_lingo, "reddit_lingo"),
    }
    if not isinstance(reddit.subreddits, list):
        lists["queries.reddit.subreddits"] = (reddit.subreddits, "subreddits")
    found = {"safety.lexicon": SAFETY_LISTS}
    if any(origin.source == "reddit" for origin in recipe.queries.sources):
        for key, (given, shipped) in lists.items():
            found[key] = [Path(given) if given else LEXICONS / f"{shipped}.yaml"]
    return found


def _models(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the models that a recipe names, by key."""
    backbone = recipe.backbone
    if backend_of(recipe).needs_checkpoint and backbone.name and backbone.gguf_file is None:
        yield "finetune.backbone", backbone.name
    judges = recipe.queries.classifiers
    if judges.enabled:
        for emotion in judges.emotions:
            yield f"queries.classifiers.{emotion.name}", emotion.model
        if judges.toxicity is not None:
            yield "queries.classifiers.toxicity", judges.toxicity.model
    if recipe.requirements.tokenizer is not None:
        yield "requirements.tokenizer", recipe.requirements.tokenizer.name
    if recipe.safety.classifier is not None:
        yield "safety.classifier", recipe.safety.classifier.model
    for measure, (name, _) in recipe.quality.models().items():
        yield MODEL_SECTIONS[measure], name


def _is_here(name: str) -> bool:
    return Path(name).is_dir()


def check_inputs(recipe: Recipe) -> None:
    """Find mistakes in local inputs before anything is written or trained.

    Raises :class:`~augesc_builder.errors.InputError` for too few sessions and for a file that is
    not there, and what the backend's check raises.
    """
    from augesc_builder.sources.personas import read_personas
    from augesc_builder.sources.sessions import find_sessions, read_training_sessions

    backend = backend_of(recipe)
    if (n := backend.n_sessions(recipe)) and find_sessions(recipe.finetune.sessions) is None:
        sessions, _ = read_training_sessions(recipe.finetune.sessions, None)
        if len(sessions) < n:
            key = "finetune.n_sessions" if backend.needs_checkpoint else "generate.backend"
            raise InputError(
                f"holds {len(sessions)} sessions, and {key} asks for {n}; lower it with --set",
                recipe.finetune.sessions,
            )
    _files_beside(recipe)
    if recipe.prompt.personas is not None:
        read_personas(recipe.prompt.personas)
    if backend.needs_checkpoint:
        check_backbone(recipe.backbone)
    backend.check(recipe)


def distractors_here(quality: Quality) -> dict[str, list[Path]]:
    """Return the local files that turns of other sessions are drawn from, by their key."""
    from augesc_builder.sources.registry import find_source
    from augesc_builder.sources.sessions import sessions_files

    where = quality.topic_drift.sessions
    if "topic_drift" not in quality.measures or find_source(where) is not None:
        return {}
    return {"quality.topic_drift.sessions": sessions_files(Path(where))}


def _files_beside(recipe: Recipe) -> dict[str, list[Path]]:
    """Return the local files that ``statistics.beside`` names, by the key that names them."""
    from augesc_builder.sources.registry import find_source
    from augesc_builder.sources.sessions import sessions_files

    return {
        f"statistics.beside.{name}": sessions_files(Path(where))
        for name, where in (recipe.statistics.beside or {}).items()
        if find_source(where) is None
    }
