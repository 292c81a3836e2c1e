"""Finished runs: what their folders say of them.

A run is the folder of a build, or that of ``augesc filter``, whose generations may lie in the
folder of a build: what it took to make them is told there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from augesc_builder.config.backbone import Backbone
from augesc_builder.config.recipe import modernize
from augesc_builder.errors import AugescError, InputError, RunFolderError
from augesc_builder.pipeline.filter.tokens import lacks_counts
from augesc_builder.pipeline.statistics.sets import name_and_path
from augesc_builder.run import layout
from augesc_builder.run.disk import MEND, sha256
from augesc_builder.run.folder import read_manifest
from augesc_builder.run.marks import Marks, checked, marks_above
from augesc_builder.sources.generations import generations_files

_Amount = Annotated[float, Field(ge=0, le=1e15)]


class _Requests(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    money: _Amount | None = None


class _Generate(BaseModel):
    model_config = ConfigDict(extra="ignore")

    requests: _Requests = _Requests()


class _Stages(BaseModel):
    model_config = ConfigDict(extra="ignore")

    generate: _Generate = _Generate()


class _Requirements(BaseModel):
    model_config = ConfigDict(extra="allow")

    tokenizer: dict[str, Any] | None = None
    role_words: dict[str, Any] = {}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="ignore")

    stage: str = "build"
    requirements: _Requirements = _Requirements()
    backbone: dict[str, Any] | None = None
    generate: dict[str, Any] = {}
    tokenizer: str | None = None


class _Manifest(BaseModel):
    """What is told of a manifest."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    recipe: str | None = None
    settings: _Settings
    seconds: dict[str, _Amount] = {}
    stages: _Stages = _Stages()
    files: list[str] = []


@dataclass(frozen=True)
class Counter:
    """Which tokenizer counted a run's texts, by all that it is known by: maybe by nothing.

    ``label`` is what it is called. ``tokenizer`` is the ``requirements.tokenizer`` that counts
    alike, if one does.
    """

    known_by: frozenset[str]
    label: str | None
    tokenizer: Mapping[str, Any] | None = None

    def counts_as(self, other: Counter) -> bool:
        """Whether both are the same tokenizer, for all that is known."""
        return not (self.known_by and other.known_by) or bool(self.known_by & other.known_by)


@dataclass(frozen=True)
class Run:
    """A finished run.

    ``generations`` is what ``augesc filter`` reads its texts from. ``made_in`` is the folder of the
    run that generated them, where that is known: ``folder`` itself, for a build. ``seconds`` and
    ``money`` (by the recipe's prices) are those of generating all texts.
    """

    name: str
    folder: Path
    corpus: Path
    requirements: Mapping[str, Any]
    tokenizer: Mapping[str, Any] | None
    counter: Counter
    generations: Path
    made_in: Path | None
    recipe: str | None
    backend: str | None
    model: str | None
    seconds: float | None
    seconds_finetuning: float | None
    money: float | None

    def files(self, place: str) -> list[Path]:
        """Return the tables that filtering wrote to ``data``, ``rejected`` or ``measured``.

        Raises :class:`~augesc_builder.errors.InputError` where one is not as it was written.
        """
        above = self.folder if place == layout.MEASURED else self.corpus
        stage = self._stages()[-1] if place == layout.DATA else "filter"
        return Marks(self.folder).table(above / place, stage)

    def digest(self) -> str:
        """Return one digest of what was kept and rejected."""
        marks = Marks(self.folder)
        return "".join(map(marks.digest, self._stages()))

    def _stages(self) -> list[str]:
        """Return the stages that tell of its sessions, the one that wrote them last."""
        chose = "select" in Marks(self.folder)
        return ["filter", "select"] if chose else ["filter"]

    def trained_on(self) -> tuple[str, ...] | str:
        """Return the utterances that its model was fine-tuned on, or why they are not known."""
        from augesc_builder.config.recipe import load_recipe
        from augesc_builder.pipeline.finetune.stage import finetuned_on

        if self.made_in is None or not (self.made_in / layout.RECIPE).is_file():
            return "the folder of its build is not known"
        try:
            recipe = load_recipe(self.made_in / layout.RECIPE)
            found = finetuned_on(read_manifest(self.made_in), recipe)
        except AugescError as error:
            return str(error)
        return "its model was fine-tuned on no sessions that are known" if found is None else found


def find_runs(given: Sequence[str]) -> list[Run]:
    """Return the runs of ``RUN`` and ``NAME=RUN``, called as the user does, or by their folders.

    Raises :class:`~augesc_builder.errors.InputError` for fewer than two, one that is given twice,
    and two of one name, and :class:`~augesc_builder.errors.RunFolderError` for what is no finished
    run.
    """
    runs: list[Run] = []
    for text in given:
        name, path = name_and_path(text)
        run = _run(name, path)
        for other in runs:
            if other.folder.resolve() == run.folder.resolve():
                raise InputError("given twice; give the folder of another run", path)
            if other.name == run.name:
                raise InputError(
                    f"a second run called {run.name}; name it, as in other={path}", path
                )
        runs.append(run)
    if len(runs) == 1:
        raise InputError("one run alone; give two or more", runs[0].folder)
    return runs


