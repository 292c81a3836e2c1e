"""The card of a dialog model: a template with slots, filled from the training's own facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from augesc_builder.config.training import Config, dump_config

_TEMPLATE = Path(__file__).parent / "model_card.md"


def render_model_card(config: Config, facts: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Write the card, in Markdown with the Hub's metadata in front."""
    paths = sorted({item.path for phase in config.phases.values() for item in phase.sessions})
    bundled = all(path.partition(":")[0] == "sample" for path in paths)
    metadata: dict[str, Any] = {
        "language": "en",
        "license": "apache-2.0" if bundled else "cc-by-nc-4.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["emotional-support", "dialog", "augesc"],
    }
    if config.model.name is not None:
        metadata["base_model"] = config.model.name
    template = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False
    ).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return (
        template.render(
            metadata=yaml.safe_dump(metadata, sort_keys=False).strip(),
            config=config,
            facts=facts,
            phases=list(zip(config.phases.items(), facts["examples"], strict=True)),
            perplexity=f"{facts['validation_perplexity']:.2f}",
            bundled=bundled,
            versions=", ".join(f"{name} {version}" for name, version in versions.items()),
            config_yaml=dump_config(config).strip(),
        ).rstrip()
        + "\n"
    )
