"""Where a run comes from: versions, pinned revisions, and digests of the files it reads."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augesc_builder.config.paths import PACKAGE, is_packaged
from augesc_builder.config.quality import MODEL_SECTIONS, Quality
from augesc_builder.config.recipe import Recipe, SafetyClassifier
from augesc_builder.config.requirements import Tokenizer
from augesc_builder.errors import InputError
from augesc_builder.readers.packages import release_of
from augesc_builder.run.disk import sha256
from augesc_builder.run.draft import Noted
from augesc_builder.run.folder import RunFolder
from augesc_builder.run.progress import Progress
from augesc_builder.run.versions import fingerprint, versions

_BLOCK = 1 << 20


_HUGE = 1 << 30
"""Bytes from which a file is not read through for its digest: a dump may have tens of GB."""


def files_below(path: Path) -> list[Path]:
    """Return the files below a folder, in order, or the one file given.

    Raises :class:`~augesc_builder.errors.InputError` where one cannot be looked at.
    """
    try:
        return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    except OSError as error:
        where = Path(error.filename or path)
        raise InputError(
            f"cannot be looked at ({error.strerror}); give a folder of files", where
        ) from None


def digest(paths: Sequence[Path]) -> str:
    """Return a short digest of the bytes of files; of huge ones, of their size, start and end.

    Raises :class:`~augesc_builder.errors.InputError` where one cannot be read.
    """
    running = hashlib.sha256()
    for path in paths:
        try:
            facts = path.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(
                    "not a regular file: a pipe or device can be read once and not again; save "
                    "what it gives as a file",
                    path,
                )
            size = facts.st_size
            with path.open("rb") as file:
                if size > _HUGE:
                    running.update(f"{size}/".encode() + file.read(_BLOCK))
                    file.seek(-_BLOCK, os.SEEK_END)
                while block := file.read(_BLOCK):
                    running.update(block)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}; check the path", path) from None
    return running.hexdigest()[:16]


def content_of(folder: Path) -> str:
    """Return a short digest of the names and all the bytes of the files below a folder."""
    running = hashlib.sha256()
    for path in files_below(folder):
        running.update(
            f"{path.relative_to(folder).as_posix()}/{sha256(path)}/".encode(
                errors="surrogateescape"
            )
        )
    return running.hexdigest()[:16]


def pin_backbone(folder: RunFolder, recipe: Recipe) -> Recipe:
    """Return the recipe with its backbone at a commit of the Hub, the same for the whole run.

    Of a package the release is recorded; which file of it is meant, the recipe says by a digest.
    Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not answer.
    """
    origin = recipe.backbone
    if origin.name is None or Path(origin.name).exists():
        return recipe
    if is_packaged(origin.name):
        folder.add(packages={"backbone": release_of(origin.name.removeprefix(PACKAGE))})
        return recipe
    commit = _pin(folder, "backbone", origin.name, origin.revision, "backbone.name")
    pinned = origin.model_copy(update={"revision": commit})
    return recipe.model_copy(update={"backbone": pinned})


def pin_safety_classifier(
    folder: Noted, classifier: SafetyClassifier | None
) -> SafetyClassifier | None:
    """Return the classifier of safety flags at a commit of the Hub, as :func:`pin_backbone` does.

    Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not answer.
    """
    if classifier is None or Path(classifier.model).exists():
        return classifier
    name, key = classifier.model, "safety.classifier.model"
    commit = _pin(folder, name, name, classifier.revision, key)
    return classifier.model_copy(update={"revision": commit})


def pin_tokenizer(folder: Noted, tokenizer: Tokenizer | None) -> Tokenizer | None:
    """Return the tokenizer of the requirements at a commit, as :func:`pin_backbone` does.

    Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not answer.
    """
    if tokenizer is None or Path(tokenizer.name).exists():
        return tokenizer
    name, key = tokenizer.name, "requirements.tokenizer.name"
    commit = _pin(folder, name, name, tokenizer.revision, key)
    return tokenizer.model_copy(update={"revision": commit})


def pin_quality(folder: RunFolder, quality: Quality) -> Quality:
    """Return the section with each model at a commit of the Hub, as :func:`pin_backbone` does.

    Raises :class:`~augesc_builder.errors.DownloadError` where the Hub does not answer.
    """
    commits = {}
    for measure, (name, revision) in quality.models().items():
        if is_packaged(name):
            folder.add(packages={measure: release_of(name.removeprefix(PACKAGE))})
        elif not Path(name).exists():
            key = f"{MODEL_SECTIONS[measure]}.model"
            commits[measure] = _pin(folder, name, name, revision, key)
    return quality.at(commits)


def _pin(folder: Noted, what: str, name: str, revision: str | None, key: str) -> str:
    """Return the commit of a model: the one that the run began with, or that of the revision."""
    from augesc_builder.readers.hub import resolve_model

    known = folder.manifest.get("revisions", {}).get(what)
    commit = str(known or resolve_model(name, revision, key))
    folder.add(revisions={what: commit})
    return commit


def is_new(folder: RunFolder, stage: str, progress: Progress) -> bool:
    """Whether a stage is still to be run, and begin it; the user is told where it is not."""
    if folder.is_intact(stage):
        progress.say(f"{folder.path} is complete: nothing to do")
        return False
    folder.record(versions=versions(), made_with=fingerprint())
    folder.begin(stage)
    return True


def load_json(path: Path) -> Any:
    """Read a JSON file that a stage wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
