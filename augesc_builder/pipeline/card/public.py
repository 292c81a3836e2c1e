"""What is published of a run: its recipe and manifest, with labels in the place of paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augesc_builder.config.executor import EXECUTOR, Executor
from augesc_builder.config.paths import is_packaged
from augesc_builder.config.published import label_of, local_places, relabelled, without_paths
from augesc_builder.config.recipe import Recipe, dump_recipe, load_recipe
from augesc_builder.run import layout
from augesc_builder.run.folder import read_manifest
from augesc_builder.sources.registry import find_source

_SESSIONS = (
    *("finetune.sessions", "quality.topic_drift.sessions", "requirements.test_overlap.sessions"),
    *("statistics.beside.", "statistics.tested_on."),
)
"""Beginnings of keys that name a source of sessions, or a path."""


@dataclass(frozen=True)
class PublicRun:
    """A recipe and a manifest without the paths of whoever ran them."""

    recipe: Recipe
    manifest: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    """What stands in the place of each path."""

    @classmethod
    def of(cls, recipe: Recipe, manifest: Mapping[str, Any]) -> PublicRun:
        """Make them of a run's own."""
        revisions = manifest.get("revisions", {})
        is_finetuned = "finetune" in manifest.get("stages", {})

        def is_path(key: str, text: str) -> bool | None:
            if key == "backbone.name" and is_finetuned and not is_packaged(text):
                return "backbone" not in revisions  # what is loaded from the Hub has a commit
            named = key.startswith(_SESSIONS) and find_source(text) is not None
            return False if named or text in revisions else None

        paths = local_places(recipe, is_path)
        digests = manifest.get("settings", {}).get("inputs", {})
        labels = {key: label_of(path, _digest(key, digests)) for key, path in paths.items()}
        named = {path: labels[key] for key, path in paths.items()}
        public = without_paths(_without_lines(manifest), named)
        # Who made the shards changes no row, and nobody else has the same cluster.
        anywhere = {"executor": Executor.model_validate(EXECUTOR)}
        told = relabelled(recipe, labels).model_copy(update=anywhere)
        return cls(told, public, named)

    def report(self, value: Any) -> Any:
        """Return a report of the run as it is published."""
        return without_paths(_without_lines(value), self.labels)

    @property
    def commits(self) -> Mapping[str, str]:
        """Return the commits on the Hub that were loaded, by what they are of."""
        return dict(self.manifest.get("revisions", {}))

    @property
    def base_model(self) -> str | None:
        """Return the name on the Hub of the model that was fine-tuned, where it has one."""
        backbone = self.recipe.backbone
        return backbone.base_model or (backbone.name if "backbone" in self.commits else None)


def settings_files(run: Path) -> dict[str, bytes]:
    """Return the recipe, the manifest and what was measured by models, as they are published."""
    told = PublicRun.of(load_recipe(run / layout.RECIPE), read_manifest(run))
    found = {
        layout.RECIPE: dump_recipe(told.recipe).encode(),
        layout.MANIFEST: _json(told.manifest),
    }
    if (run / layout.CORPUS / layout.QUALITY_REPORT).is_file():
        quality = layout.load_report(run / layout.CORPUS, "quality")
        found[layout.QUALITY_REPORT] = _json(told.report(quality))
    return found


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode()


def _digest(key: str, digests: Mapping[str, str]) -> str | None:
    """Return the digest of what a key names; of some, it stands under the section's name."""
    section = "finetune.backbone" if key == "backbone.name" else key.rpartition(".")[0]
    return digests.get(key) or digests.get(section)


def _without_lines(value: Any) -> Any:
    """Leave out the lines that could not be read: they quote strangers, and name files."""
    if isinstance(value, Mapping):
        return {
            key: {"count": inner["count"]} if key == "bad_lines" else _without_lines(inner)
            for key, inner in value.items()
        }
    return value
