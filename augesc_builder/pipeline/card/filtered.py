"""The card of a folder of ``augesc filter``: its own files, and what only its owner knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from augesc_builder import __version__
from augesc_builder.config.base import FILE, MODEL
from augesc_builder.config.published import is_local, label_of
from augesc_builder.errors import RunFolderError
from augesc_builder.pipeline.card.ingredients import check_licence, sources_of, terms_text
from augesc_builder.pipeline.card.metadata import metadata
from augesc_builder.pipeline.card.render import render
from augesc_builder.pipeline.card.safety import safety_table, safety_text
from augesc_builder.pipeline.filter.report import filter_table
from augesc_builder.run import layout
from augesc_builder.run.escape import for_markdown, markdown_block
from augesc_builder.run.folder import RunFolder, read_manifest
from augesc_builder.run.layout import load_report
from augesc_builder.run.progress import Progress
from augesc_builder.sources.registry import find_source

TOLD = ("title", "licence", "about")
"""What no file of such a folder says."""


def write_card(path: Path, told: Mapping[str, str | None], progress: Progress) -> None:
    """Write the card of a folder of ``augesc filter``; what was told before need not be again.

    Raises :class:`~augesc_builder.errors.RunFolderError` where something was never told, or
    filtering is not finished.
    """
    manifest = read_manifest(path)
    known = {**manifest.get("card", {}), **{key: text for key, text in told.items() if text}}
    if missing := [f"--{key}" for key in TOLD if key not in known]:
        raise RunFolderError(
            f"{path}: no file there says how the texts came about, or under which licence; give "
            f"{', '.join(missing)}"
        )
    check_licence(known["licence"], sources_of(path), "--licence")
    with RunFolder(path, manifest["settings"], progress) as folder:
        if not folder.is_complete("filter"):
            raise RunFolderError(
                f"{path}: its filtering is not finished; run `augesc filter` again"
            )
        folder.use("filter")
        folder.record(card=known)
        folder.write_text(layout.CARD, render_filtered(path, known, manifest["settings"]))
        folder.complete("card")
    progress.say(f"Wrote {path / layout.CARD}")


def render_filtered(corpus: Path, told: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Return the card, in Markdown with the Hub's metadata in front."""
    report, safety = load_report(corpus, "filter"), load_report(corpus, "safety")
    values = metadata(told["title"], told["licence"], (), corpus)
    return render(
        "filtered.md",
        metadata=yaml.safe_dump(values, sort_keys=False).strip(),
        title=for_markdown(told["title"]),
        about=for_markdown(told["about"]),
        licence=for_markdown(told["licence"]),
        terms=terms_text(sources_of(corpus)),
        made_with=__version__,
        report=report,
        filter_table=filter_table(report),
        requirements=markdown_block(
            yaml.safe_dump(_public(settings), sort_keys=False).strip(), "yaml"
        ),
        safety_table=safety_table(safety),
        safety_text=safety_text(safety, corpus),
        not_scanned=safety["not_scanned"],
    )


def _public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the thresholds with labels in the place of paths."""
    found = dict(settings["requirements"])
    for name, key, mark in (("test_overlap", "sessions", FILE), ("tokenizer", "name", MODEL)):
        text = found.get(name, {}).get(key, "")
        if text and not find_source(text) and is_local(text, mark):
            label = label_of(text, settings.get(f"requirements.{name}.{key}"))
            found[name] = {**found[name], key: label}
    return found