def _run(name: str | None, path: Path) -> Run:
    if not path.is_dir():
        found = "a file" if path.exists() else "not there"
        raise RunFolderError(f"{path} is {found}; give the folder of a build or of `augesc filter`")
    folder = layout.run_of(path)
    manifest, marks = _manifest(folder), Marks(folder)
    if manifest.settings.stage not in {"build", "filter"}:
        raise RunFolderError(
            f"{folder}: a folder of another stage ({manifest.settings.stage[:40]}); give that of a "
            f"build or of `augesc filter`"
        )
    if "filter" not in marks:
        raise RunFolderError(
            f"{folder}: its filtering is not finished; finish it first (`augesc status "
            f"{shlex.quote(str(folder))}` says how far it is)"
        )
    is_build = manifest.settings.stage == "build"
    made_in = folder if is_build else _made_in(manifest)
    maker = manifest if is_build or made_in is None else _manifest(made_in)
    backend = maker.settings.generate.get("backend")
    kind = str(backend.get("type")) if made_in and isinstance(backend, dict) else None
    requirements = manifest.settings.requirements.model_dump(exclude_none=True)
    corpus = folder / layout.CORPUS if is_build else folder
    checked(corpus / layout.FILTER_REPORT)
    report = layout.load_report(corpus, "filter")
    requirements["counted"] = report.get("counted", "generated")
    return Run(
        name=name or folder.resolve().name,
        folder=folder,
        corpus=corpus,
        requirements={k: v for k, v in requirements.items() if k != "tokenizer"},
        tokenizer=requirements.get("tokenizer"),
        counter=_counter(manifest.settings, maker, made_in, kind),
        generations=folder if is_build else _generations(manifest.files, folder),
        made_in=made_in,
        recipe=maker.recipe,
        backend=kind,
        model=_written_by(made_in, maker.settings.backbone, kind) if made_in else None,
        seconds=maker.seconds.get("generate") if made_in else None,
        seconds_finetuning=maker.seconds.get("finetune") if made_in else None,
        money=maker.stages.generate.requests.money if made_in else None,
    )


def _manifest(folder: Path) -> _Manifest:
    try:
        found = read_manifest(folder)
        if isinstance(found.get("settings"), dict):
            found["settings"] = modernize(found["settings"])
        return _Manifest.model_validate(found)
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"]))[:60]
        raise RunFolderError(
            f"{folder / layout.MANIFEST}: not as a run writes it: {where}: {what['msg']}; {MEND}"
        ) from None


def _made_in(manifest: _Manifest) -> Path | None:
    """Return the folder of the run that generated what ``augesc filter`` read, if it is there."""
    parents = {Path(file).parent for file in manifest.files}
    marks = marks_above(parents.pop()) if len(parents) == 1 else None
    return marks.root if marks is not None and "generate" in marks else None


def _generations(files: Sequence[str], folder: Path) -> Path:
    return Path(files[0]) if len(files) == 1 else Path(files[0]).parent if files else folder


# -- what counts tokens ---------------------------------------------------------------------------


def _counter(
    settings: _Settings, maker: _Manifest, made_in: Path | None, backend: str | None
) -> Counter:
    asked = settings.requirements.tokenizer or (settings.tokenizer and {"name": settings.tokenizer})
    if asked:
        name = str(asked.get("name"))
        file = Path(name) / layout.TOKENIZER
        known = {name, sha256(file)} if file.is_file() else {name}
        named = {"name": name, "revision": asked.get("revision")}
        return Counter(frozenset(known), name.rstrip("/").rpartition("/")[2], named)
    if made_in is None:
        return Counter(frozenset(), None)  # counts that came with somebody's rows
    if _is_the_backbones(backend) or lacks_counts(generations_files(made_in)):
        return _of_backbone(maker.settings.backbone or {}, made_in)
    section = json.dumps(maker.settings.generate.get("backend"), sort_keys=True)
    return Counter(frozenset({section}), f"as the backend {backend} counts")


def _of_backbone(backbone: Mapping[str, Any], made_in: Path) -> Counter:
    """Tell a tokenizer by the model that it came with, and by its bytes in the checkpoint."""
    name = backbone.get("base_model") or backbone.get("name")
    marks, checkpoint = Marks(made_in), made_in / layout.CHECKPOINT
    files = marks.files(["finetune"]) if "finetune" in marks else {}
    written = files.get(f"{layout.CHECKPOINT}/{layout.TOKENIZER}", {}).get("sha256")
    known = {str(key) for key in (name, written) if key is not None} or {str(made_in.resolve())}
    tokenizer: dict[str, Any] | None = None
    if checkpoint.is_dir():
        tokenizer = {"name": str(checkpoint), "revision": None}
    elif name is not None:
        tokenizer = {"name": name, "revision": backbone.get("revision")}
    return Counter(frozenset(known), _model(backbone) or "its backbone", tokenizer)


def _written_by(made_in: Path, backbone: Mapping[str, Any] | None, kind: str | None) -> str | None:
    """Return what tables call the model that wrote the texts, where its backend is known here."""
    from augesc_builder.config.recipe import load_recipe
    from augesc_builder.pipeline.generate.backends import backend_of

    path = made_in / layout.RECIPE
    try:
        if path.is_file():
            recipe = load_recipe(path)
            return backend_of(recipe).label(recipe)
    except AugescError:
        pass
    return _model(backbone) if _is_the_backbones(kind) else None


def _is_the_backbones(backend: str | None) -> bool:
    """Whether a backend's texts are the backbone's, and come with counts by its tokenizer."""
    from augesc_builder.pipeline.generate.backends import backend_class, backend_names

    return backend in backend_names() and backend_class(backend).needs_checkpoint


def _model(backbone: Mapping[str, Any] | None) -> str | None:
    try:
        return Backbone.model_validate(backbone).label
    except ValidationError:
        return None
