"""What a corpus is made of: the sources of its queries and its fine-tuning sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from augesc_builder.citations import cite
from augesc_builder.config.recipe import Recipe
from augesc_builder.errors import PublishError
from augesc_builder.pipeline.generate.backends import backend_of
from augesc_builder.run import layout
from augesc_builder.run.escape import markdown_code
from augesc_builder.run.layout import parquet_files
from augesc_builder.sources.base import FREE, NON_COMMERCIAL, OTHER, SourceInfo
from augesc_builder.sources.registry import find_source
from augesc_builder.sources.sessions import find_sessions

_NAMES = {NON_COMMERCIAL: "CC BY-NC 4.0", FREE: "Apache-2.0", OTHER: "no single licence"}

_MODELS = {"gpt-j": "wang2021gptj", "smollm2": "allal2025smollm2"}
"""What is cited for a backbone whose label or name holds one."""

_LOCAL = "a local file in ESConv's form"


def ingredients(recipe: Recipe, manifest: Mapping[str, Any]) -> list[SourceInfo]:
    """Return the sources of a run's queries and training sessions, each once."""
    names = list(manifest["stages"]["queries"]["report"])
    found = [find_source(name) or _unknown(name) for name in names]
    if backend_of(recipe).n_sessions(recipe):
        found.append(session_source(recipe))
    return list({info.name: info for info in found}.values())


def session_source(recipe: Recipe) -> SourceInfo:
    """Return the source of the training sessions; a local file is taken for ESConv's."""
    name = recipe.finetune.sessions
    return find_sessions(name) or SourceInfo(
        name=Path(name).name,
        label=Path(name).name,
        about=_LOCAL,
        licence=NON_COMMERCIAL,
        producers="What it was trained on came from a file of whoever ran the recipe.",
        citation="liu2021esconv",
    )


def licence_of(made_of: Sequence[SourceInfo]) -> str:
    """Return the licence that a corpus inherits: the strictest of those it is made of."""
    inherited = {info.licence for info in made_of} - {FREE}
    if NON_COMMERCIAL in inherited or not inherited:
        return NON_COMMERCIAL if inherited else FREE
    return inherited.pop() if len(inherited) == 1 else OTHER


def check_licence(licence: Any, made_of: Sequence[SourceInfo], where: str) -> None:
    """Refuse a licence that lets others do what a source of the corpus does not.

    ``where`` says who gives it. A local file of sessions is its owner's to judge.

    Raises :class:`~augesc_builder.errors.PublishError`.
    """
    bound = [info for info in made_of if _is_bound(info.licence) and info.about != _LOCAL]
    given = licence if isinstance(licence, list) else [] if licence is None else [licence]
    for one in given:
        if bound and not _is_bound(str(one).lower()):
            raise PublishError(
                f"{where}: {one!s:.60} lets everybody use the texts for anything, and some come "
                f"from {bound[0].name} ({licence_name(bound[0].licence)}); give "
                f"{licence_of(bound)}"
            )


def _is_bound(licence: str) -> bool:
    """Whether texts under a licence are not for commercial use, or their authors' to give."""
    return licence == OTHER or licence.startswith("cc-by-nc")


def sources_of(corpus: Path) -> list[SourceInfo]:
    """Return the sources that the rows of a corpus name, and that are known here."""
    tables = [pq.read_table(f, columns=["source"]) for f in parquet_files(corpus / layout.DATA)]
    names = {name for table in tables for name in table["source"].unique().to_pylist() if name}
    return [info for name in sorted(names) if (info := find_source(name)) is not None]


def licence_name(licence: str) -> str:
    """Return a licence as people write it."""
    return _NAMES.get(licence, licence.upper())


def licence_text(made_of: Sequence[SourceInfo]) -> str:
    """Return which licence it is, and what forces it."""
    bound = [info for info in made_of if info.licence not in {FREE, OTHER}]
    owned = _names(info for info in made_of if info.licence == OTHER)
    parts = []
    if not bound and not owned:
        parts.append("Apache-2.0: nothing that it was made of asks for more.")
    elif not bound:
        parts.append("No single licence: the rest of it is under Apache-2.0.")
    for licence in sorted({info.licence for info in bound}):
        names = _names(info for info in bound if info.licence == licence)
        parts.append(f"{licence_name(licence)}, inherited from {names}.")
    if any(info.about == _LOCAL for info in bound):
        parts.append("A local file of sessions is taken for ESConv's.")
    if owned:
        parts.append(
            f"The posts of {owned} are their authors', and that site's terms hold for them."
        )
    return " ".join(parts)


def terms_text(made_of: Sequence[SourceInfo]) -> str:
    """Return the terms that come with the texts of sources, beside their licences."""
    return " ".join(dict.fromkeys(info.terms for info in made_of if info.terms))


def producers_text(made_of: Sequence[SourceInfo]) -> str:
    """Return who wrote the texts that a corpus was made of."""
    return " ".join(dict.fromkeys(info.producers for info in made_of))


def citation(recipe: Recipe, made_of: Sequence[SourceInfo]) -> str:
    """Return BibTeX entries for every ingredient of a run."""
    keys = ["zheng2022augesc", *(info.citation for info in made_of if info.citation)]
    backend = backend_of(recipe)
    model = backend.label(recipe) + f" {recipe.backbone.name}" * backend.needs_checkpoint
    keys += [cited for name, cited in _MODELS.items() if name in model.lower()]
    if recipe.finetune.lora and backend.needs_checkpoint:
        keys.append("hu2022lora")
    keys += ["wolf2020transformers", "bird2009nltk"]
    return f"```bibtex\n{cite(list(dict.fromkeys(keys)))}\n```"


def _names(infos: Any) -> str:
    return ", ".join(markdown_code(name) for name in sorted(info.name for info in infos))


def _unknown(name: str) -> SourceInfo:
    """Return what can be said of a source whose plugin is not installed here."""
    unknown = f"Who wrote the posts of {markdown_code(name)} is not known here."
    return SourceInfo(name, name, "", OTHER, unknown)
